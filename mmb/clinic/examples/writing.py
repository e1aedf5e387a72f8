"""Writing of MR images as DICOM, for studies that no scanner made: those of the phantom, and of the example."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from common.text import PHANTOM


def write_series(
    folder: Path,
    voxels: np.ndarray,
    origin: tuple[float, float, float],
    spacing: tuple[float, float, float],
    image: Callable[[int], FileDataset],
) -> None:
    """Write a series of axial slices, ``<folder>/<slice>.dcm``.

    Args:
        folder: it must not exist yet.
        voxels: uint16 ``(x, y, z)``, with axes to the patient's left, back and head.
        origin: centre of the first voxel in mm.
        spacing: of the voxels in mm.
        image: an InstanceNumber, from 1 -> that image without pixels and place.
    """
    folder.mkdir(parents=True)
    for k in range(voxels.shape[2]):
        dataset = image(k + 1)
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1.0, 0, 0, 0, 1, 0], [spacing[1], spacing[0]]
        dataset.ImagePositionPatient = [*origin[:2], origin[2] + spacing[2] * k]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = spacing[2]
        dataset.Rows, dataset.Columns = voxels.shape[1::-1]
        dataset.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        dataset.save_as(folder / f"{k + 1:03d}.dcm", enforce_file_format=True)


def mr_image(identity: str, number: int, index: int, description: str, header: Mapping[str, Any]) -> FileDataset:
    """Return an MR image without its patient, pixels and place; all of a study have one frame of reference.

    ``identity`` is that of the study, ``number`` the SeriesNumber and ``index`` the InstanceNumber. ``header``
    replaces what is said here of the phantom.
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
