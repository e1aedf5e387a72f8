"""Reading of a patient's study: DICOM series or NIfTI files in a folder, assigned to a cohort's modalities.

What headers and names say is read first. Where that leaves a question open, the images of the candidates `in_question`
are looked at; `align_and_assign` looks at all images that are used. One decision, `assign_series`, is made of both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.cohorts.cohort import Cohort
from common.cohorts.examination import differing, told
from common.cohorts.names import without_suffix
from common.cohorts.scan import find_cases, named_after
from common.io.files import unread
from common.modalities import GLIOMA, canonical, display_name, resolve_subset, subset_name
from common.text import shortened
from mmb.clinic.head.alignment import MisfitError
from mmb.clinic.head.grid import finest, whole
from mmb.clinic.intake.folder import StudyFiles, require_image_files, study_files
from mmb.clinic.recognise.assign import (
    MIN_EXTENT_MM,
    Assignment,
    Option,
    Record,
    Unused,
    Use,
    assign_series,
    in_question,
)
from mmb.clinic.recognise.evidence import Candidate, Grade, HeaderEvidence, ImageFile, LogProbs
from mmb.clinic.recognise.image import has_known_sequences
from mmb.clinic.recognise.looking import ImageEvidence, Volumes, judge_images, read_volumes
from mmb.clinic.recognise.names import not_what_they_end_with
from mmb.clinic.recognise.site import SiteTable
from mmb.errors import EACH, StudyError
from mmb.extras import required

if TYPE_CHECKING:
    from mmb.clinic.intake.series import Series
    from mmb.clinic.recognise.candidates import SeriesCandidate

CPU = torch.device("cpu")


class Remark(NamedTuple):
    """What the user should check, without the names of the modalities that it is about (none: the whole study)."""

    modalities: tuple[str, ...]
    text: str


def _give_files(names: Sequence[str], value: str = "") -> str:
    """Return how the user sets modalities by hand."""
    return f"give the right ones, {' '.join(f'--{name} FILE' for name in names)}"


def _name_files(names: Sequence[str], value: str = "") -> str:
    """Return how the user names files of a folder after modalities."""
    return f"move the wrong files away, or name the right ones {' and '.join(f'x_{name}.nii.gz' for name in names)}"


@dataclass(frozen=True)
class Headers:
    """A study's image files, given one by one, or its files or series with what their headers and names say.

    Attributes:
        modalities: those that may be used.
        option: words how the user sets modalities by hand, by default to a candidate.
        joined: a line for each series whose images differ, but make up one volume, and for what the site's table lacks.
        unused: the series or files that are no candidates.
    """

    candidates: Sequence[Candidate]
    cohort: Cohort
    modalities: Sequence[str]
    option: Option = _give_files
    remarks: Sequence[Remark] = ()
    joined: Sequence[str] = ()
    unused: Sequence[Unused] = ()

    @property
    def others(self) -> list[str]:
        """Further lines: on what was joined, and on each series or file that is no candidate."""
        return [*self.joined, *(each.line() for each in self.unused)]


@dataclass(frozen=True)
class SeriesHeaders(Headers):
    """DICOM series, with what their headers say."""

    candidates: Sequence[SeriesCandidate]


@dataclass(frozen=True)
class Study:
    """A patient's volumes.

    Attributes:
        images: modality -> volume with its own grid and background 0, in the cohort's order; affines lead to mm, RAS.
        used: modality -> the record of the series or image file that the volume was read from.
        explanations: a line for everything that was found: what it is used as, or why it is left out.
        notes: volumes that could have been used instead, and why they are not.
        skulls: modalities whose images show more than a brain, although the cohort is skull-stripped.
        records: what was decided of each candidate.
        volumes: the volumes as they were read.
        evidence: what the images show, as far as they were looked at.
    """

    images: dict[str, nib.Nifti1Image]
    used: dict[str, Record]
    explanations: list[str] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    notes: Sequence[str] = ()
    skulls: list[str] = field(default_factory=list)
    headers: Headers | None = None
    records: Sequence[Record] = ()
    volumes: Volumes | None = None
    evidence: ImageEvidence | None = None

    @property
    def sources(self) -> dict[str, str]:
        """Modality -> source of the volume, e.g. ``series 7``."""
        return {name: record.candidate.source for name, record in self.used.items()}

    @property
    def frames(self) -> dict[str, str]:
        """Modality -> name of its frame of reference."""
        return {name: record.candidate.frame for name, record in self.used.items()}

    @property
    def series(self) -> dict[str, Series]:
        """Modality -> its DICOM series; empty for image files."""
        if not isinstance(self.headers, SeriesHeaders):
            return {}
        from mmb.clinic.recognise.candidates import SeriesCandidate

        candidates = {name: record.candidate for name, record in self.used.items()}
        return {name: each.series for name, each in candidates.items() if isinstance(each, SeriesCandidate)}


class Assigned(NamedTuple):
    """A study after all its images have been looked at, the modality on whose grid the result will lie, and why."""

    study: Study
    reference: str
    why: str


def _named_file(name: str, path: str, modality: str, why: str, channel: int | None = None) -> ImageFile:
    name = name if channel is None else f"{name}, channel {channel}"
    says, file = HeaderEvidence(modality, Grade.SURE, why), Path(path)
    return ImageFile(name, says=says, fixed=True, path=file, channel=channel, told=told(file, name))


def read_folder(
    folder: str | Path | StudyFiles,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    skull_strip: str = "auto",
    site: SiteTable | None = None,
) -> Study:
    """Read one patient's study.

    Where headers and names leave open which volume is which modality, the images decide; the brain is found in them on
    ``device``. Raises StudyError if the folder holds both kinds of files, several patients, none of the modalities, or
    an unusable image; if the images do not decide either; or if ``by_hand`` does not fit the study.

    Args:
        folder: DICOM files in the folder or its subfolders; or NIfTI (or MHA) files that are named after their
            modalities (see `find_cases`), or whose JSON or name identifies them (see `image_files`).
        modalities: those to use; None: all that are found.
        by_hand: modality -> SeriesNumber, for DICOM only; see `recognise.candidates.series_candidates`.
        skull_strip: ``yes`` to look for a brain even where no head is seen.
        site: the site's table, for what is neither set by hand nor a file named after its modality.
    """
    return _with_images(read_headers(folder, cohort, modalities, by_hand, site), device, skull_strip)


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
        what = f"unknown to the network; expected some of {subset_name(cohort.modalities)}."
        raise StudyError.of(f"--{foreign[0]}", what, foreign[0])
    require_image_files(given)
    used = [_named_file(file, file, name, "you named this file") for name, file in given.items() if name in wanted]
    if not used:
        raise StudyError(f"None of the files is of the requested modalities ({subset_name(wanted)}).")
    return _with_images(Headers(used, cohort, wanted), device, skull_strip)


def read_headers(
    folder: str | Path | StudyFiles,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    site: SiteTable | None = None,
) -> Headers:
    """Read what the names and headers of a study's files say; arguments and errors are those of `read_folder`."""
    wanted = resolve_subset(modalities, cohort.modalities)
    listed = study_files(folder)
    headers = (_of_files if listed.images else _of_series)(listed, cohort, wanted, by_hand, site)
    unmatched = site.unmatched([each.described for each in headers.candidates]) if site else []
    remarks = [*headers.remarks, *(Remark((), f"{text}.") for text in unread(listed.files))]
    return replace(headers, remarks=remarks, joined=[*headers.joined, *unmatched])


def _with_images(headers: Headers, device: torch.device, skull_strip: str) -> Study:
    """Return the study, after those of its images have been looked at that headers and names leave open."""
    headers, cohort = _of_one_examination(headers), headers.cohort
    unclear = in_question(headers.candidates, headers.modalities) if has_known_sequences(cohort) else []
    volumes, evidence, why_not = None, None, ""
    while unclear and evidence is None and not why_not:
        t1 = [each.name for each in unclear if each.says.modality in ("t1", "t1c")]
        try:
            volumes = read_volumes(unclear, cohort)
            named = {each: each.says.modality or "" for each in unclear}
            evidence = judge_images(named, volumes, None, cohort, device, "yes" if skull_strip == "yes" else "auto", t1)
        except MisfitError as error:
            known = {each: each.says.modality for each in headers.candidates}
            if fewer := _give_way(headers, known, unclear, dict.fromkeys(error.names, str(error))):
                headers, unclear = fewer, in_question(fewer.candidates, fewer.modalities)
            else:
                why_not = str(error)
        except ValueError as error:
            why_not = str(error)
    log_probs = evidence.log_probs if evidence else {} if unclear else None
    return _assigned(headers, volumes, evidence, log_probs, why_not)


def _of_one_examination(headers: Headers) -> Headers:
    """Return headers, with a remark if images may be of two cases, or are so by hand; StudyError if they are else."""
    usable = [each for each in headers.candidates if each.problem is None and each.says.modality in headers.modalities]
    named = {each.says.modality for each in usable if each.fixed}
    usable = [each for each in usable if each.fixed or each.says.modality not in named]
    free = [each for each in usable if not each.fixed or headers.option is _name_files]
    found = differing([each.told for each in free])
    if found and found.certain:
        days = shortened([f"{each.name} {max(each.told.days.values())}" for each in free if each.told.days], 20)
        option = headers.option if isinstance(headers, SeriesHeaders) else _give_files
        todo = f"Move those of the other one away; or, if they belong together: {option([*headers.modalities])}"
        public = "The images are of two examinations or patients, by their names or dates; give those of one."
        raise StudyError(f"{found}. {todo}.{f' Dates: {days}.' * bool(days)}", public)
    if found := found or differing([each.told for each in usable]):
        pair = [f"{display_name(it.says.modality or '')} ({it.source})" for it in usable if it.name in found[:2]]
        what = "are of two examinations or patients" if found.certain else "have names as of two patients or times"
        text = f"{' and '.join(pair)} {what}, and are used together. Make sure that they are of one examination."
        lines = [*headers.joined, *([] if found.certain else [f"{found}."])]  # which show no date
        return replace(headers, remarks=[*headers.remarks, Remark((), text)], joined=lines)
    return headers


def align_and_assign(study: Study, reference: str | None, device: torch.device, skull_strip: str) -> Assigned:
    """Look at all images of a study on one grid, and assign them to the modalities anew.

    An image that cannot be registered gives way to the next candidate for its modality, if there is one. One with an
    ambiguous header is used as what it shows; see `assign_series`. ``reference`` is as in `choose_reference`. Raises
    StudyError if the volumes cannot be put on one grid, or no brain is found in them.
    """
    while True:
        if study.headers is None or study.volumes is None:
            raise ValueError("The study has no headers and volumes; expected one that was read from files.")
        name, why = choose_reference(study, reference)
        base, evidence, earlier = study.used[name].candidate, study.evidence, {}
        used, misfit = {record.candidate: modality for modality, record in study.used.items()}, None
        if evidence is None or not {each.name for each in used} <= evidence.aligned.images.keys():
            earlier = evidence.log_probs if evidence else {}
            try:
                evidence = judge_images(used, study.volumes, base.name, study.headers.cohort, device, skull_strip)
            except MisfitError as error:
                misfit = error
        failed = dict.fromkeys(misfit.names, str(misfit)) if misfit else evidence.aligned.failed if evidence else {}
        replaceable = [each for each in used if not (reference and each is base)]
        known = {record.candidate: record.modality for record in study.records}
        fewer = _give_way(study.headers, known, replaceable, failed)
        if fewer is None:
            break
        earlier = study.evidence.log_probs if study.evidence else {}
        study = _assigned(fewer, None, study.evidence, earlier)
    if misfit:
        raise misfit
    required = [base.name] if reference else []
    log_probs = earlier | (evidence.log_probs if evidence else {})
    study = _assigned(study.headers, study.volumes, evidence, log_probs, "", required)
    if reference is None:
        return Assigned(study, *choose_reference(study))
    return Assigned(study, next(name for name, each in study.used.items() if each.candidate is base), why)


def _give_way(
    headers: Headers, known: Mapping[Candidate, str | None], used: Sequence[Candidate], failed: Mapping[str, str]
) -> Headers | None:
    """Return headers without the first image in use of those in ``failed`` (name -> why) that another can replace.

    None if there is none. What the user set by hand, or named after its modality, stays. ``known`` are the modalities
    of all candidates.
    """
    by_name = {each.name: each for each in used}
    for each in (by_name[name] for name in failed if name in by_name):
        rivals = [o for o in headers.candidates if o is not each and known[o] == known[each] and o.problem is None]
        if rivals and not each.fixed:
            why = f"it cannot be registered ({failed[each.name].rstrip('.')})"
            fewer = [replace(other, problem=why) if other is each else other for other in headers.candidates]
            return replace(headers, candidates=fewer)
    return None


def choose_reference(study: Study, asked: str | None = None) -> tuple[str, str]:
    """Return the modality on whose grid the result will lie, and the reason.

    ``asked`` is a modality or the SeriesInstanceUID of a series in use; None: of the volumes that show the whole head,
    T1c if present, else the finest.
    """
    if asked is None:
        shown = whole(study.images, study.frames)
        of = "" if len(shown) == len(study.images) else ", of those that show the whole head"
        return ("t1c", f"the default{of}") if "t1c" in shown else (finest(shown), f"the finest one{of}")
    is_uid = asked.replace(".", "").isdecimal()
    by_uid = {series.uid: name for name, series in study.series.items()}
    name = by_uid.get(asked, "") if is_uid else canonical(asked)
    if name not in study.images:
        used = ", ".join(f"{display_name(name)} ({source})" for name, source in study.sources.items())
        what = "this series" if is_uid else asked  # a message never shows a UID, which identifies the patient
        raise StudyError.of("--reference", f"{what} is not used; expected one of {used}.", "reference")
    return name, "as requested"


def _assigned(
    headers: Headers,
    volumes: Volumes | None,
    evidence: ImageEvidence | None,
    log_probs: Mapping[str, LogProbs] | None,
    not_judged: str = "",
    required: Collection[str] = (),
) -> Study:
    """Return the study that `assign_series` makes of headers and images; StudyError if an image cannot be used."""
    try:
        assignment = assign_series(
            headers.candidates, headers.modalities, headers.option, log_probs, not_judged, required
        )
    except StudyError as error:
        of_files = "The image files do not tell which sequences they are; name them x_t1.nii.gz, and so on."
        public = error.public if isinstance(headers, SeriesHeaders) else of_files
        raise StudyError(error.followed_by(headers.others).text, public, error.file) from None
    used = assignment.chosen
    names = {record.candidate.name: modality for modality, record in used.items()}
    further = _further(headers, assignment)
    if volumes is None or not names.keys() <= volumes.images.keys():
        volumes = read_volumes([record.candidate for record in used.values()], headers.cohort)
    images = {modality: volumes.images[name] for name, modality in names.items()}
    remarks = [*(Remark((), text) for text in (*assignment.warnings, *further)), *headers.remarks]
    remarks += [Remark((names[name],), f"{text}.") for name in names for text in volumes.warnings[name]]
    first, *others = images.values()
    on_one_grid = all(image.shape == first.shape and np.allclose(image.affine, first.affine) for image in others)
    if not isinstance(headers, SeriesHeaders) and not on_one_grid:
        text = "The files lie on different grids; a common frame of reference is assumed, which NIfTI cannot confirm."
        remarks.append(Remark((), text))
    skulls: list[str] = []
    for flaw in volumes.flaws:
        modalities, text = tuple(names.get(name, "") for name in flaw.modalities), f"{flaw.what}. {flaw.remedy}"
        if not all(modalities):  # of an image that is not used
            continue
        if flaw.fatal:
            named = " and ".join(f"{used[name].candidate.source} ({display_name(name)})" for name in modalities)
            raise StudyError(f"{named}: {text}")
        if flaw.skull:
            skulls += modalities
        else:
            remarks.append(Remark(modalities, text))
    for modality, image in images.items() if not isinstance(headers, SeriesHeaders) else ():
        if (extent := min(edges := image.shape * voxel_sizes(image.affine))) < min(MIN_EXTENT_MM, max(edges) / 2):
            what = f"a slab of {extent:.0f} mm; expected a whole brain, {MIN_EXTENT_MM:g} mm or more"
            if headers.option is _name_files or min(image.shape) == 1:
                raise StudyError.of(used[modality].candidate.name, f"{what}. Leave it out.", display_name(modality))
            remarks.append(Remark((modality,), f"{what}."))
    lines = [*(record.line() for record in assignment.records), *headers.others]
    return Study(images, used, lines, remarks, assignment.notes, skulls, headers, assignment.records, volumes, evidence)


def _further(headers: Headers, assignment: Assignment) -> list[str]:
    """Return remarks on series that are parts of others or could not be used; refuse files of several patients."""
    used = [each.candidate for each in assignment.chosen.values()]
    if isinstance(headers, SeriesHeaders):
        from mmb.clinic.recognise.candidates import mixed_series

        lacking = {*headers.modalities} - {*assignment.chosen}
        mixed = mixed_series(headers.candidates, used)
        return [*mixed, *(each.line() for each in headers.unused if each.modality in lacking)]
    if recognised := [each for each in used if isinstance(each, ImageFile) and not each.fixed]:
        from mmb.clinic.recognise.image_files import refuse_several_patients

        refuse_several_patients(recognised)
    return []


def _of_files(
    listed: StudyFiles,
    cohort: Cohort,
    wanted: Sequence[str],
    by_hand: Mapping[str, Any] | None,
    site: SiteTable | None,
) -> Headers:
    """Read the names of image files, and the JSON beside those whose names do not end in a modality."""
    folder = listed.folder
    if by_hand:
        what = "these are image files, identified by their names."
        raise StudyError(f"{folder}: --series is for DICOM; {what}", f"The study: series is for DICOM; {what}")
    roles = named_after(folder, cohort)
    ended = {path: role for path, role in roles.items() if role in GLIOMA} if has_known_sequences(cohort) else {}
    unfit = not_what_they_end_with(ended)
    roles |= dict.fromkeys(unfit)
    unnamed = [path for path, role in roles.items() if role is None]
    named = {role for role in roles.values()} - {None, "label"}
    image_files: Any = None
    not_read = ""
    try:
        from mmb.clinic.recognise import image_files
    except ImportError as error:  # of pydicom, which is not required if all names are clear
        described = sum(path.with_name(f"{without_suffix(path.name)}.json").is_file() for path in roles)
        if described or unnamed:
            not_read = (
                f"The JSON beside {described} of {len(roles)} image files and the words of their names were not read, "
                f'as a package is missing ({error}): pip install "missing-modality-bundles[clinic]".'
            )
    files = image_files.recognise_files(unnamed, folder, site) if image_files and "channels" not in named else []
    try:
        cases = find_cases(folder, cohort, unnamed if named else [*unfit]) if named or not files else []
    except ValueError as error:
        public = "The study: its image files cannot be assigned to sequences; name them x_t1.nii.gz, and so on."
        raise StudyError(f"{error} {not_read}".rstrip(), public) from None
    if len(cases) > 1:
        names = shortened(case["case"] for case in cases)
        public = f"The study: {len(cases)} subjects; give the folder of one."
        raise StudyError(f"{folder}: {len(cases)} subjects, {names}; give the folder of one.", public, command=EACH)
    case = cases[0] if cases else {"image": [], "modalities": []}
    channels = case.get("channels", [None] * len(case["image"]))
    by_name = {
        name: _named_file(str(Path(path).relative_to(folder)), path, name, "named by its file", channel)
        for name, path, channel in zip(case["modalities"], case["image"], channels, strict=True)
    }
    unwanted = {name: by_name.pop(name) for name in [*by_name] if name not in wanted}
    left_out = [Unused(file.name, file.source, "by its name", name, Use.UNWANTED) for name, file in unwanted.items()]
    if not by_name and not files:
        what = f"none of the requested modalities ({subset_name(wanted)}); it has {subset_name(case['modalities'])}."
        raise StudyError.of(folder, what)
    shown = {file.path for file in (*files, *by_name.values())}
    unused = {"label": "a label, by its name", None: "its name is none of a sequence"}
    left_out += [
        Unused(str(path.relative_to(folder)), ImageFile.source, unfit.get(path, unused[role]))
        for path, role in roles.items()
        if path not in shown and role in unused
    ]
    remarks = [Remark((), not_read)] if not_read else []
    if image_files and "channels" not in case:
        doubts = {name: image_files.contradiction(file.path, name) for name, file in by_name.items()}
        remarks += [Remark((name,), text) for name, text in doubts.items() if text]
    return Headers([*files, *by_name.values()], cohort, wanted, _name_files, remarks, unused=left_out)


def _of_series(
    listed: StudyFiles,
    cohort: Cohort,
    wanted: Sequence[str],
    by_hand: Mapping[str, Any] | None,
    site: SiteTable | None,
) -> SeriesHeaders:
    """Read the headers of DICOM series."""
    with required("clinic", "The study is DICOM"):  # imported here, since NIfTI does not need its packages
        from mmb.clinic.intake.series import read_all
        from mmb.clinic.recognise.candidates import option, other_series, series_candidates

    by_hand = by_hand or {}
    if not isinstance(by_hand, Mapping):
        raise StudyError.of(f"--series {by_hand!r}", "expected sequences and SeriesNumbers, e.g. t1c=7.", "series")
    given = {canonical(str(name)): key for name, key in by_hand.items()}
    if len(given) < len(by_hand):
        what = f"one modality is given twice in {', '.join(map(str, by_hand))}; name each once."
        raise StudyError.of("--series", what, "series")
    foreign = [name for name in given if name not in wanted]
    if foreign:
        what = f"{foreign[0]} is not among the modalities to use, {subset_name(wanted)}."
        raise StudyError.of("--series", what, "series")
    given |= {name: None for name in GLIOMA if name not in wanted}
    series, others = read_all(listed.folder, listed.files)
    candidates = series_candidates(series, given, site)
    joined = [
        f"{each.name}: its images differ in {', '.join(each.differ)}, but make up one volume."
        for each in series
        if each.differ and each.problem is None
    ]
    modalities = [name for name in wanted if given.get(name, "") is not None]
    studies = {str(each.header.get("StudyInstanceUID", "")) for each in series}
    several = (
        f"The series have {len(studies)} different StudyInstanceUIDs; they count as one study, since they are of "
        "one patient and date and share their frame of reference."
    )
    remarks = [Remark((), several)] if len(studies) > 1 else []
    word = partial(option, candidates)
    return SeriesHeaders(candidates, cohort, modalities, word, remarks, joined, other_series(others))
