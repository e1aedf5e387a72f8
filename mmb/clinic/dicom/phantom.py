"""Synthetic DICOM studies, to try `predict` and the server for viewers on without a patient's data.

The patients are those of `common.cohorts.phantom`. Each study has the series of a tumour protocol (localizer, T1, T2,
FLAIR, T1c and a subtraction) with the headers of a scanner. Its description says that nobody was scanned.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from common.cohorts.phantom.cohort import draw
from common.cohorts.phantom.simulation import SPACING
from common.io.settings import check_counts
from common.text import PHANTOM

MPRAGE = {
    "ScanningSequence": ["GR", "IR"], "SequenceVariant": "MP", "MRAcquisitionType": "3D",
    "RepetitionTime": 2200, "EchoTime": 2.67, "InversionTime": 900, "FlipAngle": 8,
}  # fmt: skip
TSE = {
    "ScanningSequence": "SE", "SequenceVariant": "SK", "MRAcquisitionType": "2D",
    "RepetitionTime": 5200, "EchoTime": 98, "FlipAngle": 150,
}  # fmt: skip
FLAIR = {
    "ScanningSequence": ["SE", "IR"], "SequenceVariant": "SK", "MRAcquisitionType": "3D",
    "RepetitionTime": 5000, "EchoTime": 388, "InversionTime": 1800, "FlipAngle": 120,
}  # fmt: skip
AGENT = {"ContrastBolusAgent": "Gadolinium"}
SUBTRACTED = {"ImageType": ["DERIVED", "PRIMARY", "M", "SUB"]}


class _Series(NamedTuple):
    image: str
    """Name of an image of the patient, or a difference of two."""
    description: str
    header: Mapping[str, Any]
    every: int = 1
    """Only every so many slices are there."""


SERIES = (
    _Series("t1", "localizer", MPRAGE, every=13),
    _Series("t1", "t1_mprage_tra", MPRAGE),
    _Series("t2", "t2_tse_tra", TSE),
    _Series("flair", "t2_flair_tra", FLAIR),
    _Series("t1c", "t1_mprage_tra_+C", MPRAGE | AGENT),
    _Series("t1c-t1", "t1_mprage_tra_SUB", MPRAGE | AGENT | SUBTRACTED),
)
"""The series of a study, in the order of their SeriesNumbers from 1."""


def write_studies(folder: str | Path, subjects: int = 3, seed: int = 2023) -> Path:
    """Write the studies, ``<folder>/<case>/<SeriesNumber>/<slice>.dcm``, and return the folder's absolute path.

    It appears only when it is complete. Raises ValueError for less than one subject; FileExistsError if the folder
    holds anything; OSError if it cannot be written.
    """
    check_counts(subjects=subjects)
    target = Path(folder).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already, and is not overwritten; expected a new or an empty folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
        draft = Path(temporary, target.name)
        for number in range(1, subjects + 1):
            case, images, _ = draw(number, seed)
            _write_study(draft / case, case, f"{seed} {case}", images)
        os.replace(draft, target)
    return target


def _write_study(folder: Path, case: str, identity: str, images: Mapping[str, np.ndarray]) -> None:
    for number, series in enumerate(SERIES, start=1):
        first, *others = (images[name].astype(np.int32) for name in series.image.split("-"))
        voxels = np.maximum(first - sum(others), 0).astype(np.uint16)
        target = folder / f"{number:03d}"
        target.mkdir(parents=True)
        for index, k in enumerate(range(0, voxels.shape[2], series.every), start=1):
            dataset = mr_image(identity, number, index, series.description, series.header)
            dataset.PatientName = dataset.PatientID = case
            dataset.ImageOrientationPatient, dataset.PixelSpacing = [1.0, 0, 0, 0, 1, 0], [SPACING, SPACING]
            dataset.ImagePositionPatient = [0.0, -SPACING * (voxels.shape[1] - 1), SPACING * k]
            dataset.SliceThickness = dataset.SpacingBetweenSlices = SPACING * series.every
            dataset.Rows, dataset.Columns = voxels.shape[1::-1]
            dataset.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
            dataset.save_as(target / f"{index:03d}.dcm", enforce_file_format=True)


def mr_image(identity: str, number: int, index: int, description: str, header: Mapping[str, Any]) -> FileDataset:
    """Return an MR image without its patient, pixels and place; all of a study have one frame of reference.

    ``identity`` is that of the study, ``number`` the SeriesNumber and ``index`` the InstanceNumber.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[identity, str(number), str(index)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[identity])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[identity, str(number)])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[identity, "frame"])
    dataset.PositionReferenceIndicator = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID, dataset.StudyDescription, dataset.SeriesDescription = "1", PHANTOM, description
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240102"
    dataset.StudyTime = "100000"
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = f"{100000 + 100 * number}"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "MR", number, index
    dataset.Manufacturer, dataset.ManufacturerModelName = "none", "phantom"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "0", "1"
    dataset.BodyPartExamined, dataset.PatientPosition = "BRAIN", "HFS"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.EchoTrainLength = dataset.ScanOptions = ""
    for keyword, value in ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]} | dict(header)).items():
        setattr(dataset, keyword, value)
    return dataset
