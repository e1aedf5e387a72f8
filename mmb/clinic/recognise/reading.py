"""Reading of a patient's study: DICOM series or NIfTI files in a folder, assigned to a cohort's modalities.

Where headers and names leave a question open, the images of the candidates `in_question` are looked at;
`align_and_assign` looks at all images that are used. One decision, `assign_series`, is made of both.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.cohorts.cohort import Cohort
from common.io.orientation import NOT_STATED
from common.modalities import canonical, display_name
from mmb.clinic.head.alignment import MisfitError
from mmb.clinic.head.grid import finest, whole
from mmb.clinic.intake.folder import StudyFiles
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.assign import MIN_EXTENT_MM, Assignment, FoundImage, Record, assign_series, in_question, named
from mmb.clinic.recognise.certainty import Agent, Basis, Grade, LogProbs
from mmb.clinic.recognise.claims import (
    FolderHeaders,
    Headers,
    SeriesHeaders,
    given_files,
    of_one_examination,
    read_headers,
)
from mmb.clinic.recognise.evidence import Candidate, ImageFile, SeriesCandidate
from mmb.clinic.recognise.image import has_known_sequences
from mmb.clinic.recognise.image_files import refuse_several_patients
from mmb.clinic.recognise.looking import ImageEvidence, Volumes, judge_images, read_volumes
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.remark import Gravity, Remark
from mmb.errors import StudyError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Study:
    """A patient's volumes, by their modalities."""

    images: dict[str, nib.Nifti1Image]  # background 0; affines lead to mm, RAS; in the cohort's order
    assignment: Assignment
    skulls: list[str] = field(default_factory=list)  # show more than a brain, which the cohort does not
    headers: Headers | None = None
    volumes: Volumes | None = None  # as they were read
    evidence: ImageEvidence | None = None  # what the images show, as far as they were looked at

    @property
    def used(self) -> Mapping[str, Record]:
        """Modality -> the record of the series or image file that the volume was read from."""
        return self.assignment.chosen

    @property
    def explanations(self) -> list[str]:
        """A line for everything that was found: what it is used as, or why it is left out."""
        return [*(each.line() for each in self.assignment.records), *(self.headers.others if self.headers else ())]

    @property
    def found(self) -> list[FoundImage]:
        """Every series or image file, and what became of it, in the order of the explanations."""
        return [each.found() for each in (*self.assignment.records, *(self.headers.unused if self.headers else ()))]

    @cached_property
    def remarks(self) -> list[Remark]:
        """What is to be said of the files, of the choice among them, and of the volumes as they were read."""
        return [*_unsure(self), *self.assignment.remarks, *_on_headers(self), *_on_volumes(self)]

    @property
    def is_oriented(self) -> bool:
        """Whether all images state how they lie in space, so that their sides are known."""
        return not any(remark.code == NOT_STATED for remark in self.remarks)

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
        candidates = {name: record.candidate for name, record in self.used.items()}
        return {name: each.series for name, each in candidates.items() if isinstance(each, SeriesCandidate)}


class Assigned(NamedTuple):
    """A study after all its images have been looked at, the modality on whose grid the result will lie, and why."""

    study: Study
    reference: str
    why: str


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

    ``folder`` has DICOM files, also in subfolders; or NIfTI (or MHA) files that are named after their modalities (see
    `find_cases`), or whose JSON or name identifies them (see `image_files`). ``modalities`` are to be used; None: all.
    ``by_hand`` is as in `set_by_hand`. With ``skull_strip`` "yes" a brain is looked for even where
    no head is seen. ``site`` is for what is neither set by hand nor a file named after its modality.
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
    return _with_images(given_files(files, cohort, modalities), device, skull_strip)


def _with_images(headers: Headers, device: torch.device, skull_strip: str) -> Study:
    """Return the study, after those of its images have been looked at that headers and names leave open."""
    headers, cohort = of_one_examination(headers), headers.cohort
    unclear = in_question(headers.candidates, headers.modalities) if has_known_sequences(cohort) else []
    volumes, evidence, why_not = None, None, ""
    if unclear:
        taken = {each: each.says.modality or "" for each in unclear}
        t1 = [each.name for each, modality in taken.items() if modality in ("t1", "t1c")]
        try:
            volumes = read_volumes(unclear, cohort)
            evidence = judge_images(taken, volumes, None, cohort, device, "yes" if skull_strip == "yes" else "auto", t1)
        except ValueError as error:
            why_not = error.said if isinstance(error, StudyError) else str(error)
    log_probs = evidence.log_probs if evidence else {} if unclear else None
    return _assigned(headers, volumes, evidence, log_probs, why_not)


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
        base, evidence = study.used[name].candidate, study.evidence
        earlier = evidence.log_probs if evidence else {}
        used, misfit = {record.candidate: modality for modality, record in study.used.items()}, None
        if evidence is None or not {each.name for each in used} <= evidence.aligned.images.keys():
            try:
                evidence = judge_images(used, study.volumes, base.name, study.headers.cohort, device, skull_strip)
            except MisfitError as error:
                misfit = error
        failed = dict.fromkeys(misfit.names, str(misfit)) if misfit else evidence.aligned.failed if evidence else {}
        if (fewer := _without_misfit(study.headers, study.assignment, failed, base if reference else None)) is None:
            break
        study = _assigned(fewer, None, study.evidence, earlier)
    if misfit:
        raise misfit
    required = [base.name] if reference else []
    log_probs = earlier | (evidence.log_probs if evidence else {})
    study = _assigned(study.headers, study.volumes, evidence, log_probs, "", required)
    if reference is None:
        return Assigned(study, *choose_reference(study))
    return Assigned(study, next(name for name, each in study.used.items() if each.candidate is base), why)


def _without_misfit(
    headers: Headers, assignment: Assignment, failed: Mapping[str, str], reference: Candidate | None
) -> Headers | None:
    """Return headers without the first image in use of those in ``failed`` (name -> why) that another can replace.

    None if there is none. What the user set by hand, named after its modality, or asked for as reference stays.
    """
    known = {record.candidate: record.modality for record in assignment.records}
    used = {each.candidate.name: each.candidate for each in assignment.chosen.values()}
    for each in (used[name] for name in failed if name in used):
        rivals = [o for o in headers.candidates if o is not each and known[o] == known[each] and o.problem is None]
        if rivals and not each.fixed and each is not reference:
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
        assignment = assign_series(headers.candidates, headers.modalities, log_probs, not_judged, required)
    except StudyError as error:
        raise headers.refused(error) from None
    used = assignment.chosen
    files = [each.candidate for each in used.values() if isinstance(each.candidate, ImageFile)]
    refuse_several_patients([each for each in files if not each.fixed])
    names = {record.candidate.name: modality for modality, record in used.items()}
    if volumes is None or not names.keys() <= volumes.images.keys():
        volumes = read_volumes([record.candidate for record in used.values()], headers.cohort)
    images = {modality: volumes.images[name] for name, modality in names.items()}
    skulls: list[str] = []
    for flaw in volumes.flaws:
        modalities = [names[name] for name in flaw.modalities if name in names]
        if len(modalities) < len(flaw.modalities):  # of an image that is not used
            continue
        if flaw.fatal:
            which = " and ".join(f"{used[name].candidate.source} ({display_name(name)})" for name in modalities)
            raise StudyError(f"{which}: {flaw.what}. {flaw.remedy}")
        skulls += modalities if flaw.skull else []
    for modality, image in images.items() if not isinstance(headers, SeriesHeaders) else ():
        if (what := _slab(image)) and (isinstance(headers, FolderHeaders) or min(image.shape) == 1):
            raise StudyError.of(used[modality].candidate.name, f"{what}. Leave it out.", display_name(modality))
    return Study(images, assignment, skulls, headers, volumes, evidence)


def _unsure(study: Study) -> Iterator[Remark]:
    """Yield a remark on what was recognised with little confidence."""
    prepared = any(remark.code == "prepared" for remark in study.assignment.remarks)  # descriptions say enough then
    unsure = {
        name: each.reason
        for name, each in study.used.items()
        if each.stated_grade is not None
        and each.stated_grade < Grade.LIKELY
        and not (prepared and each.candidate.says.rests_on >= (Basis.PARTLY, Agent.ASSUMED))
    }
    if unsure:
        by_name = f"name the file after it, e.g. x_{next(iter(unsure))}.nii.gz"
        right = "choose the right one, or none" if study.series else by_name
        which = f"Recognised with little confidence: {named(study.used, unsure)}"
        text = f"{which}. If one is another sequence: {right}."
        yield Remark("little_confidence", Gravity.WARNING, text, tuple(unsure))


def _on_headers(study: Study) -> Iterator[Remark]:
    """Yield the remarks on a study's files, those on series that are parts of others or could not be used first."""
    headers = study.headers
    if isinstance(headers, SeriesHeaders):
        for name, part in study.series.items():
            for other in (each.series for each in headers.candidates):
                if part.uid == other.uid and part.multiframe != other.multiframe:
                    what = "is only a part of a series with single slices and a multi-frame image"
                    text = f"{part.name} {what} ({other.name} is another part): check that it is complete."
                    yield Remark("part_of_mixed_series", Gravity.WARNING, text, (name,))
        for each in headers.unused:
            if (modality := each.candidate.says.modality) in {*headers.modalities} - {*study.used}:
                yield Remark("not_mr_image", Gravity.WARNING, each.line(), (modality,))
    yield from headers.remarks if headers else ()


def _on_volumes(study: Study) -> Iterator[Remark]:
    """Yield remarks on volumes as they were read, but for skulls, which may still be removed."""
    if study.volumes is None:
        return
    names = {record.candidate.name: modality for modality, record in study.used.items()}

    def remark(code: str, about: Sequence[str], text: str, gravity: Gravity = Gravity.WARNING) -> Remark:
        return Remark(code, gravity, f"{named(study.used, about)}: {text}.", tuple(about))

    for name, modality in names.items():
        for code, text in study.volumes.doubts[name].items():
            yield remark(code, [modality], text, Gravity.DOUBT if code == NOT_STATED else Gravity.WARNING)
    files = not isinstance(study.headers, SeriesHeaders)
    first, *others = study.images.values()
    if files and any(it.shape != first.shape or not np.allclose(it.affine, first.affine) for it in others):
        text = "The files lie on different grids; a common frame of reference is assumed, which NIfTI cannot confirm."
        yield Remark("different_grids", Gravity.WARNING, text)
    for flaw in study.volumes.flaws:
        if not flaw.skull and {*flaw.modalities} <= {*names}:
            text = f"{flaw.what}. {flaw.remedy}".rstrip(".")
            yield remark("odd_volume", [names[name] for name in flaw.modalities], text)
    for modality, image in study.images.items() if files else ():
        if what := _slab(image):
            yield remark("slab", [modality], what)


def _slab(image: nib.Nifti1Image) -> str:
    """Return that an image does not show a whole brain; empty if its extent is that of one."""
    extent = min(edges := image.shape * voxel_sizes(image.affine))
    if extent >= min(MIN_EXTENT_MM, max(edges) / 2):
        return ""
    return f"a slab of {extent:.0f} mm; expected a whole brain, {MIN_EXTENT_MM:g} mm or more"
