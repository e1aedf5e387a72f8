"""Series as candidates for the sequences, recognised by their headers, each in the light of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pydicom
from nibabel import Nifti1Image
from pydicom.dataset import Dataset

from common.modalities import GLIOMA, canonical, display_name
from mmb.clinic.choice import COVERAGE, ENOUGH, Candidate, Verdict
from mmb.clinic.dicom.headers import number, quiet, text
from mmb.clinic.dicom.pixels import load
from mmb.clinic.dicom.sequences import agent_named, contrast, contrast_words, image_type, recognise, reformatted
from mmb.clinic.dicom.series import Other, Series
from mmb.clinic.words import other_body, plain


@dataclass(eq=False)
class HeaderCandidate(Candidate):
    """A candidate with a header, of which an image file has few attributes or none."""

    header: Dataset = field(kw_only=True)

    def __post_init__(self) -> None:
        self.reformatted, self.in_3d = reformatted(self.header), text(self.header, "MRAcquisitionType") == "3D"
        self.derived = image_type(self.header)[:1] == ["DERIVED"]
        self.other_body = other_body(plain(text(self.header, "BodyPartExamined"))) or ""
        self.corrections = len({"NORM", "DIS2D", "DIS3D"} & {*image_type(self.header)})
        date, time = (text(self.header, name) for name in ("AcquisitionDate", "AcquisitionTime"))
        self.acquired = date + time if date and time else text(self.header, "AcquisitionDateTime")
        super().__post_init__()


@dataclass(eq=False)
class SeriesCandidate(HeaderCandidate):
    """A series as a candidate."""

    in_threads: ClassVar[bool] = False  # silencing pydicom changes what holds for the whole process
    series: Series = field(kw_only=True)

    @property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine of the series."""
        return self.series.shape, self.series.affine

    def read(self) -> tuple[Nifti1Image, list[str]]:
        """Decode the pixels."""
        return load(self.series), []


@quiet()
def series_candidates(series: Sequence[Series], by_hand: Mapping[str, Any] | None = None) -> list[SeriesCandidate]:
    """Return a study's series as candidates.

    ``by_hand`` overrides the recognition. It maps a modality to a `Series.key`: the SeriesNumber, or text such as
    ``3-1`` if several volumes have this number. None leaves the modality out. Raises ValueError if a series set by hand
    does not exist.
    """
    fixed = _set_by_hand(series, by_hand or {})
    candidates = [
        SeriesCandidate(
            volume.name,
            volume.name,
            volume.frame_of_reference or volume.name,
            problem=volume.problem,
            header=volume.header,
            series=volume,
        )
        for volume in series
    ]
    recognise_all(candidates)
    for candidate in candidates:
        volume, verdict = candidate.series, candidate.by_header
        extent = min(size * step for size, step in zip(volume.shape, volume.spacing, strict=True))
        if verdict.modality and volume.problem is None and extent < COVERAGE:
            slab = f"a slab of {extent:.0f} mm, not a whole brain ({verdict.reason})"
            candidate.by_header = Verdict(None, 0.0, slab)
        for modality in (name for name, set_by_hand in fixed.items() if set_by_hand is volume):
            candidate.by_header, candidate.fixed = Verdict(modality, 1.0, "set by hand"), True
    return candidates


def option(candidates: Sequence[SeriesCandidate], names: Sequence[str], value: str | None = None) -> str:
    """Return how the user sets modalities by hand, by default to a series."""
    value = value or ("NUMBER-PART" if any(candidate.series.part for candidate in candidates) else "NUMBER")
    return " ".join(["--series", *(f"{name}={value}" for name in names)])


def mixed_series(candidates: Sequence[SeriesCandidate], used: Sequence[Candidate]) -> list[str]:
    """Return a warning for each series in use that is a part of a mixed one."""
    return [
        f"{part.name} is only a part of a series with single slices and a multi-frame image ({other.name} is another "
        "part): check that it is complete."
        for part in candidates
        for other in candidates
        if part in used and part.series.uid == other.series.uid and part.series.multiframe != other.series.multiframe
    ]


@quiet()
def left_out(others: Sequence[Other]) -> dict[str, str | None]:
    """Return a line for each series that is not of a class of MR images -> the modality that its description names."""
    lines = {}
    for other in others:
        described = ["SeriesDescription", "ProtocolName", "Rows"]
        header = pydicom.dcmread(other.files[0], stop_before_pixels=True, specific_tags=described)
        modality = recognise(header).modality if number(header, "Rows") else None  # reports have no rows
        named = f"{display_name(modality)} by its description, but " if modality else ""
        todo = "; export the scanner's own images" if modality else ""
        lines[f"{other.name}: left out: {named}{other.content}, not MR Image{todo}."] = modality
    return lines


@quiet()
def recognise_all(candidates: Sequence[HeaderCandidate]) -> None:
    """Recognise candidates by their headers, each in the light of the others.

    Contrast agent stays in the body. If an earlier series was acquired after it, so was a T1 whose header does not say.
    An agent that every series names was entered for the whole study, and does not tell which T1 was acquired after it.
    """
    agents = [agent_named(candidate.header) for candidate in candidates]
    after = [each.acquired for each in candidates if each.acquired and contrast(each.header)[0]]
    for candidate, agent in zip(candidates, agents, strict=True):
        verdict, words = recognise(candidate.header), contrast_words(candidate.header)
        silent = verdict.modality in ("t1", "t1c") and words is None
        everywhere = agent and len(candidates) > 1 and all(agents)
        if silent and everywhere:
            reason = f"{verdict.reason}, as for every series of the study, which is weak evidence"
            verdict = Verdict("t1c", round(0.75 * verdict.confidence, 2), reason)
        elif silent and not agent and any(candidate.acquired > earlier for earlier in after):
            reason = f"{verdict.reason}, but it was acquired after a series with contrast agent"
            verdict = Verdict("t1c", round(0.8 * verdict.confidence, 2), reason)
        if verdict.modality and verdict.confidence < ENOUGH:
            perhaps = f"perhaps {display_name(verdict.modality)}, confidence only {verdict.confidence:.2f}"
            verdict = Verdict(None, 0.0, f"{perhaps} ({verdict.reason})")
        candidate.by_header = verdict
        is_open = words is None or words.after is None
        candidate.is_open = is_open and (everywhere or not agent or (words is not None and words.unknown))


def _set_by_hand(series: Sequence[Series], by_hand: Mapping[str, Any]) -> dict[str, Series | None]:
    """Return the series that are set by hand, after checking them."""
    fixed: dict[str, Series | None] = {}
    for name, key in by_hand.items():
        modality = canonical(str(name))
        if modality not in GLIOMA:
            raise ValueError(f"--series: unknown modality {name!r}; expected one of {', '.join(GLIOMA)}.")
        if key is None:
            fixed[modality] = None
            continue
        matches = [volume for volume in series if str(key) in (volume.key, str(volume.number))]
        if len(matches) != 1:
            keys = ", ".join(volume.key for volume in matches or series)
            what = "several volumes have this number" if matches else "there is no such series"
            raise ValueError(f"--series: {modality}: {key}: {what}; expected one of {keys}.")
        if matches[0].problem:
            raise ValueError(f"--series: {modality}: {matches[0].name} cannot be used: {matches[0].problem}.")
        if matches[0] in fixed.values():
            raise ValueError(f"--series: {matches[0].name} is set for two modalities.")
        fixed[modality] = matches[0]
    if [fixed.get(modality, "") for modality in GLIOMA] == [None] * len(GLIOMA):
        raise ValueError("--series: every modality is left out; expected at least one to be used.")
    return fixed
