"""DICOM studies of the phantom, as a scanner would send them, written with pydicom.

`write_study(folder, subject_dir)` writes a whole study; `STUDY` lists its series, and `study(...)` selects fewer
sequences. Every series may have its own plane, tilt, spacing, order of slices, frame of reference and encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from nibabel.affines import apply_affine
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from mmb.clinic.examples.phantom import FLAIR as SPACE_FLAIR
from mmb.clinic.examples.phantom import MPRAGE
from mmb.clinic.examples.phantom import TSE as T2_TSE
from mmb.clinic.examples.writing import mr_image
from mmb.clinic.intake.series import Series, read_all

SLOPE, INTERCEPT = 0.5, -16.0
"""Rescale slope and intercept of the stored values, so that a reader who ignores them fails."""
PATIENT = {"PatientName": "Secret^Phantom", "PatientID": "SECRET-0815", "PatientBirthDate": "19700101"}
"""Personal data that must never appear in a message or a log."""
ACCESSION = "SECRET-ACC"

# Columns of each: direction of increasing column index, of increasing row index, and of the slices, in RAS.
PLANES = {
    "axial": np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]).T,
    "sagittal": np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]).T,
    "coronal": np.array([[-1.0, 0, 0], [0, 0, -1], [0, -1, 0]]).T,
}

AGENT = {"ContrastBolusAgent": "Gadovist"}
T1_SE = {
    "ScanningSequence": "SE", "SequenceVariant": ["SP", "OSP"], "MRAcquisitionType": "2D",
    "RepetitionTime": 550, "EchoTime": 9.1, "FlipAngle": 70, "SequenceName": "*se2d1",
}  # fmt: skip
EPI = {
    "ScanningSequence": "EP", "SequenceVariant": ["SK", "SP"], "MRAcquisitionType": "2D",
    "RepetitionTime": 6000, "EchoTime": 90, "FlipAngle": 90, "SequenceName": "*ep_b0_1000",
}  # fmt: skip
LOCALIZER = {
    "ScanningSequence": "GR", "SequenceVariant": ["SP", "OSP"], "MRAcquisitionType": "2D",
    "RepetitionTime": 8.6, "EchoTime": 4, "FlipAngle": 20, "SequenceName": "*fl2d1",
}  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """One volume to write. Scans with the same number form one series.

    Attributes:
        number: SeriesNumber.
        image: what it shows: a modality of the subject (t1, t1c, t2, flair), or a difference such as ``t1c-t1``.
        description: SeriesDescription.
        header: additional attributes by keyword.
        plane: axial, sagittal or coronal.
        tilt: of the plane, degrees around x, y and z of the patient (RAS).
        spacing: mm between columns, rows and slices.
        slices: number of slices around the middle; None: the whole field of view.
        reverse: InstanceNumber and file names run against the direction of the slices.
        moved: how the patient had moved before it, degrees around x, y, z and mm; then it has a frame of reference of
            its own.
        multiframe: one enhanced multi-frame file instead of a file for each slice.
        transfer_syntax: of the files; they are compressed if it says so.
        image_type: ImageType; of a multi-frame image the first four values.
    """

    number: int
    image: str
    description: str
    header: Mapping[str, Any] = field(default_factory=dict)
    plane: str = "axial"
    tilt: tuple[float, float, float] = (0, 0, 0)
    spacing: tuple[float, float, float] = (3, 3, 3)
    slices: int | None = None
    reverse: bool = False
    moved: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    multiframe: bool = False
    transfer_syntax: str = ExplicitVRLittleEndian
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")


STUDY = (
    Scan(1, "t1", "localizer", LOCALIZER, spacing=(4, 4, 40), slices=3),
    Scan(1, "t1", "localizer", LOCALIZER, plane="sagittal", spacing=(4, 4, 40), slices=3),
    Scan(1, "t1", "localizer", LOCALIZER, plane="coronal", spacing=(4, 4, 40), slices=3),
    Scan(2, "t1", "t1_mprage_sag_p2_iso", MPRAGE, "sagittal", (4, -3, 5), (2.5, 2.5, 3)),
    Scan(3, "t2", "t2_tse_tra_4mm", T2_TSE, "axial", (8, -4, 6), (2.5, 2.5, 4), reverse=True),
    Scan(4, "flair", "t2_spc_da-fl_sag_p2", SPACE_FLAIR, "coronal", (0, 3, 0), (3, 3, 3),
         moved=((3, -2, 4), (3, -2, 4))),
    Scan(5, "t2", "ep2d_diff_b0_1000_ADC", EPI, spacing=(3, 3, 5),
         image_type=("DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND", "NORM")),
    Scan(6, "t1c", "t1_mprage_sag_p2_iso_KM", MPRAGE | AGENT, "sagittal", (4, -3, 5), (2.5, 2.5, 3)),
    Scan(7, "t1c-t1", "t1_mprage_sag_p2_iso_SUB", MPRAGE | AGENT, "sagittal", (4, -3, 5), (2.5, 2.5, 3),
         image_type=("DERIVED", "PRIMARY", "M", "ND", "NORM", "SUB")),
    Scan(8, "t1c", "t1_se_tra_KM", T1_SE | AGENT, "axial", (8, -4, 6), (2.5, 2.5, 5)),
)  # fmt: skip
"""A tumour protocol: three-plane localizer in one series; T1, T2, FLAIR (in a frame of reference of its own), ADC map,
T1c in 3D and 2D, and a subtraction; oblique, of different planes and spacings, one with its slices in reverse."""


def study(modalities: Sequence[str] = ("t1", "t1c", "t2", "flair")) -> tuple[Scan, ...]:
    """Return `STUDY` with only some of the sequences; localizer and ADC map stay, the subtraction needs T1 and T1c."""
    return tuple(
        scan for scan in STUDY if scan.number in (1, 5) or all(image in modalities for image in scan.image.split("-"))
    )


def write_study(
    folder: str | Path,
    subject_dir: str | Path | Callable[[Scan], tuple[np.ndarray, np.ndarray]],
    scans: Sequence[Scan] = STUDY,
    patient: Mapping[str, str] = PATIENT,
    seed: str = "study",
) -> list[nib.Nifti1Image]:
    """Write a study into a folder, ``<folder>/<SeriesNumber>/<image>.dcm``, and return what is in it.

    Args:
        folder: made if need be; what is there stays.
        subject_dir: a subject of the phantom or of BraTS: ``<case>_t1.nii.gz``, ``_t1ce``, ``_t2``, ``_flair``; or what
            returns the image ``(columns, rows, slices)`` of a scan, and its affine.
        scans: the volumes.
        patient: PatientName, PatientID, PatientBirthDate.
        seed: of the UIDs; the same seed is the same StudyInstanceUID.

    Returns:
        For each scan the volume as it must be read: float32, rescaled, affine voxel -> RAS mm, its axes those of the
        columns, the rows and the slices, the latter in ascending order along the normal.
    """
    written = []
    for index, scan in enumerate(scans):
        image, affine = subject_dir(scan) if callable(subject_dir) else _acquire(Path(subject_dir), scan)
        stored = np.clip(np.round((image - INTERCEPT) / SLOPE), 0, 4095).astype(np.uint16)
        place = Path(folder, f"{scan.number:03d}")
        place.mkdir(parents=True, exist_ok=True)
        write = _write_multiframe if scan.multiframe else _write_slices
        write(place, scan, partial(_image, scan, index, seed, patient), stored, affine)
        written.append(nib.Nifti1Image((stored * SLOPE + INTERCEPT).astype(np.float32), affine))
    return written


def resample(image: nib.Nifti1Image, affine: np.ndarray, shape: Sequence[int], order: int = 1) -> np.ndarray:
    """Return an image on another grid, filled with its lowest value outside; use order 0 for label maps."""
    to_source = np.linalg.inv(image.affine) @ affine
    voxels = np.asanyarray(image.dataobj)
    return affine_transform(voxels, to_source[:3, :3], to_source[:3, 3], tuple(shape), order=order, cval=voxels.min())


def files(folder: str | Path, number: int) -> list[Path]:
    """Return the files of a series of a study; those of an axial one, not reversed, from the lowest slice up."""
    return sorted(Path(folder, f"{number:03d}").iterdir())


def edit(path: str | Path, change: Callable[[FileDataset], None]) -> None:
    """Change a file in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def edit_series(folder: str | Path, number: int, change: Callable[[FileDataset], None] | Mapping[str, Any]) -> None:
    """Change all files of a series of a study in place: by a function, or by new values of attributes."""
    for path in files(folder, number):
        edit(path, change if callable(change) else lambda dataset: dataset.update(dict(change)))


def _acquire(subject_dir: Path, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Return the image ``(columns, rows, slices)`` of a scan, and its affine."""
    parts = [nib.load(_file(subject_dir, name)) for name in scan.image.split("-")]
    tilt = Rotation.from_euler("xyz", scan.tilt, degrees=True).as_matrix()
    axes, spacing = tilt @ PLANES[scan.plane], np.array(scan.spacing, float)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in parts[0].shape])).reshape(3, -1).T
    extent = np.ptp(apply_affine(parts[0].affine, corners), axis=0)
    shape = np.ceil(np.abs(PLANES[scan.plane].T) @ extent / spacing - 1e-6).astype(int)
    if scan.slices:
        shape[2] = scan.slices
    middle = apply_affine(parts[0].affine, (np.array(parts[0].shape) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    seen = np.linalg.inv(_motion(scan, middle)) @ affine  # a voxel of the scan, where it was before the patient moved
    images = [resample(part, seen, shape).astype(np.float64) for part in parts]
    return images[0] if len(images) == 1 else np.maximum(images[0] - images[1], 0), affine


def _motion(scan: Scan, middle: np.ndarray) -> np.ndarray:
    motion = np.eye(4)
    if scan.moved:
        angles, shift = scan.moved
        motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        motion[:3, 3] = middle + shift - motion[:3, :3] @ middle
    return motion


def _file(subject_dir: Path, modality: str) -> Path:
    name = {"t1c": "t1ce"}.get(modality, modality)
    return next(subject_dir.glob(f"*_{name}.nii.gz"))


def _image(scan: Scan, index: int, seed: str, patient: Mapping[str, str], number: int) -> FileDataset:
    """Return the image ``number`` of the study's volume ``index``, without its pixels and its place."""
    header = {"ImageType": list(scan.image_type)} | ({} if scan.multiframe else dict(scan.header))
    dataset = mr_image(seed, scan.number, 1000 * index + number, scan.description, header)
    dataset.update(dict(patient))
    if scan.moved:
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[seed, f"moved {index}"])
    dataset.AccessionNumber, dataset.ProtocolName = ACCESSION, scan.description
    dataset.Manufacturer, dataset.ManufacturerModelName = "SIEMENS", "Phantom"
    dataset.BitsStored, dataset.HighBit = 12, 11
    return dataset


Made = Callable[[int], FileDataset]
"""Returns the image of a number, from 1 on, in its scan."""


def _geometry(affine: np.ndarray, spacing: Sequence[float]) -> tuple[list[float], Callable[[int], list[float]]]:
    """Return ImageOrientationPatient, and a function slice -> ImagePositionPatient; both in LPS."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    orientation = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]

    def position(k: int) -> list[float]:
        return _decimals(lps[:3, 3] + k * lps[:3, 2])

    return _decimals(orientation), position


def _decimals(values: Sequence[float]) -> list[float]:
    """Return numbers as far as a decimal string of 16 characters can represent them."""
    return [float(f"{value:.10f}") for value in values]


def _write_slices(place: Path, scan: Scan, made: Made, stored: np.ndarray, affine: np.ndarray) -> None:
    orientation, position = _geometry(affine, scan.spacing)
    count = stored.shape[2]
    for k in range(count):
        dataset = made(count - k if scan.reverse else k + 1)
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = orientation, position(k)
        dataset.PixelSpacing = [scan.spacing[1], scan.spacing[0]]
        dataset.SliceThickness = dataset.SpacingBetweenSlices = scan.spacing[2]
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = SLOPE, INTERCEPT, "US"
        _save(dataset, stored[:, :, k].T, scan, place)


def _write_multiframe(place: Path, scan: Scan, made: Made, stored: np.ndarray, affine: np.ndarray) -> None:
    """Write an Enhanced MR Image with the functional groups of a scanner, as far as they are read."""
    orientation, position = _geometry(affine, scan.spacing)
    dataset, header = made(1), dict(scan.header)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.ImageType = list(scan.image_type[:4])
    dataset.ContentQualification, dataset.AcquisitionContrast = "RESEARCH", "UNKNOWN"
    dataset.ComplexImageComponent, dataset.PixelPresentation = "MAGNITUDE", "MONOCHROME"
    dataset.VolumetricProperties, dataset.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    dataset.MRAcquisitionType = header.pop("MRAcquisitionType", "3D")
    scanning = np.atleast_1d(header.pop("ScanningSequence", "SE"))
    dataset.EchoPulseSequence = "GRADIENT" if "GR" in scanning else "SPIN"
    dataset.PulseSequenceName = header.pop("SequenceName", "")
    if "ContrastBolusAgent" in header:
        gadolinium = _item(CodeValue="105879004", CodingSchemeDesignator="SCT", CodeMeaning="Gadolinium")
        dataset.ContrastBolusAgentSequence = [gadolinium]
    timing = _item(RepetitionTime=float(header["RepetitionTime"]), FlipAngle=float(header["FlipAngle"]))
    modifier = _item(InversionRecovery="YES" if "IR" in scanning else "NO")
    if "InversionTime" in header:
        modifier.InversionTimes = float(header["InversionTime"])
    transform = _item(RescaleSlope=SLOPE, RescaleIntercept=INTERCEPT, RescaleType="US")
    measures = _item(
        PixelSpacing=[scan.spacing[1], scan.spacing[0]],
        SliceThickness=scan.spacing[2],
        SpacingBetweenSlices=scan.spacing[2],
    )
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[measures],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=orientation)],
            PixelValueTransformationSequence=[transform],
            MRTimingAndRelatedParametersSequence=[timing],
            MREchoSequence=[_item(EffectiveEchoTime=float(header["EchoTime"]))],
            MRModifierSequence=[modifier],
            MRImageFrameTypeSequence=[_item(FrameType=dataset.ImageType)],
        )
    ]
    count = stored.shape[2]
    order = list(range(count))[:: -1 if scan.reverse else 1]
    dataset.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=position(k))],
            FrameContentSequence=[
                _item(StackID="1", InStackPositionNumber=n, DimensionIndexValues=[1, n], TemporalPositionIndex=1)
            ],
        )
        for n, k in enumerate(order, start=1)
    ]
    dataset.NumberOfFrames = count
    dataset.AcquisitionDateTime = dataset.AcquisitionDate + dataset.AcquisitionTime
    _dimensions(dataset)
    _save(dataset, np.stack([stored[:, :, k].T for k in order]), scan, place)


def _dimensions(dataset: FileDataset) -> None:
    """Add the module that says how the frames of a multi-frame image are ordered."""
    uid = generate_uid(entropy_srcs=[dataset.SOPInstanceUID, "dimensions"])
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=uid)]
    dataset.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=uid, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
        for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
    ]


def _item(**values: Any) -> Dataset:
    item = Dataset()
    item.update(values)
    return item


def _save(dataset: FileDataset, pixels: np.ndarray, scan: Scan, place: Path) -> None:
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    if scan.transfer_syntax != ExplicitVRLittleEndian:
        dataset.compress(scan.transfer_syntax, generate_instance_uid=False)
    dataset.save_as(place / f"{dataset.InstanceNumber:06d}.dcm", enforce_file_format=True)


def read_series(folder: str | Path) -> list[Series]:
    """Return the MR series in a folder and its subfolders."""
    return read_all(folder)[0]


def read_back(path: Path, series) -> np.ndarray:
    """Return the segment numbers on the series' grid, ``(columns, rows, slices)``, by the references in the SEG."""
    seg = hd.seg.segread(path)
    options = {"combine_segments": True, "ignore_spatial_locations": False, "assert_missing_frames_are_empty": True}
    if series.multiframe:
        instance = pydicom.dcmread(series.files[0], stop_before_pixels=True).SOPInstanceUID
        return seg.get_pixels_by_source_frame(instance, [frame + 1 for frame in series.frames], **options).T
    instances = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series.files]
    return seg.get_pixels_by_source_instance(instances, **options).T
