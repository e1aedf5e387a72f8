"""The cases in a folder, by the names of its files; no image is opened.

A data set is read by its publishers' names (`Cohort.image_files`), or as nnU-Net's ``dataset.json`` says. If no file
has them, names have to end with the sequence (`common.cohorts.names`), and each case has a folder, or several lie side
by side in one. For a folder that is arranged otherwise, write a datalist.
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from common.cohorts import nnunet
from common.cohorts.cohort import Cohort
from common.cohorts.examination import differing, told
from common.cohorts.names import split_name, without_suffix
from common.cohorts.registry import patient
from common.io.files import SUFFIXES, is_dicom, unread, walk
from common.modalities import spellings
from common.text import shortened

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
        preference: of several labels of a case, the one with the smallest number is taken.
    """

    path: Path
    role: str | None
    stem: str = ""
    preference: int = 0


class _Case(NamedTuple):
    """The files of a case, which all lie in one folder, except that a label may lie elsewhere."""

    name: str
    files: list[_File]


def named_after(folder: str | os.PathLike, cohort: Cohort) -> dict[Path, str | None]:
    """Return what each image file's name ends with: a modality, ``label``, ``channels`` (MSD's four) or None."""
    paths = _image_files(Path(os.path.abspath(folder)))
    files = _of_nnunet(folder, paths, cohort) or _published(paths, cohort) or _plain(paths, cohort)
    return {file.path: file.role for file in files}


def find_cases(folder: str | os.PathLike, cohort: Cohort, without: Collection[Path] = ()) -> list[Item]:
    """Return one datalist item per case in a folder, sorted by name, without opening an image.

    The folder may be that of one subject, may have subjects nested at any depth, or may hold several subjects' files
    side by side, distinguished by the part of their names before the modality. Cases may lack modalities, but not all,
    and may lack the label. A label may lie beside the images, in a folder below them, or in any folder under the name
    that the images have (``labels/P1_seg.nii.gz`` for ``images/P1_t1.nii.gz``). A case is named as its publishers name
    it, or after the folders that lead to it, or after its files if they lie side by side. Files whose names are not
    recognised, and labels of no case, are logged as a warning. Hidden files and the paths in ``without`` (as
    `named_after` gives them) are skipped.
    """
    root = Path(os.path.abspath(folder))
    paths = [path for path in _image_files(root) if path not in without]
    files = _of_nnunet(root, paths, cohort) or _published(paths, cohort)
    cases = _published_cases(files) if files else _plain_cases(_plain(paths, cohort), root, cohort)
    used = {file.path for case in cases for file in case.files}
    if unused := [path for path in paths if path not in used]:
        logger.warning(
            f"{len(unused)} image files are ignored, as their names give no modality of {cohort.name}, or no case: "
            f"{shortened(unused)}. To use one, name it like the others, or list it in a datalist."
        )
    items = sorted((_item(case, cohort) for case in cases), key=itemgetter("case"))
    told = nnunet.described(root)
    if told and (values := nnunet.label_values(told, cohort)):
        items = [{**item, "label_values": values} if LABEL in item else item for item in items]
    return items


def _image_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Pass the folder of one subject, or one that holds subjects.")
    # Hidden files are skipped: the MSD archives contain macOS' "._BRATS_001.nii.gz" beside each image.
    files = walk(root)
    paths = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if not paths:
        dicom = ["Convert its DICOM files to NIfTI, e.g. by dcm2niix"] if any(map(is_dicom, files)) else []
        kinds = Counter(path.suffix.lower() or "without suffix" for path in files)
        only = shortened([f"{count} {kind}" for kind, count in kinds.most_common()])
        todo = "; ".join([*unread(files)[0], *dicom]) or "Unpack the data there"
        raise FileNotFoundError(
            f"{root}: no image ({', '.join(SUFFIXES)}) in it or below{f', only {only}' if files else ''}. {todo}."
        )
    return paths


def _of_nnunet(folder: str | os.PathLike, paths: Iterable[Path], cohort: Cohort) -> list[_File]:
    """Return the files if the folder holds raw data of nnU-Net (`common.cohorts.nnunet`), else nothing."""
    if (told := nnunet.described(folder)) is None:
        return []
    modalities, files = told.modalities(cohort.modalities), []
    if foreign := [name for name in modalities if name not in cohort.modalities]:
        raise ValueError(f"{told.path}: channel {foreign[0]}; {cohort.name} has {', '.join(cohort.modalities)}.")
    for path in paths:
        name, of = path.name.removesuffix(told.ending), path.parent.name
        channel = re.fullmatch(r"(.+)_(\d{4})", name)
        if of in nnunet.IMAGES and channel and int(channel[2]) < len(modalities):
            files.append(_File(path, modalities[int(channel[2])], channel[1]))
        elif of in nnunet.LABELS:
            files.append(_File(path, LABEL, name))
        elif of not in nnunet.UNREAD:
            files.append(_File(path, None))
    if not any(file.role in modalities for file in files):
        raise ValueError(f"{told.path}: no image imagesTr/CASE_0000{told.ending} or the like lies beside it.")
    return files


def _published(paths: Iterable[Path], cohort: Cohort) -> list[_File]:
    """Return the files if some are named as the cohort's publishers name theirs, else nothing."""
    patterns = cohort.file_patterns
    files = [_published_file(path, cohort, patterns) for path in paths]
    return files if any(file.role for file in files) else []


def _published_file(path: Path, cohort: Cohort, patterns: Sequence[re.Pattern[str]]) -> _File:
    whole = without_suffix(path.as_posix())
    for number, pattern in enumerate(patterns):
        if match := pattern.search(whole):
            if number or cohort.channels:
                role = LABEL if number else CHANNELS
            else:
                role = spellings(cohort.modalities)[match["modality"].lower()]
            return _File(path, role, match["case"].replace("/", "_"), number)
    return _File(path, None)


def _published_cases(files: Iterable[_File]) -> list[_Case]:
    cases: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        if file.role:
            cases[file.stem].append(file)
    return [_Case(name, own) for name, own in cases.items()]


def _plain(paths: Iterable[Path], cohort: Cohort) -> list[_File]:
    """Return the files with what their names say."""
    files = []
    for path in paths:
        stem, role = split_name(path.name)
        files.append(_File(path, role if role in (*cohort.modalities, LABEL) else None, stem))
    return files


def _plain_cases(files: Sequence[_File], root: Path, cohort: Cohort) -> list[_Case]:
    """Return the cases of files with plain names."""
    folders: dict[Path, list[_File]] = defaultdict(list)
    for file in files:
        if file.role not in (None, LABEL):
            folders[file.path.parent].append(file)
    folders = _without_folders_of_sequences(folders, root)
    homes = {folder: _divided(folder, own, root) for folder, own in folders.items()}
    cases = [case for own in homes.values() for case in own]
    if not cases:
        aliases = ", ".join(sorted(spellings(cohort.modalities)))
        raise ValueError(
            f"{root}: no modality recognised: {shortened(file.path.name for file in files)}. Name each file after its "
            f"case and modality, e.g. {root.name}_{cohort.modalities[0]}.nii.gz (known names are {aliases}), with the "
            "label beside it, or write a datalist."
        )
    labels = [(file, _case_of(file, homes, cases)) for file in files if file.role == LABEL]
    for file, case in labels:  # not before: a label's name tells nothing of another one
        if case:
            case.files.append(file)
    if twice := [name for name, count in Counter(case.name for case in cases).items() if count > 1]:
        places = [str(case.files[0].path.parent) for case in cases if case.name == twice[0]]
        raise ValueError(f"{' and '.join(places)}: two cases named {twice[0]}; rename one.")
    nested = [
        case.name
        for home, own in homes.items()
        for case in own
        if root not in (home, home.parent) and patient(case.name) == case.name
    ]
    if nested:
        logger.warning(
            f"{root}: {shortened(nested)} lie in folders of folders, and each counts as a patient. If several are time "
            "points of one, list the patient of each case: `mmb datalist ... --patients FILE.csv`."
        )
    return cases


def _without_folders_of_sequences(folders: Mapping[Path, list[_File]], root: Path) -> dict[Path, list[_File]]:
    """Return the images of each folder; those in a folder that is named after their sequence are of the one above."""
    homes: dict[Path, list[_File]] = defaultdict(list)
    for folder, files in folders.items():
        case, role = split_name(folder.name)
        is_of_one = folder != root and {file.role for file in files} == {role} and (not case or case.isdigit())
        homes[folder.parent if is_of_one else folder] += files
    return homes


def _divided(folder: Path, images: list[_File], root: Path) -> list[_Case]:
    """Return the case of a folder's images, or those side by side: if a modality is there twice, or names differ."""
    above = folder.relative_to(root).parts
    by_stem: dict[str, list[_File]] = defaultdict(list)
    for file in images:
        by_stem[file.stem].append(file)
    apart = differing([told(file.path) for file in images])
    apart = apart if apart and (apart.certain or any(file.path.parent != folder for file in images)) else None
    if len(by_stem) == 1 or (len({file.role for file in images}) == len(images) and not apart):
        return [_Case("_".join(above) or root.name, images)]
    for stem in by_stem:  # x_t1.nii and x_brain_t1.nii are of one case
        shorter = ["", folder.name, *(stem[: sign.start()] for sign in re.finditer("[_.-]", stem))]
        for part in (part for part in shorter if part in by_stem and part != stem):
            raise ValueError(
                f"{by_stem[part][0].path} and {by_stem[stem][0].path}: these names do not tell one case from several. "
                "Put each case in a folder of its own, with one file for each modality."
            )
    return [_Case("_".join([*above, stem]), own) for stem, own in by_stem.items()]


def _case_of(label: _File, homes: Mapping[Path, Sequence[_Case]], cases: Sequence[_Case]) -> _Case | None:
    """Return the case that a label is named after, else the only one of its folder or of the nearest folder above."""
    folder = label.path.parent
    after = [
        case
        for case in cases
        if label.stem and label.stem.lower() in (case.name.lower(), *(file.stem.lower() for file in case.files))
    ]
    named = [case for case in after if case in homes.get(folder, ())] or after
    near = next((homes[parent] for parent in (folder, *folder.parents) if parent in homes), [])
    fitting = named if len(named) == 1 else near
    if len(fitting) != 1:
        return None
    apart = differing([told(file.path) for file in (label, *fitting[0].files)])
    return None if apart and apart.certain else fitting[0]


def _item(case: _Case, cohort: Cohort) -> Item:
    by_role: dict[str | None, _File] = {}
    for file in sorted(case.files, key=lambda file: file.preference):
        other = by_role.setdefault(file.role, file)
        if other is not file and other.preference == file.preference:
            raise ValueError(
                f"{other.path} and {file.path}: two files for the {file.role} of case {case.name}; expected one. Move "
                "one away, or put each case in a folder of its own."
            )
        if other.preference < file.preference:
            logger.info(f"{case.name}: of its labels {other.path.name} is taken, not {file.path.name}.")
    label, stacked = by_role.pop(LABEL, None), by_role.pop(CHANNELS, None)
    if label and not stacked and not by_role:
        raise ValueError(f"{label.path}: a label without images; expected images with the same name beside it.")
    modalities = [modality for modality in cohort.modalities if stacked or modality in by_role]
    item: Item = {
        "case": case.name,
        "image": [str((stacked or by_role[modality]).path) for modality in modalities],
        "modalities": modalities,
    }
    if stacked:
        item["channels"] = [cohort.channels.index(modality) for modality in modalities]
    if label:
        item["label"] = str(label.path)
    return item
