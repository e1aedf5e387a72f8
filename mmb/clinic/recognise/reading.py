"""Reading of a patient's study: DICOM series or NIfTI files in a folder, assigned to a cohort's modalities.

The images that headers and names leave (`to_look_at`) are put on one grid and looked at; one decision, `assign_series`,
is made of both.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.cohorts.cohort import Cohort
from common.io.orientation import NOT_STATED
from common.modalities import canonical, display_name
from mmb.clinic.head.alignment import AlignedStudy, MisfitError
from mmb.clinic.head.grid import finest, whole
from mmb.clinic.head.skull import Brain, agreed
from mmb.clinic.intake.field_of_view import MIN_EXTENT_MM
from mmb.clinic.intake.folder import StudyFiles
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.assign import assign_series, to_look_at
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
from mmb.clinic.recognise.image_files import refuse_several_patients
from mmb.clinic.recognise.looking import ImageEvidence, Volumes, judge_images, read_volumes
from mmb.clinic.recognise.record import Assignment, FoundImage, Record
from mmb.clinic.recognise.remarks import named
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
    base: str = ""  # name of the candidate on whose grid they were aligned
    aligned: AlignedStudy = field(default_factory=lambda: AlignedStudy({}, {}))  # where the reference's header puts it
    brain: Brain | None = None  # that was found in the images
    reference: str = ""  # modality on whose grid the result will lie
    why: str = ""  # it is the reference

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


def read_folder(
    folder: str | Path | StudyFiles,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    reference: str | None = None,
    device: torch.device = CPU,
    skull_strip: str = "auto",
    site: SiteTable | None = None,
) -> Study:
    """Read one patient's study.

    Where headers and names leave open which volume is which modality, the images decide; the brain is found in them on
    ``device``. Raises StudyError if the folder holds both kinds of files, several patients, none of the modalities, or
    an unusable image; if the images do not decide either, cannot be put on one grid, or show no brain; or if
    ``by_hand`` or ``reference`` does not fit the study.

    ``folder`` has DICOM files, also in subfolders; or NIfTI (or MHA) files that are named after their modalities (see
    `find_cases`), or whose JSON or name identifies them (see `image_files`). ``modalities`` are to be used; None: all.
    ``by_hand`` is as in `set_by_hand`, ``reference`` as in `choose_reference`. With ``skull_strip`` "yes" a brain is
    looked for even where no head is seen. ``site`` is for what is neither set by hand nor a file named after its
    modality.
    """
    headers = read_headers(folder, cohort, modalities, by_hand, site)
    return _look(of_one_examination(headers), reference, device, skull_strip)


def read_files(
    files: Mapping[str, str | Path],
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    device: torch.device = CPU,
    skull_strip: str = "auto",
) -> Study:
    """Read one patient's study from an image file of any name for each modality, as `read_folder` reads a folder."""
    return _look(of_one_examination(given_files(files, cohort, modalities)), reference, device, skull_strip)


def _look(
    headers: Headers, reference: str | None, device: torch.device, skull_strip: str, also: Collection[Candidate] = ()
) -> Study:
    """Look, on one grid, at the images that headers and names leave, and at ``also`` others; assign them to modalities.

    An image that cannot be registered gives way to the next candidate for its modality, if there is one.
    """
    left, is_open = to_look_at(headers.candidates, headers.modalities)
    left |= {each: each.says.modality or "" for each in also if each in headers.candidates}
    base = _asked_for(reference, left)
    strip = "auto" if is_open and skull_strip == "no" else skull_strip  # only brains can be compared
    seen: ImageEvidence | StudyError
    volumes, misfits, log_probs, why_not = Volumes({}, {}, []), dict[str, str](), dict[str, LogProbs](), ""
    try:
        volumes = read_volumes(left, headers.cohort)
        seen = judge_images(left, volumes, base.name if base else None, headers.cohort, device, strip, is_open)
        misfits, log_probs = seen.aligned.failed, seen.log_probs
    except StudyError as error:
        seen, why_not = error, error.said
        if isinstance(error, MisfitError):
            misfits = dict.fromkeys(error.names, str(error))
    if fewer := _without_misfit(headers, left, misfits, base):
        return _look(fewer, reference, device, skull_strip, also)
    try:
        made = assign_series(headers.candidates, headers.modalities, log_probs, why_not, [base.name] if base else [])
    except StudyError as error:
        raise headers.refused(error) from None
    if unseen := [each.candidate for each in made.chosen.values() if each.candidate not in left]:
        return _look(headers, reference, device, skull_strip, [*also, *unseen])
    try:
        skulls = _skulls(headers, made, volumes)
    except StudyError as error:
        seen = error
    if isinstance(seen, StudyError):
        raise made.undone(seen) from None
    names, cohort = {record.candidate.name: modality for modality, record in made.chosen.items()}, headers.cohort
    images = {modality: volumes.images[name] for name, modality in names.items()}
    aligned, masks = seen.aligned.renamed(names), seen.masks and seen.masks.renamed(names)
    brain = agreed(aligned, masks, cohort.brain_ml) if masks and masks.heads and skull_strip != "no" else None
    study = Study(images, made, skulls, headers, volumes, seen.reference, aligned, brain)
    name, why = choose_reference(study, reference)
    return replace(study, reference=name, why=why, aligned=aligned.seen_from(name, images[name].affine))


def _asked_for(reference: str | None, left: Mapping[Candidate, str]) -> Candidate | None:
    """Return the candidate that was asked for as reference; None if none was, or several may be meant."""
    name = reference and canonical(reference)
    named = [
        each
        for each, modality in left.items()
        if reference and (modality == name or (isinstance(each, SeriesCandidate) and each.series.uid == reference))
    ]
    return named[0] if len(named) == 1 else None


def _without_misfit(
    headers: Headers, left: Mapping[Candidate, str], misfits: Mapping[str, str], base: Candidate | None
) -> Headers | None:
    """Return headers without the first image of those in ``misfits`` (name -> why) that another can replace.

    None if there is none. What the user set by hand, named after its modality, or asked for as reference stays.
    """
    for each in (each for name in misfits for each in left if each.name == name):
        rivals = [o for o in headers.candidates if o is not each and o.says.modality == left[each] and not o.problem]
        if rivals and not each.fixed and each is not base:
            why = f"it cannot be registered ({misfits[each.name].rstrip('.')})"
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
        raise StudyError.of("--reference", f"{what} is not used; expected one of {used}.", "reference", code="option")
    return name, "as requested"


def _skulls(headers: Headers, assignment: Assignment, volumes: Volumes) -> list[str]:
    """Return the modalities of what shows more than a brain; StudyError if an image that is used cannot be."""
    used = assignment.chosen
    named_files = [each.candidate for each in used.values() if isinstance(each.candidate, ImageFile)]
    refuse_several_patients([each for each in named_files if not each.fixed])
    names = {record.candidate.name: modality for modality, record in used.items()}
    skulls: list[str] = []
    for flaw in volumes.flaws:
        modalities = [names[name] for name in flaw.modalities if name in names]
        if len(modalities) < len(flaw.modalities):  # of an image that is not used
            continue
        if flaw.fatal:
            which = " and ".join(f"{used[name].candidate.source} ({display_name(name)})" for name in modalities)
            raise StudyError(f"{which}: {flaw.what}. {flaw.remedy}")
        skulls += modalities if flaw.skull else []
    files = {name: volumes.images[name] for name in names if name in volumes.images}
    for name, image in files.items() if not isinstance(headers, SeriesHeaders) else ():
        if (what := _slab(image)) and (isinstance(headers, FolderHeaders) or min(image.shape) == 1):
            raise StudyError.of(name, f"{what}. Leave it out.", display_name(names[name]), code="slab")
    return skulls


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
