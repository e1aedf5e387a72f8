"""Series as candidates for the sequences, recognised by their headers, each in the light of the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pydicom
from nibabel import Nifti1Image

from common.modalities import GLIOMA, canonical, display_name
from mmb.clinic.intake.headers import number, text
from mmb.clinic.intake.pixels import load
from mmb.clinic.intake.series import Others, Series
from mmb.clinic.recognise.assign import MIN_EXTENT_MM, Record, unused
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence
from mmb.clinic.recognise.header import recognise, recognise_study, told_by_dates, traits
from mmb.clinic.recognise.site import SiteTable
from mmb.errors import StudyError


@dataclass(frozen=True, eq=False)
class SeriesCandidate(Candidate):
    """A series as a candidate."""

    series: Series = field(kw_only=True)

    @property
    def key(self) -> str:
        """SeriesNumber, and part if several have it."""
        return self.series.key

    @property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine of the series."""
        return self.series.shape, self.series.affine

    def read(self) -> tuple[Nifti1Image, list[str]]:
        """Decode the pixels."""
        return load(self.series), []


def series_candidates(
    series: Sequence[Series], by_hand: Mapping[str, Any] | None = None, site: SiteTable | None = None
) -> list[SeriesCandidate]:
    """Return a study's series as candidates.

    ``by_hand`` overrides the recognition, and ``site``, the site's table. It maps a modality to a `Series.key`: the
    SeriesNumber, or text such as ``3-1`` if several volumes have this number. None leaves the modality out. Raises
    ValueError if a series set by hand does not exist, or the table says two modalities of one.
    """
    fixed = {volume: name for name, volume in _set_by_hand(series, by_hand or {}).items() if volume}
    candidates = []
    for volume, says in zip(series, recognise_study([volume.header for volume in series]), strict=True):
        if says.modality is None:  # of a mixture of echoes, the larger part may be that of proton density
            says = next((other for other in map(recognise, volume.parts) if other.modality), says)
        extent = min(size * step for size, step in zip(volume.shape, volume.spacing, strict=True))
        if volume in fixed:
            says = replace(says, modality=fixed[volume], grade=Grade.SURE, reason="set by hand")
        elif site:
            says = site.says(text(volume.header, "SeriesDescription"), says, volume.name, volume.name)
        if volume not in fixed and says.modality and volume.problem is None and extent < MIN_EXTENT_MM:
            slab = f"a slab of {extent:.0f} mm, not a whole brain ({says.reason})"
            says = HeaderEvidence(None, Grade.NONE, slab)
        frame, shown = volume.frame_of_reference or volume.name, traits(volume.header)
        shown |= {"problem": volume.problem, "fixed": volume in fixed, "series": volume, "doubt": volume.doubt}
        shown |= {"told": told_by_dates(volume.header, volume.name)}
        candidates.append(SeriesCandidate(volume.name, volume.name, frame, says, **shown))
    return candidates


def other_series(others: Others) -> list[Record]:
    """Return why series are left out that are not of a class of MR images, and what their descriptions name."""
    left_out = []
    for (series, kind), files in others.items():
        described = ["SeriesDescription", "ProtocolName", "Rows"]
        header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=described)
        modality = recognise(header).modality if number(header, "Rows") else None  # reports have no rows
        named = f"{display_name(modality)} by its description, but " if modality else ""
        count = f"{len(files)} {'file' if len(files) == 1 else 'files'}"
        todo = "; export the scanner's own images" if modality else ""
        reason = f"{named}{kind} ({count}), not MR Image{todo}"
        left_out.append(unused(f"series {series}", f"series {series}", reason, modality))
    return left_out


def _set_by_hand(series: Sequence[Series], by_hand: Mapping[str, Any]) -> dict[str, Series | None]:
    """Return the series that are set by hand, after checking them."""
    wrong = partial(StudyError.of, "--series", public="series")
    fixed: dict[str, Series | None] = {}
    for name, key in by_hand.items():
        modality = canonical(str(name))
        if key is None:
            fixed[modality] = None
            continue
        matches = [volume for volume in series if str(key) in (volume.key, str(volume.number))]
        if len(matches) != 1:
            keys = ", ".join(volume.key for volume in matches or series)
            what = "several volumes have this number" if matches else "there is no such series"
            raise wrong(f"{modality}: {key}: {what}; expected one of {keys}.")
        if matches[0].problem:
            raise wrong(f"{modality}: {matches[0].name} cannot be used: {matches[0].problem}.")
        if matches[0] in fixed.values():
            raise wrong(f"{matches[0].name} is set for two modalities.")
        fixed[modality] = matches[0]
    if [fixed.get(modality, "") for modality in GLIOMA] == [None] * len(GLIOMA):
        raise wrong("every modality is left out; expected at least one to be used.")
    return fixed
