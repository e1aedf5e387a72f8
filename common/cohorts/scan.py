"""The scanner of data folders: one reads those of all cohorts, since they differ only in their names.

The last token of a file's name says which sequence it holds (``BraTS20_Training_001_t1ce.nii.gz``,
``BraTS-GLI-00001-000-t1c.nii.gz``, ``VSD.Brain.XX.O.MR_T1c.54514.mha``, or just ``T1POST.nii.gz``; in BIDS,
``sub-01_ce-GAD_T1w.nii.gz`` is T1c). So it also reads folders of local data with similar names.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from common.cohorts.brats import MSD_CHANNELS
from common.cohorts.cohort import LABEL_NAMES, Cohort
from common.cohorts.patients import TIME_POINT
from common.io.files import walk
from common.modalities import ALIASES
from common.text import shortened

logger = logging.getLogger(__name__)
Item = dict[str, Any]
"""A case of a datalist: ``case``, ``image`` (paths), ``modalities`` (one per path), and optionally ``label``."""
SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
FOREIGN = {
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".mhd", ".nhdr", ".par", ".rec"), "convert it to NIfTI (.nii.gz)"),
    **dict.fromkeys((".img.gz", ".hdr.gz", ".nii.bz2", ".nii.xz", ".nii.zip"), "unpack it, or convert it to .nii.gz"),
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar"), "unpack it"),
}
"""Suffix of files that may hold images but are not read -> what to do with them."""
_LABEL, _CHANNELS = "label", "channels"
_KIND_FOLDERS = ("imagesTr", "imagesTs", "labelsTr")
_LABEL_FOLDER = re.compile(r"labels?(?:T[rs])?|seg(?:mentation)?s?|masks?|annotations?|ground_?truth|gt", re.IGNORECASE)
"""Folders of MSD with one kind of file of many cases; the cases belong to the folder above."""
_NOT_TUMOUR = re.compile(r".*(?:brain|parenchyma|tissue|skull|head|cellular|cellular_tumor)", re.IGNORECASE | re.DOTALL)
"""What comes before ``_segmentation`` and the like in names of masks that are no labels of a tumour."""
_WORN = re.compile(r"[_-](?:brain|skull_?strip(?:ped)?|bet|stripped|nifti)", re.IGNORECASE)
"""Ending of a modality's name that says what was done to the image, e.g. ``t1_skull_strip``."""
_ARCHIVE = re.compile(r"_(?:nifti|nii)$", re.IGNORECASE)  # ending of a case's folder that says only what files it holds
_NNUNET = re.compile(r".*_000\d(?:\.nii\.gz|\.nrrd|\.mha)", re.IGNORECASE)
_TIME_POINT = re.compile(rf"{TIME_POINT}|\d\d?", re.IGNORECASE)
"""Names of folders that stand for a time point of the patient after whom the folder above is named."""
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""


@dataclass(frozen=True)
class _File:
    """An image file whose role is a modality, `_LABEL`, `_CHANNELS` (MSD's four in one) or None (not recognised).

    ``stem`` is its name without what says the role; ``ending`` that part of a label's name.
    """

    path: Path
    folder: Path
    stem: str
    role: str | None
    ending: str = ""


def named_after(folder: str | os.PathLike, cohort: Cohort) -> dict[Path, str | None]:
    """Return what each image file's name stands for: a modality, ``label``, ``channels`` (MSD's four) or None."""
    root = Path(os.path.abspath(folder))
    return {file.path: file.role for file in _read_names(root, cohort)}


def unread(paths: Iterable[Path]) -> list[str]:
    """Return a remark for each kind of file that may hold images but is not read (`FOREIGN`), without names."""
    suffixes = sorted(FOREIGN, key=len, reverse=True)
    kinds = (next((one for one in suffixes if path.name.lower().endswith(one)), None) for path in paths)
    counts = Counter(kind for kind in kinds if kind)
    return [
        f"{count} {'file' if count == 1 else 'files'} not read ({kind}): {FOREIGN[kind]}, or remove what is not needed"
        for kind, count in sorted(counts.items())
    ]


def find_cases(folder: str | os.PathLike, cohort: Cohort, without: Collection[Path] = ()) -> list[Item]:
    """Return one datalist item per case in a folder, sorted by name, without opening an image.

    The folder may be that of one subject, may have subjects nested at any depth (HGG/LGG, MSD's imagesTr and labelsTr),
    or may hold several subjects' files side by side, distinguished by the part of their names before the modality.
    Labels may lie in BIDS' ``derivatives/<name>/``, in folders named like the subjects', or in any folder of labels
    whose names begin like the cases' (``images_segm/UPENN-GBM-00001_11_segm.nii.gz``). Cases may lack modalities, but
    not all, and may lack the label. A case is named after its folder, or after its files if they lie side by side; a
    folder of a time point also has the name of the one above (``PatientID_0003_Timepoint_1``), and in BraTS 2015 the
    grade comes first (``HGG_brats_2013_pat0001_1``). Files whose names are not recognised are logged as a warning.
    Raises FileNotFoundError if the folder does not exist or has no image; ValueError if a folder has images but no
    modality, a case has two files for one modality or two labels, or two cases have the same name. Hidden files are
    skipped, as are those in ``without``, paths from `named_after`.
    """
    root = Path(os.path.abspath(folder))
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in _read_names(root, cohort):
        if file.path not in without:
            folders[file.folder].append(file)
    for place in [place for place, files in folders.items() if not _images(files)]:
        if (home := _without_derivatives(place, root)) != place and home in folders:
            folders[home] += folders.pop(place)
    imageless = {place: files for place, files in folders.items() if not _images(files)}
    cases = [
        case for place, files in folders.items() if place not in imageless for case in _cases_of(place, files, cohort)
    ]
    for place, files in imageless.items():
        _add_labels(cases, place, files, cohort)
    _warn_unknown([file.path for files in folders.values() for file in files if file.role is None], cohort)
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
    paths = [path for path in _image_files(root) if cohort.only_in in (None, *path.relative_to(root.parent).parts)]
    count = Counter(path.parent for path in paths)
    named = {place for place in count if count[place] > 1 and place != root and _role_of(place.name, cohort)}
    by_role = {place for place in named if sum(other.parent == place.parent for other in named) > 1}
    return [
        _read_name(path, root, cohort, alone=count[path.parent] == 1, by_role=path.parent in by_role) for path in paths
    ]


def _role_of(folder: str, cohort: Cohort) -> str | None:
    """Return the role that a folder's name gives to the files in it."""
    if cohort.label_names is LABEL_NAMES and _LABEL_FOLDER.fullmatch(folder):
        return _LABEL
    return _split_name(folder, cohort)[1]


def _without_derivatives(folder: Path, root: Path) -> Path:
    """Return the folder of the same subject outside BIDS' ``derivatives/<name>``."""
    parts = folder.relative_to(root).parts
    return root.joinpath(*parts[2:]) if parts[0:1] == ("derivatives",) else folder


@cache
def _labels(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of labels' names: what comes before the ending, and the longest ending that fits."""
    return re.compile(rf"(?:(.*?)[_.-])?({'|'.join(map(re.escape, names))})", re.IGNORECASE | re.DOTALL)


def _split_name(name: str, cohort: Cohort) -> tuple[str, str | None, str]:
    """Split a file's or folder's name into what comes before its role, the role, and the ending of a label's name."""
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), "")
    whole = name[: len(name) - len(suffix)]
    # Names in BraTS 2015 end with the number in the SICAS repository: VSD.Brain.XX.O.MR_T1c.54514
    stem = re.sub(r"\.\d+$", "", whole)
    label = _labels(cohort.label_names).fullmatch(stem)
    if label and not _NOT_TUMOUR.fullmatch(label[1] or ""):
        head, role, ending = label[1] or "", _LABEL, label[2].lower()
    else:
        plain = _WORN.sub("", stem) if cohort.only_in else stem
        head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", plain, re.DOTALL).groups(default="")
        pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", plain, re.IGNORECASE | re.DOTALL)
        if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
            head, token = pair[1] or "", pair[2] + pair[3]
        role, ending = ALIASES.get(token.lower()), ""
    if role and (bids := _BIDS.fullmatch(head)):
        head = bids[1]  # files of one subject may differ in entities such as acq-3D and run-2
        if role == "t1" and "_ce-" in bids[2].lower():  # any contrast agent
            role = "t1c"
    return (head, role, ending) if role else (whole, None, "")


def _read_name(path: Path, root: Path, cohort: Cohort, *, alone: bool, by_role: bool) -> _File:
    stem, role, ending = _split_name(path.name, cohort)
    folder, named = path.parent, path.parent.name
    kinds = (*_KIND_FOLDERS, *cohort.kind_folders)
    in_labels = cohort.label_names is LABEL_NAMES and bool(_LABEL_FOLDER.fullmatch(named)) and folder != root
    if role is None and (named == "labelsTr" or (in_labels and not _NOT_TUMOUR.fullmatch(stem))):
        role = _LABEL
    elif role is None and cohort.name == "msd_task01" and re.fullmatch(r"BRATS_\d+", stem):
        role = _CHANNELS
    if folder != root:
        # BraTS 2015 has a folder for each sequence, MSD one for each kind of file: the case is one level above.
        folder_stem, folder_role, _ = _split_name(named, cohort)
        if named in kinds or by_role or (alone and (folder_role or in_labels)):
            folder = folder.parent
        while folder != root and folder.name in kinds:
            folder = folder.parent
        if (alone or by_role) and folder_role and role is None:
            stem, role = folder_stem if alone else stem, folder_role
    if role not in (*cohort.modalities, _LABEL, _CHANNELS):
        role = None
    return _File(path, folder, stem, role, ending)


def _images(files: Iterable[_File]) -> list[_File]:
    return [file for file in files if file.role not in (None, _LABEL)]


def _add_labels(cases: list[tuple[str, list[_File]]], folder: Path, files: list[_File], cohort: Cohort) -> None:
    """Add the labels of a folder without images to the cases whose names they begin with; other files are ignored.

    Raises ValueError if no file's name begins like that of a case, so that the folder may hold cases of its own.
    """
    by_name = {name.lower(): known for case, known in cases for name in (case, *(file.stem for file in _images(known)))}
    at_home = by_name.get(_ARCHIVE.sub("", folder.name).lower())  # labels/<case>/<any name>_seg.nii.gz
    labels = {file: by_name.get(file.stem.lower()) or at_home for file in files if file.role == _LABEL}
    for file, known in labels.items():
        if known:
            known.append(file)
    lost = [file.path for file, known in labels.items() if not known]
    if 0 < len(lost) < len(labels):
        logger.warning(f"{len(lost)} labels are ignored, as no case has their names: {shortened(lost)}.")
    if any(labels.values()) or (not labels and any(file.stem.lower().startswith(tuple(by_name)) for file in files)):
        return
    aliases = ", ".join(sorted(alias for alias, name in ALIASES.items() if name in cohort.modalities))
    example = f"{folder.name}_{cohort.modalities[0]}.nii.gz"
    what = "labels without images of the same name" if labels else "no modality recognised"
    if any(_NNUNET.fullmatch(file.path.name) for file in files):
        raise ValueError(
            f"{folder}: {shortened([file.path.name for file in files], 3)} look like nnU-Net's raw format, whose names "
            "do not say the sequence, and whose labels may have other values than the publisher's. Pass the data set "
            f"as its publishers ship it, or name each file after its sequence, e.g. {example}."
        )
    raise ValueError(
        f"{folder}: {what} among {shortened(file.path.name for file in files)}. Name each file after its case and "
        f"modality, e.g. {example}; known names are {aliases} (for MSD's 4-channel files choose cohort msd_task01)."
    )


def _cases_of(folder: Path, files: list[_File], cohort: Cohort) -> list[tuple[str, list[_File]]]:
    """Separate the cases whose files share a folder: ``(name, files)`` for each."""
    known = [file for file in files if file.role]
    images = _images(known)
    stems = {file.stem for file in images}
    stacked = any(file.role == _CHANNELS for file in images)
    repeated = len({file.role for file in images}) < len(images)
    if not stacked and not (repeated and len(stems) > 1):
        if len(stems) > 1:
            names = shortened(sorted(file.path.name for file in images))
            logger.warning(f"{folder}: treated as one case, though file names begin differently: {names}.")
        # BraTS 2015 uses the name brats_2013_pat0001_1 in both LGG and HGG, for different cases.
        graded = cohort.name == "brats2015" and folder.parent.name in ("HGG", "LGG")
        name = _ARCHIVE.sub("", folder.name)
        return [(f"{folder.parent.name}_{name}" if graded or _TIME_POINT.fullmatch(name) else name, known)]
    _refuse_mixture(folder, images)
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in known:
        cases[file.stem].append(file)
    kinds = (*_KIND_FOLDERS, *cohort.kind_folders)
    if not any(file.path.parent.name in kinds for file in images) and not stacked:
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
    for file in _preferred(files, name, cohort):
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


def _preferred(files: list[_File], name: str, cohort: Cohort) -> list[_File]:
    """Return the files without labels that the cohort's publishers supersede by another one of the case."""
    labels = [file for file in files if file.role == _LABEL]
    if len(labels) < 2 or cohort.label_names is LABEL_NAMES:
        return files
    first = min((file.ending for file in labels), key=cohort.label_names.index)
    others = [file for file in labels if file.ending != first]
    if others:
        logger.info(
            f"{name}: of its labels the one named {first} is taken, not {shortened(f.path.name for f in others)}."
        )
    return [file for file in files if file not in others]


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


def _warn_unknown(paths: list[Path], cohort: Cohort) -> None:
    if paths:
        endings = ", ".join(f"_{name}" for name in (*cohort.modalities, cohort.label_names[0]))
        logger.warning(
            f"{len(paths)} image files are ignored, as their names give no modality: {shortened(paths)}. To use one, "
            f"give its name one of the endings {endings}."
        )
