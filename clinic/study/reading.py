"""Reading of a patient's study: DICOM series or NIfTI files in a folder, assigned to a cohort's modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np
import torch

from clinic.study.grid import finest
from clinic.study.looking import check_images, look_at
from common.cohorts.check import has_known_sequences
from common.cohorts.cohort import Cohort
from common.cohorts.scan import SUFFIXES, Item, find_cases, named_after
from common.io.files import is_dicom, unread, walk
from common.io.images import read_image
from common.modalities import GLIOMA, canonical, display_name, resolve_subset, subset_name
from common.text import shortened

if TYPE_CHECKING:
    from clinic.dicom import Candidate, Look, Selection, Series

CPU = torch.device("cpu")


class Remark(NamedTuple):
    """A remark that the user should check.

    Attributes:
        modalities: modalities that it is about; empty for the whole study.
        text: without the modalities' names, since these may change; see `clinic.study.appearance`.
    """

    modalities: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Study:
    """A patient's volumes.

    Attributes:
        images: modality -> volume with its own grid and background 0, in the cohort's order; affines lead to mm, RAS.
        frames: modality -> name of its frame of reference.
        sources: modality -> source of the volume, e.g. ``series 7``.
        reasons: modality -> reason for using this source.
        confidences: modality -> confidence from 0 to 1; None if it was set by hand, named by its file, or decided by
            what the image shows.
        explanations: a line for everything that was found: what it is used as, or why it is left out.
        remarks: remarks that the user should check.
        notes: volumes that could have been used instead, and why they are not.
        series: modality -> its DICOM series; empty for NIfTI files.
        skulls: modalities whose images show more than a brain, although the cohort is skull-stripped.
    """

    images: dict[str, nib.Nifti1Image]
    frames: dict[str, str]
    sources: dict[str, str]
    reasons: dict[str, str]
    confidences: dict[str, float | None]
    explanations: list[str]
    remarks: list[Remark]
    notes: list[str] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)
    skulls: list[str] = field(default_factory=list)


def read_folder(
    folder: str | Path,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
) -> Study:
    """Read one patient's study.

    Where headers and names leave open which volume is which modality, the images decide (see `look_at`, which computes
    on ``device``). Raises ValueError if the folder holds both kinds of files, several patients, none of the modalities,
    or an unusable image; if the images do not decide either; or if ``by_hand`` does not fit the study.

    Args:
        folder: DICOM files in the folder or its subfolders; or NIfTI (or MHA) files that are named after their
            modalities (see `find_cases`), or whose JSON or name identifies them (see `clinic.dicom.image_files`).
        cohort: cohort whose modalities are looked for.
        modalities: modalities to use; None: all that are found.
        by_hand: modality -> SeriesNumber, for DICOM only; see `clinic.dicom.choose`.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder}: a file; expected the folder with all files of the study.")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM or NIfTI files of a study.")
    wanted = resolve_subset(modalities, cohort.modalities)
    files = walk(folder)
    if not files:
        raise ValueError(f"{folder}: an empty folder; expected the DICOM or NIfTI files of a study.")
    images = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if images and any(is_dicom(path) for path in files):
        raise ValueError(f"{folder}: it holds both DICOM and image files ({len(images)}); give a folder of one kind.")
    look = partial(look_at, cohort=cohort, device=device) if has_known_sequences(cohort) else None
    read = _of_files if images else _of_series
    study = read(folder, cohort, wanted, by_hand, look)
    study.remarks.extend(Remark((), f"{text}.") for text in unread(files))
    checked, flaws = check_images(study.images, cohort)
    study.images.update(checked)
    for found in flaws:
        text = f"{found.what}. {found.remedy}"
        if found.fatal:
            named = " and ".join(f"{study.sources[name]} ({display_name(name)})" for name in found.modalities)
            raise ValueError(f"{named}: {text}")
        if found.skull:
            study.skulls.extend(found.modalities)
        else:
            study.remarks.append(Remark(found.modalities, text))
    return study


def choose_reference(study: Study, asked: str | None = None) -> tuple[str, str]:
    """Return the modality on whose grid the result will lie, and the reason.

    ``asked`` is a modality or the SeriesInstanceUID of a series in use; None: T1c if present, else the finest volume.
    """
    if asked is not None:
        by_uid = {series.uid: name for name, series in study.series.items()}
        is_uid = asked.replace(".", "").isdecimal()
        name = by_uid.get(asked, "") if is_uid else canonical(asked)
        if name not in study.images:
            used = ", ".join(f"{display_name(name)} ({study.sources[name]})" for name in study.images)
            what = "this series" if is_uid else asked  # a message never shows a UID, which identifies the patient
            raise ValueError(f"--reference: {what} is not used; expected one of {used}.")
        why = "as requested"
    elif "t1c" in study.images:
        name, why = "t1c", "the default"
    else:
        name, why = finest(study.images), "the finest one"
    return name, why


def _of_files(
    folder: Path, cohort: Cohort, wanted: Sequence[str], by_hand: Mapping[str, Any] | None, look: Look | None
) -> Study:
    if by_hand:
        raise ValueError(f"--series is for DICOM, but {folder} holds image files, which are identified by their names.")
    case, remarks, selection = _told_apart(folder, cohort, look)
    chosen = selection.chosen if selection else {}
    recognised = {name: one for name, one in chosen.items() if name in wanted and not one.fixed}
    channels = case.get("channels", [None] * len(case["image"]))
    files = [file for file in zip(case["modalities"], case["image"], channels, strict=True) if file[0] in wanted]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # decompression releases the interpreter
        read = list(pool.map(lambda file: read_image(file[1], file[2]), files))
    images = {}
    for (name, _, _), (image, warnings) in zip(files, read, strict=True):
        images[name] = image
        remarks += [Remark((name,), f"{warning}.") for warning in warnings]
    if not images:
        raise ValueError(
            f"{folder}: none of the requested modalities ({subset_name(wanted)}); it has "
            f"{subset_name(case['modalities'])}."
        )
    first, *others = images.values()
    if any(image.shape != first.shape or not np.allclose(image.affine, first.affine) for image in others):
        text = "The files lie on different grids; a common frame of reference is assumed, which NIfTI cannot confirm."
        remarks.append(Remark((), text))
    return Study(
        images,
        frames=dict.fromkeys(images, "NIfTI"),
        sources=dict.fromkeys(images, "image file"),
        reasons={
            name: recognised[name].verdict.reason if name in recognised else "named by its file" for name in images
        },
        confidences=dict.fromkeys(images) | _confidences(recognised),
        explanations=[
            f"{Path(path).name}: {display_name(name)}, by its name{'' if name in images else '; not requested'}."
            for path, name in zip(case["image"], case["modalities"], strict=True)
            if name not in recognised
        ]
        + (selection.explanations if selection else []),
        remarks=[*remarks, *(Remark((), warning) for warning in (selection.warnings if selection else ()))],
        notes=selection.notes if selection else [],
    )


def _told_apart(folder: Path, cohort: Cohort, look: Look | None) -> tuple[Item, list[Remark], Selection | None]:
    """Return a datalist item, remarks, and the choice among the files whose names do not end in a modality, if any."""
    roles = named_after(folder, cohort)
    unnamed = [path for path, role in roles.items() if role is None]
    named = {role: path for path, role in roles.items() if role not in (None, "label")}
    try:
        from clinic.dicom import image_files  # needs pydicom, which is not required if all names are clear
    except ImportError:
        image_files = None
    files = image_files.recognise_files(unnamed) if image_files and "channels" not in named else []
    possible = {file.verdict.modality for file in files} & {*GLIOMA} & {*cohort.modalities}
    cases = find_cases(folder, cohort, unnamed if possible - {*named} else ()) if named or not possible else []
    if len(cases) > 1:
        raise ValueError(
            f"{folder}: {len(cases)} subjects, {shortened(case['case'] for case in cases)}; give the folder of one, "
            "or --each if every subfolder is a study."
        )
    case = cases[0] if cases else {"image": [], "modalities": []}
    paths = dict(zip(case["modalities"], case["image"], strict=True))
    if image_files is None or "channels" in case:
        return case, [], None
    contradictions = {name: image_files.contradiction(Path(path), name) for name, path in paths.items()}
    remarks = [Remark((name,), text) for name, text in contradictions.items() if text]
    if not files:
        return case, remarks, None
    selection = image_files.choose_files(files, paths, {*GLIOMA} - {*cohort.modalities}, look)
    paths |= {name: str(one.path) for name, one in selection.chosen.items()}
    modalities = [name for name in cohort.modalities if name in paths]
    return {"modalities": modalities, "image": [paths[name] for name in modalities]}, remarks, selection


def _of_series(
    folder: Path, cohort: Cohort, wanted: Sequence[str], by_hand: Mapping[str, Any] | None, look: Look | None
) -> Study:
    from clinic import dicom  # imported here, since NIfTI does not need its packages

    by_hand = by_hand or {}
    if not isinstance(by_hand, Mapping):
        raise ValueError(f"--series {by_hand!r}: expected sequences and SeriesNumbers, e.g. {{'t1c': 7}}.")
    given = {canonical(str(name)): key for name, key in by_hand.items()}
    if len(given) < len(by_hand):
        raise ValueError(f"--series: one modality is given twice in {', '.join(map(str, by_hand))}; name each once.")
    foreign = [name for name in given if name not in wanted]
    if foreign:
        raise ValueError(f"--series: {foreign[0]} is not among the modalities to use, {subset_name(wanted)}.")
    series = dicom.read_series(folder)
    left_out = {name: None for name in GLIOMA if name not in wanted}
    selection = dicom.choose(series, left_out | given, look)
    chosen = {name: selection.chosen[name] for name in wanted if name in selection.chosen}
    return Study(
        images={name: one.read() for name, one in chosen.items()},
        frames={name: one.frame for name, one in chosen.items()},
        sources={name: one.source for name, one in chosen.items()},
        reasons={name: one.verdict.reason for name, one in chosen.items()},
        confidences=_confidences(chosen),
        explanations=selection.explanations,
        remarks=[Remark((), warning) for warning in selection.warnings],
        notes=selection.notes,
        series={name: one.series for name, one in chosen.items()},
    )


def _confidences(chosen: Mapping[str, Candidate]) -> dict[str, float | None]:
    return {name: None if one.fixed or one.by_image else one.verdict.confidence for name, one in chosen.items()}
