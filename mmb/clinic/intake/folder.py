"""The folder of a study, or of several, as far as it can be looked at in an instant: imported without PyTorch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.io.files import SUFFIXES, is_dicom, walk
from common.text import shortened
from mmb.errors import StudyError


@dataclass(frozen=True)
class StudyFiles:
    """A study's folder, all its files, and the images among them; the files are DICOM files if there is none."""

    folder: Path
    files: Sequence[Path]
    images: Sequence[Path]


Source = str | Path | StudyFiles | Mapping[str, str | Path]
"""A study: its folder, or the image file of each modality."""


def study_files(folder: str | Path | StudyFiles) -> StudyFiles:
    """Return what is in a study's folder, which is listed once; what is returned may be given again.

    Raises FileNotFoundError if there is no such folder; StudyError if it is a file, is empty, or holds DICOM files
    beside other images.
    """
    if isinstance(folder, StudyFiles):
        return folder
    folder = Path(folder)
    if folder.is_file():
        one_by_one = "Or give image files of any names one by one: --t1c FILE --flair FILE."
        raise StudyError.of(
            folder, "a file; expected the folder with all files of the study.", code="option", command=one_by_one
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM or NIfTI files of a study.")
    folder = Path(os.path.abspath(folder))  # as the paths of cases are, which are compared with it
    files = walk(folder)
    if not files:
        raise StudyError.of(
            folder, "an empty folder; expected the DICOM or NIfTI files of a study.", code="no_mr_image"
        )
    images = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    if images and (others := [path for path in files if is_dicom(path)]):
        fewer = min(images, others, key=len)
        listed = shortened(str(path.relative_to(folder)) for path in fewer)
        kind = "image" if fewer is images else "DICOM"
        both = f"it holds both DICOM and image files ({len(images)}); give a folder of one kind."
        raise StudyError(
            f"{folder}: {both} Of the {kind} files move away: {listed}.", f"The study: {both}", code="several_subjects"
        )
    return StudyFiles(folder, files, images)


def require_image_files(files: Mapping[str, str | Path]) -> None:
    """Refuse files, by the names of their modalities, that are missing, no image files, or the same."""
    named: dict[Path, str] = {}
    for name, file in files.items():
        path = Path(file)
        if not path.exists():
            raise FileNotFoundError(f"--{name} {file}: no such file; expected an image (NIfTI, MHA or NRRD).")
        if not path.is_file() or is_dicom(path):
            raise ValueError(f"--{name} {file}: expected an image file; of DICOM series, give the study's folder.")
        if (other := named.setdefault(path.resolve(), name)) != name:
            raise ValueError(
                f"--{name} {file}: the same file as --{other}; expected a file of its own for each sequence."
            )


def require_studies(folder: str | Path) -> list[Path]:
    """Return the subfolders of a folder, each of which holds a study; of nnU-Net's raw data the folder, unread.

    Raises FileNotFoundError if there is no such folder; ValueError if it has no subfolder, or images beside them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with a subfolder for each study.")
    above = [folder.parent] if folder.name in ("imagesTr", "imagesTs") else []
    described = [path for each in (folder, *above) if (path := each / "dataset.json").is_file()]
    if any('"channel_names"' in path.read_text("utf-8", "replace") for path in described):
        return [folder]
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    beside = [path for path in entries if path.is_file() and (path.name.lower().endswith(SUFFIXES) or is_dicom(path))]
    if beside:
        what = f"{len(beside)} images lie beside the subfolders; with --each every study has a subfolder of its own"
        mend = "Move them into one, or leave out --each if this is one study"
        raise ValueError(f"{folder}: {what}. {mend}: {shortened(path.name for path in beside)}.")
    if not (studies := [path for path in entries if path.is_dir()]):
        raise ValueError(f"{folder}: no subfolder; expected one for each study.")
    return studies
