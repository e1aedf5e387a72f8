"""Reading of a patient's study: DICOM series or NIfTI files in a folder, assigned to a cohort's modalities.

What headers and names say is read first. Where that leaves a question open, the images of the candidates `in_question`
are looked at; `confirmed` looks at all images that are used. One decision, `mmb.clinic.choice.decide`, is made of both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from common.cohorts.cohort import Cohort
from common.cohorts.scan import find_cases, named_after
from common.io.files import unread
from common.io.images import read_image
from common.modalities import GLIOMA, canonical, display_name, resolve_subset, subset_name
from common.text import shortened
from mmb.clinic.choice import Candidate, Decision, Option, Shown, Verdict, decide, in_question
from mmb.clinic.sequence_check import has_known_sequences
from mmb.clinic.study.alignment import MisfitError
from mmb.clinic.study.evidence import Evidence, Volumes, look, read_volumes
from mmb.clinic.study.folder import require_image_files, study_files
from mmb.clinic.study.grid import finest

if TYPE_CHECKING:
    from mmb.clinic.dicom import Series

CPU = torch.device("cpu")


class Remark(NamedTuple):
    """A remark that the user should check.

    Attributes:
        modalities: modalities that it is about; empty for the whole study.
        text: without the modalities' names.
    """

    modalities: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Headers:
    """A study's series or image files, with what their headers and names say.

    Attributes:
        candidates: the series or files.
        cohort: cohort whose modalities they may be.
        modalities: modalities that may be used.
        option: words how the user sets modalities by hand.
        remarks: remarks that the user should check.
        explain: returns a decision's explanations and further remarks on it; ValueError if it cannot be right.
        left_out: a line for each series or file that is no candidate.
    """

    candidates: Sequence[Candidate]
    cohort: Cohort
    modalities: Sequence[str]
    option: Option
    remarks: list[Remark]
    explain: Callable[[Decision], tuple[list[str], list[Remark]]]
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """A patient's volumes.

    Attributes:
        images: modality -> volume with its own grid and background 0, in the cohort's order; affines lead to mm, RAS.
        used: modality -> the series or image file that the volume was read from, and why.
        explanations: a line for everything that was found: what it is used as, or why it is left out.
        remarks: remarks that the user should check.
        notes: volumes that could have been used instead, and why they are not.
        skulls: modalities whose images show more than a brain, although the cohort is skull-stripped.
        headers: what was read of it before the decision.
        volumes: the volumes as they were read.
        evidence: what the images show, as far as they were looked at.
    """

    images: dict[str, nib.Nifti1Image]
    used: dict[str, Candidate]
    explanations: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skulls: list[str] = field(default_factory=list)
    headers: Headers | None = None
    volumes: Volumes | None = None
    evidence: Evidence | None = None

    @property
    def sources(self) -> dict[str, str]:
        """Modality -> source of the volume, e.g. ``series 7``."""
        return {name: candidate.source for name, candidate in self.used.items()}

    @property
    def frames(self) -> dict[str, str]:
        """Modality -> name of its frame of reference."""
        return {name: candidate.frame for name, candidate in self.used.items()}

    @property
    def series(self) -> dict[str, Series]:
        """Modality -> its DICOM series; empty for NIfTI files."""
        return {name: each.series for name, each in self.used.items() if hasattr(each, "series")}


class NamedFile(Candidate):
    """An image file whose modality is told by its name, or otherwise (``why``).

    ``channel`` is that of its modality if it holds several.
    """

    def __init__(self, path: str, modality: str, channel: int | None = None, why: str = "named by its file") -> None:
        by_name = Verdict(modality, 1.0, why)
        super().__init__(f"{path} {channel or ''}".strip(), "image file", "NIfTI", by_name, fixed=True)
        self.path, self.channel = path, channel

    def read(self) -> tuple[nib.Nifti1Image, list[str]]:
        """Read the volume."""
        return read_image(self.path, self.channel)


def read_folder(
    folder: str | Path,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    skull_strip: str = "auto",
) -> Study:
    """Read one patient's study.

    Where headers and names leave open which volume is which modality, the images decide; the brain is found in them on
    ``device``. Raises ValueError if the folder holds both kinds of files, several patients, none of the modalities, or
    an unusable image; if the images do not decide either; or if ``by_hand`` does not fit the study.

    Args:
        folder: DICOM files in the folder or its subfolders; or NIfTI (or MHA) files that are named after their
            modalities (see `find_cases`), or whose JSON or name identifies them (see `mmb.clinic.dicom.image_files`).
        cohort: cohort whose modalities are looked for.
        modalities: modalities to use; None: all that are found.
        by_hand: modality -> SeriesNumber, for DICOM only; see `mmb.clinic.dicom.series_candidates`.
        skull_strip: ``yes`` to look for a brain even where no head is seen.
    """
    headers = read_headers(folder, cohort, modalities, by_hand)
    return _looked_at(headers, device, skull_strip)


def read_files(
    files: Mapping[str, str | Path],
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    device: torch.device = CPU,
    skull_strip: str = "auto",
) -> Study:
    """Read one patient's study from an image file of any name for each modality, as `read_folder` reads a folder."""
    wanted = resolve_subset(modalities, cohort.modalities)
    given = {canonical(name): str(file) for name, file in files.items()}
    if foreign := [name for name in given if name not in cohort.modalities]:
        raise ValueError(f"--{foreign[0]}: unknown to the network; expected some of {subset_name(cohort.modalities)}.")
    require_image_files(given)
    used = [NamedFile(file, name, why="given as it") for name, file in given.items() if name in wanted]
    if not used:
        raise ValueError(f"None of the files is of the requested modalities ({subset_name(wanted)}).")
    lines = [f"{Path(each.path).name}: {display_name(each.verdict.modality)}, as you say." for each in used]

    def option(names: Sequence[str], value: str = "") -> str:
        return f"give the right ones, {' '.join(f'--{name} FILE' for name in names)}"

    return _looked_at(Headers(used, cohort, wanted, option, [], lambda decision: (lines, [])), device, skull_strip)


def _looked_at(headers: Headers, device: torch.device, skull_strip: str) -> Study:
    """Return the study, after those of its images have been looked at that headers and names leave open."""
    cohort = headers.cohort
    unclear = in_question(headers.candidates, headers.modalities) if has_known_sequences(cohort) else []
    volumes, evidence, why_not = None, None, ""
    while unclear and evidence is None and not why_not:
        t1 = [each.name for each in unclear if each.verdict.modality in ("t1", "t1c")]
        try:
            volumes = read_volumes(unclear, cohort)
            strip = "yes" if skull_strip == "yes" else "auto"
            evidence = look(unclear, volumes, None, cohort, device, strip, t1)
        except MisfitError as error:
            if _give_way(headers.candidates, unclear, dict.fromkeys(error.names, str(error))):
                unclear = in_question(headers.candidates, headers.modalities)
            else:
                why_not = str(error)
        except ValueError as error:
            why_not = str(error)
    shown = evidence.shown if evidence else {} if unclear else None
    return _decided(headers, volumes, evidence, shown, why_not)


def read_headers(
    folder: str | Path,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
) -> Headers:
    """Read what the names and headers of a study's files say; arguments and errors are those of `read_folder`."""
    wanted = resolve_subset(modalities, cohort.modalities)
    files, images = study_files(folder)
    headers = (_of_files if images else _of_series)(Path(folder), cohort, wanted, by_hand)
    headers.remarks.extend(Remark((), f"{text}.") for text in unread(files))
    return headers


def confirmed(study: Study, reference: str | None, device: torch.device, skull_strip: str) -> tuple[Study, str, str]:
    """Return a study after all its images have been looked at, the modality on whose grid the result will lie, and why.

    An image that cannot be registered gives way to the next candidate for its modality, if there is one. One with an
    ambiguous header is used as what it shows; see `mmb.clinic.choice.decide`. ``reference`` is as in
    `choose_reference`. Raises ValueError if the volumes cannot be put on one grid, or no brain is found in them.
    """
    name, why = choose_reference(study, reference)
    base, evidence, shown = study.used[name], study.evidence, {}
    used, misfit = [*study.used.values()], None
    if evidence is None or not {each.name for each in used} <= evidence.aligned.images.keys():
        shown = evidence.shown if evidence else {}
        try:
            evidence = look(used, study.volumes, base.name, study.headers.cohort, device, skull_strip)
        except MisfitError as error:
            misfit = error
    failed = dict.fromkeys(misfit.names, str(misfit)) if misfit else evidence.aligned.failed
    replaceable = [each for each in used if not (reference and each is base)]
    if _give_way(study.headers.candidates, replaceable, failed):
        earlier = study.evidence.shown if study.evidence else {}
        return confirmed(_decided(study.headers, None, study.evidence, earlier), reference, device, skull_strip)
    if misfit:
        raise misfit
    required = [base.name] if reference else []
    study = _decided(study.headers, study.volumes, evidence, shown | evidence.shown, "", required)
    if reference is None:
        return study, *choose_reference(study)
    return study, next(modality for modality, each in study.used.items() if each is base), why


def _give_way(candidates: Sequence[Candidate], used: Sequence[Candidate], failed: Mapping[str, str]) -> bool:
    """Set aside the first image in use of those in ``failed`` (name -> why) that another one can replace.

    Returns whether there is one. What the user set by hand, or named after its modality, stays.
    """
    by_name = {each.name: each for each in used}
    for each in (by_name[name] for name in failed if name in by_name):
        rivals = [
            other
            for other in candidates
            if other is not each and other.verdict.modality == each.verdict.modality and other.problem is None
        ]
        if rivals and not each.fixed:
            each.problem = f"it cannot be registered ({failed[each.name].rstrip('.')})"
            return True
    return False


def choose_reference(study: Study, asked: str | None = None) -> tuple[str, str]:
    """Return the modality on whose grid the result will lie, and the reason.

    ``asked`` is a modality or the SeriesInstanceUID of a series in use; None: T1c if present, else the finest volume.
    """
    if asked is None:
        return ("t1c", "the default") if "t1c" in study.images else (finest(study.images), "the finest one")
    is_uid = asked.replace(".", "").isdecimal()
    by_uid = {series.uid: name for name, series in study.series.items()}
    name = by_uid.get(asked, "") if is_uid else canonical(asked)
    if name not in study.images:
        used = ", ".join(f"{display_name(name)} ({source})" for name, source in study.sources.items())
        what = "this series" if is_uid else asked  # a message never shows a UID, which identifies the patient
        raise ValueError(f"--reference: {what} is not used; expected one of {used}.")
    return name, "as requested"


def _decided(
    headers: Headers,
    volumes: Volumes | None,
    evidence: Evidence | None,
    shown: Mapping[str, Shown] | None,
    why_not_shown: str = "",
    required: Collection[str] = (),
) -> Study:
    """Return the study that `decide` makes of headers and images; ValueError if an image of it cannot be used."""
    try:
        decision = decide(headers.candidates, headers.modalities, headers.option, shown, why_not_shown, required)
    except ValueError as error:
        raise ValueError("\n".join([str(error), *headers.left_out])) from None
    used = decision.chosen
    names = {candidate.name: modality for modality, candidate in used.items()}
    explanations, remarks = headers.explain(decision)
    explanations += headers.left_out
    if volumes is None or not names.keys() <= volumes.images.keys():
        volumes = read_volumes([*used.values()], headers.cohort)
    images = {modality: volumes.images[name] for name, modality in names.items()}
    remarks = [*(Remark((), text) for text in decision.warnings), *remarks, *headers.remarks]
    remarks += [Remark((names[name],), f"{text}.") for name in names for text in volumes.warnings[name]]
    if not any(hasattr(each, "series") for each in used.values()) and not _on_one_grid([*images.values()]):
        text = "The files lie on different grids; a common frame of reference is assumed, which NIfTI cannot confirm."
        remarks.append(Remark((), text))
    skulls: list[str] = []
    for flaw in volumes.flaws:
        modalities, text = tuple(names.get(name, "") for name in flaw.modalities), f"{flaw.what}. {flaw.remedy}"
        if not all(modalities):  # of an image that is not used
            continue
        if flaw.fatal:
            named = " and ".join(f"{used[name].source} ({display_name(name)})" for name in modalities)
            raise ValueError(f"{named}: {text}")
        if flaw.skull:
            skulls += modalities
        else:
            remarks.append(Remark(modalities, text))
    return Study(images, used, explanations, remarks, decision.notes, skulls, headers, volumes, evidence)


def _on_one_grid(images: Sequence[nib.Nifti1Image]) -> bool:
    first, *others = images
    return all(image.shape == first.shape and np.allclose(image.affine, first.affine) for image in others)


def _of_files(folder: Path, cohort: Cohort, wanted: Sequence[str], by_hand: Mapping[str, Any] | None) -> Headers:
    """Read the names of image files, and the JSON beside those whose names do not end in a modality."""
    if by_hand:
        raise ValueError(f"--series is for DICOM, but {folder} holds image files, which are identified by their names.")
    roles = named_after(folder, cohort)
    unnamed = [path for path, role in roles.items() if role is None]
    named = {role for role in roles.values()} - {None, "label"}
    try:
        from mmb.clinic.dicom import image_files  # needs pydicom, which is not required if all names are clear
    except ImportError:
        image_files = None
    files = image_files.recognise_files(unnamed) if image_files and "channels" not in named else []
    cases = find_cases(folder, cohort, unnamed if named else ()) if named or not files else []
    if len(cases) > 1:
        raise ValueError(
            f"{folder}: {len(cases)} subjects, {shortened(case['case'] for case in cases)}; give the folder of one, "
            "or --each if every subfolder is a study."
        )
    case = cases[0] if cases else {"image": [], "modalities": []}
    channels = case.get("channels", [None] * len(case["image"]))
    by_name = {
        name: NamedFile(path, name, channel)
        for name, path, channel in zip(case["modalities"], case["image"], channels, strict=True)
    }
    lines = [
        f"{Path(file.path).name}: {display_name(name)}, by its name{'' if name in wanted else '; not requested'}."
        for name, file in by_name.items()
    ]
    by_name = {name: file for name, file in by_name.items() if name in wanted}
    if not by_name and not files:
        raise ValueError(
            f"{folder}: none of the requested modalities ({subset_name(wanted)}); it has "
            f"{subset_name(case['modalities'])}."
        )
    shown = {file.path for file in files} | {Path(file.path) for file in by_name.values()}
    unused = {"label": "a label, by its name", None: "its name is none of a sequence"}
    left_out = [
        f"{path.name}: left out: {unused[role]}."
        for path, role in roles.items()
        if path not in shown and role in unused
    ]
    remarks = []
    if image_files and "channels" not in case:
        doubts = {name: image_files.contradiction(Path(file.path), name) for name, file in by_name.items()}
        remarks = [Remark((name,), text) for name, text in doubts.items() if text]

    def option(names: Sequence[str], value: str = "") -> str:
        return f"move the wrong files away, or name the right ones {' and '.join(f'x_{name}.nii.gz' for name in names)}"

    def explain(decision: Decision) -> tuple[list[str], list[Remark]]:
        recognised = [each for each in decision.chosen.values() if not each.fixed]
        if recognised:
            image_files.refuse_several_patients(recognised)
        explanations = decision.explanations[: len(files)]
        for each in [*files, *by_name.values()]:  # refusals have whole paths, of which the server removes its own part
            explanations = [line.replace(each.name, Path(each.path).name) for line in explanations]
        return [*lines, *explanations], []

    return Headers([*files, *by_name.values()], cohort, wanted, option, remarks, explain, left_out)


def _of_series(folder: Path, cohort: Cohort, wanted: Sequence[str], by_hand: Mapping[str, Any] | None) -> Headers:
    """Read the headers of DICOM series."""
    from mmb.clinic import dicom  # imported here, since NIfTI does not need its packages

    by_hand = by_hand or {}
    if not isinstance(by_hand, Mapping):
        raise ValueError(f"--series {by_hand!r}: expected sequences and SeriesNumbers, e.g. t1c=7.")
    given = {canonical(str(name)): key for name, key in by_hand.items()}
    if len(given) < len(by_hand):
        raise ValueError(f"--series: one modality is given twice in {', '.join(map(str, by_hand))}; name each once.")
    foreign = [name for name in given if name not in wanted]
    if foreign:
        raise ValueError(f"--series: {foreign[0]} is not among the modalities to use, {subset_name(wanted)}.")
    given |= {name: None for name in GLIOMA if name not in wanted}
    series, others = dicom.read_all(folder)
    candidates, left_out = dicom.series_candidates(series, given), dicom.left_out(others)

    def explain(decision: Decision) -> tuple[list[str], list[Remark]]:
        remarks = dicom.mixed_series(candidates, [*decision.chosen.values()])
        remarks += [line for line, name in left_out.items() if name in modalities and name not in decision.chosen]
        joined = [
            f"{each.name}: its images differ in {', '.join(each.series.differ)}, but make up one volume."
            for each in candidates
            if each.series.differ and each.problem is None
        ]
        return [*decision.explanations, *joined], [Remark((), text) for text in remarks]

    modalities = [name for name in wanted if given.get(name, "") is not None]
    return Headers(candidates, cohort, modalities, partial(dicom.option, candidates), [], explain, [*left_out])
