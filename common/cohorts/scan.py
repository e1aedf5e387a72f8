"""The cases in a folder, by the names of its files; no image is opened.

A data set is read by its publishers' names (`Cohort.image_files`). If no file has them, names have to end with the
sequence (`common.cohorts.names`), and each case has a folder, or several lie side by side in one. For a folder that is
arranged otherwise, write a datalist.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from common.cohorts.cohort import Cohort
from common.cohorts.names import SUFFIXES, by_words, split_name, without_folder, without_suffix
from common.cohorts.registry import patient
from common.io.files import is_dicom, unread, walk
from common.modalities import ALIASES
from common.text import shortened
from common.words import NAME_CONTRAST

logger = logging.getLogger(__name__)
Item = dict[str, Any]
"""A case of a datalist: ``case``, ``image`` (paths), ``modalities`` (one per path), and optionally ``label``."""
LABEL, CHANNELS = "label", "channels"


@dataclass(frozen=True)
class _File:
    """An image file.

    Attributes:
        path: its absolute path.
        role: a modality, `LABEL`, `CHANNELS` (all modalities in one file), or None if its name is not recognised.
        stem: the part of its name that tells the case.
        folder: the folder of its case.
        preference: of several labels of a case, the one with the smallest number is taken.
    """

    path: Path
    role: str | None
    stem: str
    folder: Path
    preference: int = 0


Case = tuple[str, list[_File]]


def named_after(folder: str | os.PathLike, cohort: Cohort) -> dict[Path, str | None]:
    """Return what each image file's name stands for: a modality, ``label``, ``channels`` (MSD's four) or None."""
    root = Path(os.path.abspath(folder))
    paths = _image_files(root)
    return {file.path: file.role for file in _published(paths, cohort) or _plain(paths, root, cohort)}


def find_cases(folder: str | os.PathLike, cohort: Cohort, without: Collection[Path] = ()) -> list[Item]:
    """Return one datalist item per case in a folder, sorted by name, without opening an image.

    The folder may be that of one subject, may have subjects nested at any depth, or may hold several subjects' files
    side by side, distinguished by the part of their names before the modality. Cases may lack modalities, but not all,
    and may lack the label. A label may lie beside the images, in a folder below them, or in any folder under the name
    that the images have (``labels/P1_seg.nii.gz`` for ``images/P1_t1.nii.gz``). A case is named as its publishers name
    it, or after the folders that lead to it, or after its files if they lie side by side. Files whose names are not
    recognised are logged as a warning. Hidden files and the paths in ``without`` (as `named_after` gives them) are
    skipped. Raises FileNotFoundError if the folder does not exist or has no image; ValueError if a folder has images
    but no modality, a case has two files for one modality or two labels, or two cases have the same name.
    """
    root = Path(os.path.abspath(folder))
    paths = [path for path in _image_files(root) if path not in without]
    if files := _published(paths, cohort):
        cases = _by_case(files)
    else:
        files = _plain(paths, root, cohort)
        cases = _plain_cases(files, root, cohort)
    used = {file.path for _, own in cases for file in own}
    if unknown := [file.path for file in files if file.role is None and file.path not in used]:
        logger.warning(
            f"{len(unknown)} image files are ignored, as their names give no modality of {cohort.name}: "
            f"{shortened(unknown)}. To use one, name it like the others, or list it in a datalist."
        )
    return sorted((_item(name, known, cohort) for name, known in cases), key=itemgetter("case"))


def _image_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Pass the folder of one subject, or one that holds subjects.")
    # Hidden files are skipped: the MSD archives contain macOS' "._BRATS_001.nii.gz" beside each image.
    paths = [path for path in walk(root) if path.name.lower().endswith(SUFFIXES)]
    if not paths:
        dicom = ["Convert its DICOM files to NIfTI, e.g. by dcm2niix"] if any(map(is_dicom, walk(root))) else []
        todo = "; ".join([*unread(walk(root)), *dicom]) or "Unpack the data there"
        raise FileNotFoundError(f"{root}: no image ({', '.join(SUFFIXES)}) in it or below. {todo}.")
    return paths


def _published(paths: Iterable[Path], cohort: Cohort) -> list[_File]:
    """Return the files if some are named as the cohort's publishers name theirs, else nothing."""
    patterns = cohort.file_patterns
    files = [_published_file(path, cohort, patterns) for path in paths]
    return files if any(file.role for file in files) else []


def _published_file(path: Path, cohort: Cohort, patterns: Sequence[re.Pattern[str]]) -> _File:
    whole = without_suffix(path.as_posix())
    for number, pattern in enumerate(patterns):
        if match := pattern.search(whole):
            role = LABEL if number else CHANNELS if cohort.channels else ALIASES[match["modality"].lower()]
            return _File(path, role, match["case"].replace("/", "_"), path.parent, number)
    return _File(path, None, "", path.parent)


def _by_case(files: Iterable[_File]) -> list[Case]:
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        if file.role:
            cases[file.stem].append(file)
    return list(cases.items())


def _plain(paths: Sequence[Path], root: Path, cohort: Cohort) -> list[_File]:
    """Return the files with what their plain names say; a file alone in a folder ``T1`` is T1 of the case above."""
    count = Counter(path.parent for path in paths)
    files = []
    for path in paths:
        (stem, role), folder = split_name(path.name), path.parent
        if role is None and split_name(without_folder(path.name, folder.name))[1] == LABEL:
            stem, role = folder.name, LABEL  # Seg_P1 in P1
        if folder != root and count[folder] == 1 and (sequence := split_name(folder.name)[1]) in cohort.modalities:
            role, folder = role or sequence, folder.parent
        files.append(_File(path, role if role in (*cohort.modalities, LABEL) else None, stem, folder))
    return files


def _plain_cases(files: Sequence[_File], root: Path, cohort: Cohort) -> list[Case]:
    """Return the cases of files with plain names; raises ValueError for labels and images that no case claims."""
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in files:
        folders[file.folder].append(file)
    folders = {folder: _by_contrast(_by_words(own, cohort)) for folder, own in folders.items()}
    cases: list[Case] = []
    homes: dict[Path, list[Case]] = {}
    for folder, own in folders.items():
        if any(file.role not in (None, LABEL) for file in own):
            homes[folder] = _divided(folder, [file for file in own if file.role], root)
            cases += homes[folder]
    for folder, own in folders.items():
        if folder not in homes:
            above = next((homes[parent] for parent in folder.parents if parent in homes), [])
            _add_labels(cases, above, folder, own, cohort)
    folder_of: dict[str, Path] = {}
    for name, own in cases:
        if name in folder_of:
            raise ValueError(f"{folder_of[name]} and {own[0].folder}: two cases named {name}; rename one.")
        folder_of[name] = own[0].folder
    mixed = [own for _, own in cases if len({file.stem for file in own if file.role != LABEL}) > 1]
    if mixed:
        names = shortened(sorted(file.path.name for file in mixed[0] if file.role != LABEL))
        others = f" The same holds for other folders ({len(mixed) - 1})." if len(mixed) > 1 else ""
        said = "treated as one case, though file names begin differently"
        logger.warning(f"{mixed[0][0].folder}: {said}: {names}.{others}")
    nested = [
        name for name, own in cases if root not in (own[0].folder, own[0].folder.parent) and patient(name) == name
    ]
    if nested:
        logger.warning(
            f"{root}: {shortened(nested)} lie in folders of folders, and each counts as a patient. If several are time "
            "points of one, list the patient of each case: `python -m tools datalist ... --patients FILE.csv`."
        )
    return cases


def _by_words(files: list[_File], cohort: Cohort) -> list[_File]:
    """Return files of one folder, of which those named in words have the role that no file is plainly named after."""
    plain, read = {file.role for file in files}, []
    for file in files:
        stem, modality = by_words(file.path.name, file.path.parent.name) if file.role is None else ("", None)
        use = modality in cohort.modalities and modality not in plain
        read.append(replace(file, stem=stem, role=modality) if use else file)
    return read


def _by_contrast(files: list[_File]) -> list[_File]:
    """Return files of one folder, of which P1_pre_T1 and P1_post_T1 are T1 and T1c unless they are of time points.

    They are of time points if another file's name begins alike (``P1_post_T2``), or if no other begins with ``P1``.
    """
    stems = Counter(file.stem for file in files if file.role)
    told = {file: match for file in files if file.role == "t1" and (match := NAME_CONTRAST.fullmatch(file.stem))}
    alone = {file: match for file, match in told.items() if stems[file.stem] == 1}
    bases = Counter(match[1] or "" for match in alone.values())
    return [
        replace(file, stem=base, role="t1c" if alone[file][2] else "t1")
        if file in alone and (stems[base := alone[file][1] or ""] or bases[base] > 1)
        else file
        for file in files
    ]


def _divided(folder: Path, files: Sequence[_File], root: Path) -> list[Case]:
    """Return the case of a folder, or, if a modality occurs twice, the cases whose files lie side by side in it."""
    images = [file for file in files if file.role != LABEL]
    stems = {file.stem for file in images}
    above = folder.relative_to(root).parts
    if len({file.role for file in images}) == len(images) or len(stems) == 1:
        return [("_".join(above) or root.name, list(files))]
    _refuse_mixture(folder, images)
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        cases["_".join(filter(None, (*above, file.stem))) or root.name].append(file)
    return list(cases.items())


def _refuse_mixture(folder: Path, images: Sequence[_File]) -> None:
    """Refuse a subject's folder that has a second file for a modality, e.g. x_t1.nii and x_brain_t1.nii."""
    named = {(file.role, file.stem): file for file in images}
    for file in images:
        shorter = [file.stem[: match.start()] for match in re.finditer(r"^|[_.-]", file.stem)]
        for stem in {folder.name, *shorter} - {file.stem}:
            if (file.role, stem) in named:
                raise _clash(named[file.role, stem], file, folder.name)


def _add_labels(
    cases: Sequence[Case], above: Sequence[Case], folder: Path, files: Sequence[_File], cohort: Cohort
) -> None:
    """Add the labels of a folder without images to the cases of their names, or to the only one of the folder above."""
    stems = [(stem.lower(), own) for name, own in cases for stem in {name, *(file.stem for file in own)}]
    count = Counter(stem for stem, _ in stems)
    by_name = {stem: own for stem, own in stems if stem and count[stem] == 1}
    home = above[0][1] if len(above) == 1 else None
    labels = {file: by_name.get(file.stem.lower(), home) for file in files if file.role == LABEL}
    for file, own in labels.items():
        if own is not None:
            own.append(file)
    lost = [file.path for file, own in labels.items() if own is None]
    if lost and len(lost) < len(labels):
        logger.warning(f"{len(lost)} labels are ignored, as no case has their names: {shortened(lost)}.")
    elif lost or not (labels or home):
        aliases = ", ".join(sorted(alias for alias, name in ALIASES.items() if name in cohort.modalities))
        what = "labels without images of the same name" if lost else "no modality recognised"
        raise ValueError(
            f"{folder}: {what}: {shortened(file.path.name for file in files)}. Name each file after its case "
            f"and modality, e.g. {folder.name}_{cohort.modalities[0]}.nii.gz (known names are {aliases}), with the "
            "label beside it, or write a datalist."
        )


def _item(name: str, files: Sequence[_File], cohort: Cohort) -> Item:
    by_role: dict[str, _File] = {}
    for file in sorted(files, key=lambda file: file.preference):
        other = by_role.setdefault(file.role, file)
        if other is not file and other.preference == file.preference:
            raise _clash(other, file, name)
        if other.preference < file.preference:
            logger.info(f"{name}: of its labels {other.path.name} is taken, not {file.path.name}.")
    label, stacked = by_role.pop(LABEL, None), by_role.pop(CHANNELS, None)
    if not stacked and not by_role:
        raise ValueError(f"{label.path}: a label without images; expected images with the same name beside it.")
    modalities = [modality for modality in cohort.modalities if stacked or modality in by_role]
    item: Item = {
        "case": name,
        "image": [str((stacked or by_role[modality]).path) for modality in modalities],
        "modalities": modalities,
    }
    if stacked:
        item["channels"] = [cohort.channels.index(modality) for modality in modalities]
    if label:
        item["label"] = str(label.path)
    return item


def _clash(file: _File, other: _File, case: str) -> ValueError:
    return ValueError(
        f"{file.path} and {other.path}: two files for the {other.role} of case {case}; expected one. Move one away, or "
        "put each case in a folder of its own."
    )
