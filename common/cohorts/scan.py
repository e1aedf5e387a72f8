"""The scanner of data folders. One scanner reads all cohorts and local data, since they differ only in their names.

The name of a file (`common.cohorts.names`) or of its folder says which sequence the file shows.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from common.cohorts.brats import MSD_CHANNELS
from common.cohorts.cohort import LABEL_NAMES, Cohort
from common.cohorts.names import (
    CONTRAST,
    LABEL,
    MASK,
    NOT_TUMOUR,
    SUFFIXES,
    by_words,
    label_folder,
    split_name,
    without_folder,
)
from common.cohorts.patients import FEW_TIMES, TIME_POINT, patient, patient_of
from common.io.files import is_dicom, unread, walk
from common.modalities import ALIASES
from common.text import shortened

logger = logging.getLogger(__name__)
Item = dict[str, Any]
"""A case of a datalist: ``case``, ``image`` (paths), ``modalities`` (one per path), and optionally ``label``."""
_CHANNELS = "channels"
_KIND_FOLDERS = ("imagesTr", "imagesTs", "labelsTr", "NIFTI", "nifti", "files", "resources", "scans", "SCANS")
"""Folders with one kind of file, of one or many cases; the cases belong to the folder above (MSD, XNAT)."""
_ARCHIVE = re.compile(r"_(?:nifti|nii)$", re.IGNORECASE)  # ending of a case's folder that says only what files it holds
_NNUNET = re.compile(r".*_000\d(?:\.nii\.gz|\.nrrd|\.mha)", re.IGNORECASE)
_DATED = re.compile(
    rf"(?:(?:mri?|irm|scan|study|exam|visit|date)[-_ ])?{TIME_POINT}(?:[-_ ].*)?"
    r"|\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|(?:19|20)\d\d[-._](?:0[1-9]|1[0-2])",
    re.IGNORECASE,
)
_TIME_POINT = re.compile(
    rf"{_DATED.pattern}|\d\d?(?:\.\d)?|(?:19|20)\d\d|[tv]\d|pre|post|initial|primary|first|second|third|diagnos\w*|relapse\w*|progress\w*"
    r"|\d+ ?(?:d|w|m|mo|y|days?|weeks?|months?|years?)",
    re.IGNORECASE,
)
"""Names of folders that stand for a time point of the patient after whom the folder above is named."""


@dataclass(frozen=True)
class _File:
    """An image file whose role is a modality, `LABEL`, `_CHANNELS` (MSD's four in one) or None (not recognised).

    ``stem`` is its name without what says the role; ``ending`` that part of a label's name. ``words`` is the modality
    that a name without a role tells in words, ``words_stem`` what comes before them.
    """

    path: Path
    folder: Path
    stem: str
    role: str | None
    ending: str = ""
    words_stem: str | None = None
    words: str | None = None


def named_after(folder: str | os.PathLike, cohort: Cohort) -> dict[Path, str | None]:
    """Return what each image file's name stands for: a modality, ``label``, ``channels`` (MSD's four) or None."""
    root = Path(os.path.abspath(folder))
    return {file.path: file.role for file in _read_names(root, cohort)}


def find_cases(folder: str | os.PathLike, cohort: Cohort, without: Collection[Path] = ()) -> list[Item]:
    """Return one datalist item per case in a folder, sorted by name, without opening an image.

    The folder may be that of one subject, may have subjects nested at any depth (HGG/LGG, MSD's imagesTr and labelsTr),
    or may hold several subjects' files side by side, distinguished by the part of their names before the modality.
    Labels may lie in BIDS' ``derivatives/<name>/``, in folders named like the subjects', or in any folder of labels
    whose names begin like the cases' (``images_segm/UPENN-GBM-00001_11_segm.nii.gz``). Cases may lack modalities, but
    not all, and may lack the label. A case is named after its folder, or after its files if they lie side by side; a
    folder of a time point also has the name of the one above (``PatientID_0003_Timepoint_1``), and in BraTS 2015 the
    grade comes first (``HGG_brats_2013_pat0001_1``). Files whose names are not recognised are logged as a warning.
    Hidden files and the paths in ``without`` (as `named_after` gives them) are skipped. Raises FileNotFoundError if the
    folder does not exist or has no image; ValueError if a folder has images but no modality, a case has two files for
    one modality or two labels, or two cases have the same name.
    """
    root = Path(os.path.abspath(folder))
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in _read_names(root, cohort):
        if file.path not in without:
            folders[file.folder].append(file)
    folders = {place: _by_contrast(_by_words(files, cohort)) for place, files in folders.items()}
    for place in [place for place, files in folders.items() if not _images(files)]:
        if (home := _without_derivatives(place, root)) != place and home in folders:
            folders[home] += folders.pop(place)
    imageless = {place: files for place, files in folders.items() if not _images(files)}
    doubts: dict[str, list[str]] = defaultdict(list)
    cases = [
        case
        for place, files in folders.items()
        if place not in imageless
        for case in _cases_of(place, files, root, cohort, doubts)
    ]
    for first, *others in doubts.values():
        logger.warning(first + (f" The same holds for other folders ({len(others)})." if others else ""))
    for place, files in imageless.items():
        _add_labels(cases, place, files, cohort)
    _warn_unknown([file.path for files in folders.values() for file in files if file.role is None], cohort)
    names = _unique_names(cases, root)
    items = [_item(name, files, cohort) for name, (_, files) in zip(names, cases, strict=True)]
    _name_patients(items, [files[0].folder for _, files in cases], root)
    return sorted(items, key=itemgetter("case"))


def _name_patients(items: list[Item], places: list[Path], root: Path) -> None:
    """Set the key ``patient`` where folders tell it and names do not: of time points, and in another case's folder.

    A number or a word such as ``pre`` counts as a time point only if the folder above holds few cases.
    """
    beside, names = Counter(place.parent for place in places), dict(zip(places, items, strict=True))
    for item, place in zip(items, places, strict=True):
        parts = place.relative_to(root).parts
        pattern = _TIME_POINT if beside[place.parent] <= FEW_TIMES else _DATED
        rest = [part for part in parts if part not in _KIND_FOLDERS and not pattern.fullmatch(part)]
        outer = next((names[above] for above in place.parents if above in names and above != root), None)
        if outer:
            logger.warning(
                f"{place}: taken as a case of its own, of the same patient, although it lies in the folder of case "
                f"{outer['case']}. Move it away if it holds other versions of the same images."
            )
            told = patient_of(outer)
        elif place.parent == root or not rest or not any(map(pattern.fullmatch, parts)):
            continue
        else:
            told = patient("_".join(rest) if item["case"] == "_".join(parts) else rest[-1])
        if told != patient(item["case"]):
            item["patient"] = told


def _image_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Pass the folder of one subject, or one that holds subjects.")
    # Hidden files are skipped: the MSD archives contain macOS' "._BRATS_001.nii.gz" beside each image.
    found = [path for path in walk(root) if path.name.lower().endswith(SUFFIXES)]
    if not found:
        dicom = ["Convert its DICOM files to NIfTI, e.g. by dcm2niix"] if any(map(is_dicom, walk(root))) else []
        todo = "; ".join([*unread(walk(root)), *dicom]) or "Unpack the data there"
        raise FileNotFoundError(f"{root}: no image ({', '.join(SUFFIXES)}) in it or below. {todo}.")
    return found


def _read_names(root: Path, cohort: Cohort) -> list[_File]:
    paths = [path for path in _image_files(root) if cohort.only_in in (None, *path.relative_to(root.parent).parts)]
    count = Counter(path.parent for path in paths)
    named = {place for place in count if count[place] > 1 and place != root and _role_of(place.name, cohort)}
    roles = {(path.parent, split_name(path.name, cohort)[1]) for path in paths if path.parent in named}
    several = Counter(place for place, role in roles if role in cohort.modalities)
    named = {place for place in named if several[place] < 2}  # others, such as a folder T1, stand for a time point
    by_role = {place for place in named if sum(other.parent == place.parent for other in named) > 1}
    return [
        _read_name(path, root, cohort, alone=count[path.parent] == 1, by_role=path.parent in by_role) for path in paths
    ]


def _role_of(folder: str, cohort: Cohort) -> str | None:
    """Return the role that a folder's name gives to the files in it."""
    return LABEL if label_folder(folder, cohort) else split_name(folder, cohort)[1] or by_words(folder)[1]


def _without_derivatives(folder: Path, root: Path) -> Path:
    """Return the folder of the same subject outside BIDS' ``derivatives/<name>``."""
    parts = folder.relative_to(root).parts
    return root.joinpath(*parts[2:]) if parts[0:1] == ("derivatives",) else folder


def _read_name(path: Path, root: Path, cohort: Cohort, *, alone: bool, by_role: bool) -> _File:
    stem, role, ending = split_name(path.name, cohort)
    folder, named = path.parent, path.parent.name
    if role is None and split_name(without_folder(path.name, named), cohort)[1] == LABEL:
        stem, role = named, LABEL  # Seg_P1 in P1
    words = (None, None) if role else by_words(path.name, named)
    kinds = (*_KIND_FOLDERS, *cohort.kind_folders)
    places = {folder, _above_kinds(folder, root, kinds)} - {root}
    in_labels = any(label_folder(place.name, cohort) for place in places)
    timed = folder.parent != root and label_folder(folder.parent.name, cohort) and _TIME_POINT.fullmatch(stem)
    if role is None and (named == "labelsTr" or (in_labels and not NOT_TUMOUR.fullmatch(stem)) or timed):
        stem, role = re.sub(r"[_-](?:mask|roi|labels?)$", "", stem, flags=re.IGNORECASE), LABEL
    elif role is None and cohort.name == "msd_task01" and re.fullmatch(r"BRATS_\d+", stem):
        role = _CHANNELS
    if folder != root:
        # BraTS 2015 has a folder for each sequence, MSD one for each kind of file: the case is one level above.
        folder = _above_kinds(folder, root, kinds)
        folder_stem, folder_role, _ = split_name(folder.name, cohort)
        folder_words = None if folder_role else by_words(folder.name)[1]
        if by_role or (alone and folder != root and (folder_role or folder_words or in_labels)):
            named, folder = folder.name, _above_kinds(folder.parent, root, kinds)
            if role is None and not by_words(path.name)[1] and not MASK.fullmatch(stem):
                stem, role = folder_stem if alone and folder_role else stem, folder_role
                words = (stem, folder_words) if folder_words else words
    if role not in (*cohort.modalities, LABEL, _CHANNELS):
        role = None
    return _File(path, folder, stem, role, ending, *words)


def _above_kinds(folder: Path, root: Path, kinds: Collection[str]) -> Path:
    """Return the folder, or the nearest above it that does not stand for a kind of files; XNAT numbers its scans."""
    while folder != root and (folder.name in kinds or folder.parent.name in ("scans", "SCANS")):
        folder = folder.parent
    return folder


def _by_words(files: list[_File], cohort: Cohort) -> list[_File]:
    """Return files of one folder, of which those named in words have the role that no file is plainly named after."""
    plain = {file.role for file in files}
    return [
        replace(file, stem=file.words_stem, role=file.words)
        if file.role is None and file.words in cohort.modalities and file.words not in plain
        else file
        for file in files
    ]


def _by_contrast(files: list[_File]) -> list[_File]:
    """Return files of one folder, of which P1_pre_T1 and P1_post_T1 are T1 and T1c unless they are of time points.

    They are of time points if another file's name begins alike (``P1_post_T2``), or if no other begins with ``P1``.
    """
    stems = Counter(file.stem for file in files if file.role)
    told = {file: match for file in files if file.role == "t1" and (match := CONTRAST.fullmatch(file.stem))}
    alone = {file: match for file, match in told.items() if stems[file.stem] == 1}
    bases = Counter(match[1] or "" for match in alone.values())
    return [
        replace(file, stem=base, role="t1c" if alone[file][2] else "t1")
        if file in alone and (stems[base := alone[file][1] or ""] or bases[base] > 1)
        else file
        for file in files
    ]


def _images(files: Iterable[_File]) -> list[_File]:
    return [file for file in files if file.role not in (None, LABEL)]


def _add_labels(cases: list[tuple[str, list[_File]]], folder: Path, files: list[_File], cohort: Cohort) -> None:
    """Add the labels of a folder without images to the cases whose names they begin with; other files are ignored.

    Raises ValueError if no file's name begins like that of a case, so that the folder may hold cases of its own.
    """
    named = [(name.lower(), known) for case, known in cases for name in {case, *(file.stem for file in _images(known))}]
    count = Counter(name for name, _ in named)
    by_name = {name: known for name, known in named if name and count[name] == 1}
    at_home = _home(folder, cases)
    labels = {}
    for file in (file for file in files if file.role == LABEL):
        names = (file.stem, *(f"{place.name}_{file.stem}" for place in (folder, folder.parent)))  # P1/seg/2019-01-01
        labels[file] = next(filter(None, (by_name.get(name.lower()) for name in names)), at_home)
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
    four = any(re.fullmatch(r"BRATS_\d+", file.stem) for file in files)
    msd = " (BRATS_... are MSD's files of four channels: choose cohort msd_task01)" if four else ""
    if any(_NNUNET.fullmatch(file.path.name) for file in files):
        raise ValueError(
            f"{folder}: {shortened([file.path.name for file in files], 3)} look like nnU-Net's raw format, whose names "
            "do not say the sequence, and whose labels may have other values than the publisher's. Pass the data set "
            f"as its publishers ship it, or name each file after its sequence, e.g. {example}."
        )
    if len(labels) == len(files):
        raise ValueError(
            f"{folder}: {what}: {shortened(file.path.name for file in files)}. Put each label into the folder of its "
            f"case, or name it after the case, as in CASE_{cohort.label_names[0]}.nii.gz."
        )
    raise ValueError(
        f"{folder}: {what} among {shortened(file.path.name for file in files)}. Name each file after its case and "
        f"modality, e.g. {example}; known names are {aliases}{msd}."
    )


def _home(folder: Path, cases: list[tuple[str, list[_File]]]) -> list[_File] | None:
    """Return the files of the only case whose folder holds this one, or ends like it (``labels/<case>``); else None."""
    places: dict[Path, list[list[_File]]] = defaultdict(list)
    for _, known in cases:
        places[known[0].folder].append(known)
    tails = {place: _common_tail(folder, place) for place in places}
    alike = [place for place, tail in tails.items() if tail and tail == max(tails.values())]
    if not alike:  # BIDS: the only case of the subject
        alike = [place for place in places if {*place.parts} & {part for part in folder.parts if part[:4] == "sub-"}]
    found = [known for place in [p for p in folder.parents if p in places][:1] or alike for known in places[place]]
    return found[0] if len(found) == 1 else None


def _common_tail(one: Path, other: Path) -> int:
    """Return how many last parts two folders have in common; 0 if they are none but time points and ``anat``."""
    upwards = ([_ARCHIVE.sub("", part).lower() for part in reversed(path.parts)] for path in (one, other))
    pairs = zip(*upwards, strict=False)
    tail = [a for a, b in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return len(tail) if any(part != "anat" and not _TIME_POINT.fullmatch(part) for part in tail) else 0


def _cases_of(
    folder: Path, files: list[_File], root: Path, cohort: Cohort, doubts: dict[str, list[str]]
) -> list[tuple[str, list[_File]]]:
    """Separate cases ``(name, files)`` whose files share a folder, and add to the doubts if that is not certain."""
    known = [file for file in files if file.role]
    images = _images(known)
    stems = {file.stem for file in images}
    stacked = any(file.role == _CHANNELS for file in images)
    repeated = len({file.role for file in images}) < len(images)
    if not stacked and not (repeated and len(stems) > 1):
        if len(stems) > 1:
            names = shortened(sorted(file.path.name for file in images))
            said = f"{folder}: treated as one case, though file names begin differently: {names}."
            doubts["one case"].append(said)
        # BraTS 2015 uses the name brats_2013_pat0001_1 in both LGG and HGG, for different cases.
        graded = cohort.name == "brats2015" and folder.parent.name in ("HGG", "LGG")
        name = _ARCHIVE.sub("", folder.name)
        return [(f"{folder.parent.name}_{name}" if graded or _TIME_POINT.fullmatch(name) else name, known)]
    _refuse_mixture(folder, images)
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in known:
        timed = folder != root and (not file.stem or _TIME_POINT.fullmatch(file.stem))  # P1/preop_T1
        cases["_".join(filter(None, (folder.name, file.stem))) if timed else file.stem].append(file)
    kinds = (*_KIND_FOLDERS, *cohort.kind_folders)
    if not any(file.path.parent.name in kinds for file in images) and not stacked:
        doubts["cases"].append(f"{folder}: treated as {len(cases)} cases side by side: {shortened(sorted(cases))}.")
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
    label, stacked = by_role.pop(LABEL, None), by_role.pop(_CHANNELS, None)
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
    labels = [file for file in files if file.role == LABEL]
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
        timed = any(map(_TIME_POINT.fullmatch, folder.relative_to(root).parts))
        if count[name] > 1 and (timed or all(file.stem != name for file in files)):
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
            f"end its name with one of {endings}."
        )
