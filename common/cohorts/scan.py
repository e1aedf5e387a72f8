"""The scanner of data folders: one reads those of all cohorts, since they differ only in their names.

The last token of a file's name says which sequence it holds (``BraTS20_Training_001_t1ce.nii.gz``,
``BraTS-GLI-00001-000-t1c.nii.gz``, ``VSD.Brain.XX.O.MR_T1c.54514.mha``, or just ``T1POST.nii.gz``; in BIDS,
``sub-01_ce-GAD_T1w.nii.gz`` is T1c). So it also reads folders of local data with similar names.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from common.cohorts.brats import MSD_CHANNELS
from common.cohorts.cohort import Cohort
from common.io.files import walk
from common.modalities import ALIASES
from common.text import shortened

logger = logging.getLogger(__name__)

Item = dict[str, Any]
"""A case of a datalist: ``case``, ``image`` (paths), ``modalities`` (one per path), and optionally ``label``."""

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
_LABEL, _CHANNELS = "label", "channels"
_KIND_FOLDERS = ("imagesTr", "imagesTs", "labelsTr", "train25", "train25_myops_gd", "test20")
_KIND_FOLDERS += ("iSeg-2017-Training", "iSeg-2017-Testing")
"""Folders of MSD, MyoPS and iSEG with one kind of file of many cases; the cases belong to the folder above."""

_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""


@dataclass(frozen=True)
class _File:
    """An image file whose role is a modality, `_LABEL`, `_CHANNELS` (MSD's four in one) or None (not recognised)."""

    path: Path
    folder: Path
    stem: str
    role: str | None


def named_after(folder: str | os.PathLike, cohort: Cohort) -> dict[Path, str | None]:
    """Return what each image file's name stands for: a modality, ``label``, ``channels`` (MSD's four) or None."""
    root = Path(os.path.abspath(folder))
    return {file.path: file.role for file in _read_names(root, cohort)}


def find_cases(folder: str | os.PathLike, cohort: Cohort, without: Collection[Path] = ()) -> list[Item]:
    """Return one datalist item per case in a folder, sorted by name, without opening an image.

    The folder may be that of one subject, may have subjects nested at any depth (HGG/LGG, MSD's imagesTr and labelsTr),
    or may hold several subjects' files side by side, distinguished by the part of their names before the modality.
    Labels may lie in BIDS' ``derivatives/<name>/``, in folders named like the subjects'. Cases may lack modalities, but
    not all, and may lack the label. A case is named after its folder, or after its files if they lie side by side; in
    BraTS 2015 the grade comes first (``HGG_brats_2013_pat0001_1``). Files whose names are not recognised are logged as
    a warning.

    Args:
        folder: folder to scan; hidden files are skipped.
        cohort: cohort whose modalities are looked for; they are returned in its order.
        without: files to skip, as paths from `named_after`.

    Raises:
        FileNotFoundError: if the folder does not exist or has no image.
        ValueError: if a folder has images but no modality, a case has two files for one modality or two labels, or two
            cases have the same name.
    """
    root = Path(os.path.abspath(folder))
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in _read_names(root, cohort):
        if file.path not in without:
            folders[file.folder].append(file)
    cases = [case for place, files in folders.items() for case in _cases_of(place, files, cohort)]
    _warn_unknown([file.path for files in folders.values() for file in files if file.role is None])
    names = _unique_names(cases, root)
    items = (_item(name, files, cohort) for name, (_, files) in zip(names, cases, strict=True))
    return sorted(items, key=itemgetter("case"))


def _image_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Pass the folder of one subject, or one that holds subjects.")
    # Hidden files are skipped: the MSD archives contain macOS' "._BRATS_001.nii.gz" beside each image.
    found = [path for path in walk(root) if path.name.lower().endswith(SUFFIXES)]
    if not found:
        raise FileNotFoundError(f"{root}: no image ({', '.join(SUFFIXES)}) in it or below. Unpack the data there.")
    return found


def _read_names(root: Path, cohort: Cohort) -> list[_File]:
    paths = _image_files(root)
    count = Counter(path.parent for path in paths)
    return [_read_name(path, root, cohort, alone=count[path.parent] == 1) for path in paths]


def _split_name(name: str, cohort: Cohort) -> tuple[str, str | None]:
    """Split a file's or folder's name into the part before its last token, and the role that this token stands for."""
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), "")
    stem = name[: len(name) - len(suffix)]
    # Names in BraTS 2015 end with the number in the SICAS repository: VSD.Brain.XX.O.MR_T1c.54514
    head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", re.sub(r"\.\d+$", "", stem), re.DOTALL).groups(default="")
    role = _LABEL if token.lower() in cohort.label_tokens else ALIASES.get(token.lower())
    if role and (bids := _BIDS.fullmatch(head)):
        head = bids[1]  # files of one subject may differ in entities such as acq-3D and run-2
        if role == "t1" and "_ce-" in bids[2].lower():  # any contrast agent
            role = "t1c"
    return (head, role) if role else (stem, None)


def _read_name(path: Path, root: Path, cohort: Cohort, *, alone: bool) -> _File:
    stem, role = _split_name(path.name, cohort)
    folder, named = path.parent, path.parent.name
    if role is None and named == "labelsTr":
        role = _LABEL
    elif role is None and cohort.name == "msd_task01" and re.fullmatch(r"BRATS_\d+", stem):
        role = _CHANNELS
    if folder != root:
        # BraTS 2015 has a folder for each sequence, MSD one for each kind of file: the case is one level above.
        folder_stem, folder_role = _split_name(named, cohort)
        if named in _KIND_FOLDERS or (alone and folder_role):
            folder = folder.parent
        if alone and folder_role and role is None:
            stem, role = folder_stem, folder_role
    parts = folder.relative_to(root).parts
    if role == _LABEL and parts[0:1] == ("derivatives",):  # BIDS: it belongs to the subject's folder of the same name
        folder = root.joinpath(*parts[2:])
    if role not in (*cohort.modalities, _LABEL, _CHANNELS):
        role = None
    return _File(path, folder, stem, role)


def _cases_of(folder: Path, files: list[_File], cohort: Cohort) -> list[tuple[str, list[_File]]]:
    """Separate the cases whose files share a folder: ``(name, files)`` for each."""
    known = [file for file in files if file.role]
    images = [file for file in known if file.role != _LABEL]
    if not images:
        aliases = ", ".join(sorted(alias for alias, name in ALIASES.items() if name in cohort.modalities))
        raise ValueError(
            f"{folder}: no modality recognised among {shortened(file.path.name for file in files)}. Name each file "
            f"after its case and modality, e.g. {folder.name}_{cohort.modalities[0]}.nii.gz; known names are {aliases} "
            "(for MSD's 4-channel files choose cohort msd_task01)."
        )
    stems = {file.stem for file in images}
    stacked = any(file.role == _CHANNELS for file in images)
    repeated = len({file.role for file in images}) < len(images)
    if not stacked and not (repeated and len(stems) > 1):
        if len(stems) > 1:
            names = shortened(sorted(file.path.name for file in images))
            logger.warning(f"{folder}: treated as one case, though file names begin differently: {names}.")
        # BraTS 2015 uses the name brats_2013_pat0001_1 in both LGG and HGG, for different cases.
        graded = cohort.name == "brats2015" and folder.parent.name in ("HGG", "LGG")
        return [(f"{folder.parent.name}_{folder.name}" if graded else folder.name, known)]
    _refuse_mixture(folder, images)
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in known:
        cases[file.stem].append(file)
    if not any(file.path.parent.name in _KIND_FOLDERS for file in images) and not stacked:
        logger.warning(f"{folder}: treated as {len(cases)} cases side by side: {shortened(sorted(cases))}.")
    return list(cases.items())


def _refuse_mixture(folder: Path, images: list[_File]) -> None:
    """Refuse a subject's folder that has a second file for a modality, e.g. x_t1.nii and x_brain_t1.nii."""
    named = {(file.role, file.stem): file for file in images}
    for file in images:
        shorter = [file.stem[: match.start()] for match in re.finditer(r"^|[_.-]", file.stem)]
        for stem in {folder.name, *shorter} - {file.stem}:
            if (file.role, stem) in named:
                raise _clash(named[file.role, stem], file, folder.name)


def _item(name: str, files: list[_File], cohort: Cohort) -> Item:
    by_role: dict[str, _File] = {}
    for file in files:
        if file.role in by_role:
            raise _clash(by_role[file.role], file, name)
        by_role[file.role] = file
    label, stacked = by_role.pop(_LABEL, None), by_role.pop(_CHANNELS, None)
    if stacked and by_role:
        raise _clash(stacked, next(iter(by_role.values())), name)
    if not stacked and not by_role:
        raise ValueError(f"{label.path}: a label without images; expected images with the same name beside it.")
    modalities = [modality for modality in cohort.modalities if stacked or modality in by_role]
    item: Item = {
        "case": name,
        "image": [str((stacked or by_role[modality]).path) for modality in modalities],
        "modalities": modalities,
    }
    if stacked:
        item["channels"] = [MSD_CHANNELS[modality] for modality in modalities]
    if label:
        item["label"] = str(label.path)
    return item


def _clash(one: _File, other: _File, case: str) -> ValueError:
    return ValueError(
        f"{one.path} and {other.path}: two files for the {other.role} of case {case}; expected one. Move one away, or "
        "put each case in a folder of its own."
    )


def _unique_names(cases: list[tuple[str, list[_File]]], root: Path) -> list[str]:
    """Return the cases' names; folders with the same name (``anat``) get the name of their path (``sub-01_anat``)."""
    count = Counter(name for name, _ in cases)
    names, seen = [], {}
    for name, files in cases:
        folder = files[0].folder
        if count[name] > 1 and all(file.stem != name for file in files):
            name = "_".join(folder.relative_to(root).parts) or name
        if name in seen:
            raise ValueError(
                f"{seen[name]} and {folder}: two cases named {name}; rename one, or pass one of the folders."
            )
        seen[name] = folder
        names.append(name)
    return names


def _warn_unknown(paths: list[Path]) -> None:
    if paths:
        logger.warning(f"{len(paths)} image files are ignored, as their names give no modality: {shortened(paths)}.")
