"""The folder of a study, or of several, as far as it can be looked at in an instant: imported without PyTorch."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.io.files import SUFFIXES, is_dicom, walk
from common.text import shortened
from mmb.clinic.errors import StudyError

NAMED_AFTER = re.compile(r"(?:(?P<case>.*)[_.-])?(?P<end>[^_.-]*(?:t1|t2|fla)[^_.-]*)", re.IGNORECASE)
"""Name of an image file, without its suffix, whose end seems to be that of a sequence."""


@dataclass(frozen=True)
class StudyFiles:
    """A study's folder, all its files, and the images among them; the files are DICOM files if there is none."""

    folder: Path
    files: Sequence[Path]
    images: Sequence[Path]


Source = str | Path | StudyFiles | Mapping[str, str | Path]
"""A study: its folder, or the image file of each modality."""


def study_files(folder: str | Path | StudyFiles) -> StudyFiles:
    """Return what is in a study's folder, which is listed once.

    Raises FileNotFoundError if there is no such folder; StudyError if it is a file, is empty, or holds DICOM files
    beside other images.
    """
    if isinstance(folder, StudyFiles):
        return folder
    folder = Path(folder)
    if folder.is_file():
        raise StudyError.of(
            folder,
            "a file; expected the folder with all files of the study. Images of any names are given one by one, such "
            "as --t1c FILE --flair FILE.",
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM or NIfTI files of a study.")
    folder = Path(os.path.abspath(folder))  # as the paths of cases are, which are compared with it
    files = walk(folder)
    if not files:
        raise StudyError.of(folder, "an empty folder; expected the DICOM or NIfTI files of a study.")
    images = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if images and any(is_dicom(path) for path in files):
        raise StudyError.of(folder, f"it holds both DICOM and image files ({len(images)}); give a folder of one kind.")
    return StudyFiles(folder, files, images)


def require_one_study(folder: str | Path) -> StudyFiles:
    """Return `study_files`, and refuse what it refuses, and a folder with folders of several patients.

    Only one DICOM file of each folder is read. What this overlooks is refused when the study is read.
    """
    listed = study_files(folder)
    if listed.images:
        _require_one_subject(listed.folder, listed.images)
        return listed
    try:
        import pydicom

        from mmb.clinic.dicom.headers import patient, quiet, require_one_patient
    except ImportError:  # said when the study is read
        return listed
    patients = []
    with quiet():
        for path in {path.parent: path for path in reversed(listed.files)}.values():
            try:
                tags = ["PatientID", "PatientName", "PatientBirthDate"]
                patients.append(patient(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)))
            except Exception:  # not DICOM, or damaged: pydicom raises many types
                continue
    if patients:
        require_one_patient(folder, patients)
    return listed


def _require_one_subject(folder: Path, images: Sequence[Path]) -> None:
    """Refuse images that lie in several folders under the same names, up to a part that is the subject's."""
    cases: dict[Path, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in images:
        suffix = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
        if name := NAMED_AFTER.fullmatch(path.name[: -len(suffix)]):
            cases[path.parent][name["case"] or ""].add(name["end"].lower())
    largest = {where: max(own.values(), key=len) for where, own in cases.items()}
    subjects = [where.name for where, ends in largest.items() if len(ends) > 1]
    ends = [ends for ends in largest.values() if len(ends) > 1]
    if len(subjects) > 1 and len(set.intersection(*ends)) > 1:
        todo = "give the folder of one, or --each if every subfolder is a study."
        raise StudyError(
            f"{folder}: {len(subjects)} subjects, {shortened(subjects)}; {todo}",
            f"The study: {len(subjects)} subjects; {todo}",
        )


def require_image_files(files: Mapping[str, str | Path]) -> None:
    """Refuse files, by the names of their modalities, that are missing, no image files, or the same."""
    named: dict[Path, str] = {}
    for name, file in files.items():
        if not Path(file).exists():
            raise FileNotFoundError(f"--{name} {file}: no such file; expected an image (NIfTI, MHA or NRRD).")
        if Path(file).is_dir() or is_dicom(Path(file)):
            raise ValueError(f"--{name} {file}: expected an image file; of DICOM series, give the study's folder.")
        if (other := named.setdefault(Path(file).resolve(), name)) != name:
            raise ValueError(f"--{name} {file}: this file is given as --{other}, too; expected different ones.")


def require_studies(folder: str | Path) -> list[Path]:
    """Return the subfolders of a folder, each of which holds a study; of nnU-Net's raw data the folder, unread.

    Raises FileNotFoundError if there is no such folder; ValueError if it has no subfolder, or images beside them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with a subfolder for each study.")
    if any('"channel_names"' in path.read_text("utf-8", "replace") for path in _descriptions(folder)):
        return [folder]
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    beside = [path for path in entries if path.is_file() and (path.name.lower().endswith(SUFFIXES) or is_dicom(path))]
    if beside:
        raise ValueError(
            f"{folder}: {len(beside)} images lie beside the subfolders; with --each every study has a subfolder of its "
            "own. Move them into one, or leave out --each if this is one study."
        )
    if not (studies := [path for path in entries if path.is_dir()]):
        raise ValueError(f"{folder}: no subfolder; expected one for each study.")
    return studies


def _descriptions(folder: Path) -> list[Path]:
    """Return the ``dataset.json`` of a folder, or that above nnU-Net's folder of images."""
    above = [folder.parent] if folder.name in ("imagesTr", "imagesTs") else []
    return [path for each in (folder, *above) if (path := each / "dataset.json").is_file()]
