"""One patient to try `predict` and the server on: an openly licensed case of BraTS-Africa, as files or as DICOM.

The files of the case lie in `patient_data`, with their source and licence in ATTRIBUTION.txt.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from mmb.clinic.disk import new_folder
from mmb.clinic.examples.writing import mr_image, write_series

CASE = "BraTS-SSA-00120-000"
IMAGES = {
    "t1": f"{CASE}-t1n.nii.gz",
    "t1c": f"{CASE}-t1c.nii.gz",
    "t2": f"{CASE}-t2w.nii.gz",
    "flair": f"{CASE}-t2f.nii.gz",
}
"""Modality -> its file."""
LABEL, ATTRIBUTION = f"{CASE}-seg.nii.gz", "ATTRIBUTION.txt"
HEADER: dict[str, Any] = {
    "PatientName": CASE, "PatientID": CASE, "StudyDescription": "derived, no scanner's header",
    "DerivationDescription": "BraTS-Africa, doi 10.7937/v8h6-8x67, CC BY 4.0: registered, resampled, skull-stripped",
    "ImageType": ["DERIVED", "SECONDARY", "OTHER"], "Manufacturer": "none", "ManufacturerModelName": "none",
    "ScanningSequence": "RM", "SequenceVariant": "NONE",  # DICOM demands a value; the next three may be empty
    "MRAcquisitionType": "", "RepetitionTime": None, "EchoTime": None,
    "StudyDate": "", "SeriesDate": "", "AcquisitionDate": "", "ContentDate": "",
    "StudyTime": "", "SeriesTime": "", "AcquisitionTime": "", "ContentTime": "",
}  # fmt: skip


class Scores(NamedTuple):
    """Dice of the default weights from some sequences, as docs/open_glioma has it.

    Attributes:
        dice: of WT, TC and ET.
        rank: by their mean, among the nine test cases.
    """

    dice: tuple[float, float, float]
    rank: int


SCORES = {"t1+t1c+t2+flair": Scores((0.940, 0.766, 0.786), 6), "flair": Scores((0.905, 0.561, 0.257), 5)}
"""Name of the subset of sequences -> scores."""


def write_example(folder: str | Path, dicom: bool, only: Sequence[str]) -> None:
    """Write the patient's images of the modalities ``only``, the expert's label map and the attribution.

    As DICOM there is no label map: a study holds no image files beside its series. The folder appears only when it is
    complete. Raises FileExistsError if it holds anything; OSError if it cannot be written.
    """
    with as_file(files("mmb.clinic.examples") / "patient_data") as source, new_folder(folder) as draft:
        shutil.copyfile(source / ATTRIBUTION, draft / ATTRIBUTION)
        if dicom:
            for number, name in enumerate(IMAGES, start=1):
                if name in only:
                    _write_dicom(draft / f"{number:03d}", number, name, source / IMAGES[name])
        else:
            for file in (*(IMAGES[name] for name in only), LABEL):
                shutil.copyfile(source / file, draft / file)


def _write_dicom(folder: Path, number: int, name: str, file: Path) -> None:
    stored = nib.Nifti1Image.from_filename(file)
    image = stored.as_reoriented(ornt_transform(io_orientation(stored.affine), axcodes2ornt("LPS")))
    right, front, head = (float(value) for value in image.affine[:3, 3])
    make = partial(mr_image, CASE, number, description=name, header=HEADER)
    write_series(folder, np.asarray(image.dataobj, np.uint16), (-right, -front, head), (1.0, 1.0, 1.0), make)
