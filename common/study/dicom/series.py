"""The MR series of a study: which files belong together, where they lie in space, what is wrong with them.

Names and dates of patients, identifiers and UIDs are never put into messages; a series is named by its SeriesNumber.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale, get_decoder
from pydicom.uid import EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from common.study.dicom.headers import number, numbers, quiet

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MULTIFRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file of such a name that is no DICOM file is damaged; others are taken for something else."""

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "ImageType", "EchoTime", "DiffusionBValue",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "SamplesPerPixel", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""What is read of every file; of the first one of a volume all is."""
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Without these an image belongs to nothing, and nothing can refer to it."""

MISSING = "copy the study again from where it came from"


@dataclass(frozen=True, eq=False)
class Series:
    """A volume of a study: a DICOM series, or a part of one that mixes several. Its repr tells nothing of the patient.

    Attributes:
        number: SeriesNumber; 0 if there is none, or no number.
        uid: SeriesInstanceUID.
        files: in the order of the slices, which ascends along the normal of ImageOrientationPatient. Of a multi-frame
            image the one file.
        header: the first slice's attributes, without pixels. Of a multi-frame image those of its functional groups are
            moved to the top and named as in a single-frame one (EchoTime, InversionTime, ImageType, ...).
        frame_of_reference: FrameOfReferenceUID, empty if there is none. Series with the same one share their space.
        spacing: mm between columns, rows and slices.
        shape: columns, rows, slices.
        affine: voxel (column, row, slice) -> mm, RAS as in NIfTI.
        multiframe: whether it is an enhanced multi-frame image.
        frames: of a multi-frame image the frames (from 0) in the order of the slices, else empty.
        part: which of the volumes with this SeriesNumber it is, from 1; 0 if it is the only one.
        problem: why it cannot be used as a volume, if so.
    """

    number: int
    uid: str = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    header: Dataset = field(repr=False)
    frame_of_reference: str = field(repr=False)
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    affine: np.ndarray
    multiframe: bool
    frames: tuple[int, ...] = ()
    part: int = 0
    problem: str | None = None

    @property
    def key(self) -> str:
        """How it is set by hand: its SeriesNumber, and after a hyphen its part if there are several."""
        return f"{self.number}-{self.part}" if self.part else str(self.number)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"series {self.key}"


@dataclass(frozen=True, eq=False)
class _Slice:
    path: Path
    frame: int | None
    header: Dataset


@quiet()
def read_study(folder: str | Path) -> list[Series]:
    """Find the MR series in a folder and below it; pixels are not read.

    A series that mixes orientations, matrices, echo times, b-values or image types is split. An instance that lies
    there twice is taken once. What is wrong with a single series is said in its `Series.problem`; missing slices are
    seen where others lie on both sides of them.

    Returns:
        The volumes by SeriesNumber.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no DICOM file or no MR image, a damaged file, images without UIDs, images of two patients,
            or two studies.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM files of a study.")
    slices, others, patients, studies = [], Counter(), [], set()
    seen, nameless = set(), Counter()
    for path, dataset in _datasets(folder):
        patients.append(_patient(dataset))
        if dataset.SOPClassUID not in (MRImageStorage, *MULTIFRAME):
            others[dataset.get("Modality", "other")] += 1
        elif any(not dataset.get(name) for name in UIDS):
            nameless.update(name for name in UIDS if not dataset.get(name))
        elif dataset.SOPInstanceUID not in seen:
            seen.add(dataset.SOPInstanceUID)
            studies.add(dataset.StudyInstanceUID)
            slices += _slices(path, dataset)
    if nameless:
        found = ", ".join(f"{count} MR images have no {name}" for name, count in nameless.items())
        raise ValueError(
            f"{folder}: {found}; expected one in each. Where they were taken out to remove the patient's identity, "
            f"replace them instead; else {MISSING}."
        )
    _require_one_patient(folder, patients)
    if not slices:
        found = ", ".join(f"{count} {modality}" for modality, count in sorted(others.items()))
        raise ValueError(f"{folder}: no MR image, only {found}; expected the MR series of one study.")
    if len(studies) > 1:
        raise ValueError(
            f"{folder}: images of {len(studies)} studies; give the folder of one, or move the others away."
        )
    return _numbered([_series(volume) for volume in _volumes(slices)])


@quiet()
def load(series: Series) -> nib.Nifti1Image:
    """Read the pixels: float32 ``(columns, rows, slices)``, rescaled as the files say, with the affine of the series.

    ITK reads what it can decode; multi-frame images and other compressions go through pydicom's plugins.

    Raises:
        ValueError: the series has a problem, its compression cannot be decoded (the message says what to install), or
            its pixels are damaged.
    """
    if series.problem:
        raise ValueError(f"{series.name}: {series.problem}.")
    voxels = _pixels(series)
    if voxels.shape != series.shape or not np.isfinite(voxels).all():
        raise ValueError(f"{series.name}: its pixels are not {series.shape} finite numbers; {MISSING}.")
    return nib.Nifti1Image(voxels, series.affine)


def _datasets(folder: str | Path) -> Iterable[tuple[Path, Dataset]]:
    """Yield the DICOM files with what is read of them."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.is_file() and not p.name.startswith("."))
    damaged, read = [], 0
    for path in paths:
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            whole = bool(dataset.get("SOPClassUID"))
        except InvalidDicomError:
            dataset, whole = None, False
        except Exception:  # pydicom raises anything on damaged bytes
            dataset, whole = Dataset(), False
        if whole:
            read += 1
            yield path, dataset
        elif path.suffix.lower() in SUFFIXES or (dataset is not None and path.name.upper() != "DICOMDIR"):
            damaged.append(path)
    if damaged:
        # Names of files may be names of patients.
        raise ValueError(
            f"{folder}: {len(damaged)} of {len(paths)} files are damaged DICOM files, the first is number "
            f"{paths.index(damaged[0]) + 1} in alphabetical order; {MISSING}, or take them out."
        )
    if not read:
        raise ValueError(f"{folder}: none of its {len(paths)} files is a DICOM file; expected those of a study.")


def _patient(dataset: Dataset) -> tuple[str, str, str]:
    name = " ".join(str(dataset.get("PatientName") or "").replace("^", " ").split()).casefold()
    return str(dataset.get("PatientID") or "").strip(), name, str(dataset.get("PatientBirthDate") or "")


def _require_one_patient(folder: str | Path, patients: Sequence[tuple[str, str, str]]) -> None:
    """Refuse two patients: an identifier, name or date of birth that differs; one that is left out does not."""
    counts = [len({value for value in values if value}) for values in zip(*set(patients), strict=True)]
    if max(counts) > 1:
        what = [name for name, count in zip(("ID", "name", "date of birth"), counts, strict=True) if count > 1]
        raise ValueError(
            f"{folder}: images of {max(counts)} patients (by {', '.join(what)}); give the folder of one study."
        )


def _slices(path: Path, dataset: Dataset) -> list[_Slice]:
    if dataset.SOPClassUID not in MULTIFRAME:
        return [_Slice(path, None, dataset)]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    return [_Slice(path, frame, _flat(dataset, frame)) for frame in range(len(frames))]


def _flat(dataset: Dataset, frame: int) -> Dataset:
    """Return a frame of a multi-frame image as if it were an image by itself."""
    flat, groups = Dataset(), []
    flat.update(dataset)  # as it lies in the file: conversion stops at the first value that is malformed
    for name, index in {"SharedFunctionalGroupsSequence": 0, "PerFrameFunctionalGroupsSequence": frame}.items():
        if name in dataset:
            groups += (dataset[name].value or [])[index : index + 1]
            del flat[name]
    for group in groups:
        for macro in group:
            if macro.VR == "SQ" and macro.value and not macro.tag.is_private:
                flat.update(macro.value[0])
    for ours, theirs in {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}.items():
        if theirs in flat:
            setattr(flat, ours, number(flat, theirs))
    for ours, theirs in {"ImageType": "FrameType", "SequenceName": "PulseSequenceName"}.items():
        if theirs in flat:
            setattr(flat, ours, flat[theirs].value)
    sequence = {"GRADIENT": ["GR"], "SPIN": ["SE"], "BOTH": ["GR", "SE"]}.get(flat.get("EchoPulseSequence"), [])
    sequence += ["IR"] * (flat.get("InversionRecovery") == "YES")
    sequence += ["EP"] * (flat.get("EchoPlanarPulseSequence") == "YES")
    if sequence:
        flat.ScanningSequence = sequence
    agents = flat.get("ContrastBolusAgentSequence")
    if agents and "ContrastBolusAgent" not in flat:
        flat.ContrastBolusAgent = agents[0].get("CodeMeaning", "contrast agent")
    return flat


def _volumes(slices: Sequence[_Slice]) -> list[list[_Slice]]:
    """Sort slices into volumes."""
    groups: dict[Any, list[list[_Slice]]] = defaultdict(list)
    for piece in slices:
        header = piece.header
        key = (
            header.SeriesInstanceUID,
            piece.path if piece.frame is not None else None,
            str(header.get("FrameOfReferenceUID")),
            tuple(header.get("ImageType") or ()),
            *(number(header, name) for name in ("Rows", "Columns", "EchoTime", "DiffusionBValue")),
        )
        for volume in groups[key]:
            if _same_plane(volume[0].header, header):
                volume.append(piece)
                break
        else:
            groups[key].append([piece])
    return [volume for volumes in groups.values() for volume in volumes]


def _same_plane(one: Dataset, other: Dataset) -> bool:
    return all(
        np.allclose(*(_or(numbers(header, name, count), np.zeros(count)) for header in (one, other)), atol=1e-3)
        for name, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )


def _or(values: np.ndarray | None, default: Sequence[float]) -> np.ndarray:
    """Return values, or what stands for them in a series that cannot be used without them."""
    return np.array(default, float) if values is None else values


def _series(volume: list[_Slice]) -> Series:
    header = volume[0].header
    orientation = _or(numbers(header, "ImageOrientationPatient", 6), [1, 0, 0, 0, 1, 0]).reshape(2, 3)
    normal = np.cross(*orientation)
    positions = np.array([_or(numbers(piece.header, "ImagePositionPatient", 3), [np.nan] * 3) for piece in volume])
    order = np.argsort(positions @ normal, kind="stable")
    volume, positions = [volume[k] for k in order], positions[order]
    header = _whole_header(volume[0])
    rows, columns = _or(numbers(header, "PixelSpacing", 2), [1, 1]).tolist()
    steps = len(volume) - 1
    step = (positions[-1] - positions[0]) / steps if steps else normal * (number(header, "SliceThickness") or 1)
    problem = _problem(header, orientation, positions, (columns, rows))
    affine = np.eye(4)
    if problem is None:
        affine[:3, :3] = np.stack([orientation[0] * columns, orientation[1] * rows, step], axis=1)
        affine[:3, 3] = positions[0]
        affine = LPS_TO_RAS @ affine
    multiframe = volume[0].frame is not None
    return Series(
        number=int(number(header, "SeriesNumber") or 0),
        uid=str(header.SeriesInstanceUID),
        files=tuple(piece.path for piece in volume[: 1 if multiframe else None]),
        header=header,
        frame_of_reference=str(header.get("FrameOfReferenceUID") or ""),
        spacing=(columns, rows, float(np.linalg.norm(step))),
        shape=(int(number(header, "Columns") or 0), int(number(header, "Rows") or 0), len(volume)),
        affine=affine,
        multiframe=multiframe,
        frames=tuple(piece.frame for piece in volume) if multiframe else (),
        problem=problem,
    )


def _whole_header(piece: _Slice) -> Dataset:
    dataset = pydicom.dcmread(piece.path, stop_before_pixels=True)
    return dataset if piece.frame is None else _flat(dataset, piece.frame)


def _problem(header: Dataset, orientation: np.ndarray, positions: np.ndarray, pixel: tuple[float, float]) -> str | None:
    """Say why slices, sorted along the normal, are no volume on a regular grid; None if they are one."""
    geometry = {"ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
    wrong = [name for name, count in geometry.items() if numbers(header, name, count) is None]
    if wrong:
        return (
            "its images do not say where they lie in space or how large they are "
            f"({', '.join(wrong)}: missing, or not as many numbers as expected)"
        )
    if min(pixel) <= 0:
        return "its pixels have no size (PixelSpacing)"
    if not np.isfinite(positions).all():
        return "some of its images do not say where they lie in space (ImagePositionPatient)"
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-3):
        return "the directions of its rows and columns are not at right angles"
    if number(header, "SamplesPerPixel") not in (None, 1):
        return "its images are in colour"
    if header.SOPClassUID == MRImageStorage and (number(header, "NumberOfFrames") or 1) > 1:
        return "a single-frame MR image with several frames, which DICOM does not know"
    if len(positions) < 2:
        return "it has a single slice"
    along = positions @ np.cross(*orientation)
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    tolerance = 0.01 + 0.01 * usual  # mm; positions are written with two decimals or more
    if gaps.min() < 0.01:
        count = int((gaps < 0.01).sum())
        return (
            f"{count} of its {len(positions)} images lie where another one lies "
            "(several time points, or two acquisitions in one series)"
        )
    holes = [round(gap / usual) - 1 for gap in gaps if gap > usual + tolerance]
    whole = all(abs(gap / usual - round(gap / usual)) * usual <= round(gap / usual) * tolerance for gap in gaps)
    if holes and whole:
        at = int(np.argmax(gaps > usual + tolerance)) + 1
        return (
            f"{sum(holes)} of {len(positions) + sum(holes)} slices are missing, the first after slice {at}; {MISSING}"
        )
    if np.abs(gaps - usual).max() > tolerance:
        return f"the distance between its slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm"
    stated = number(header, "SpacingBetweenSlices")
    times = round(usual / stated) if stated and stated > 0 else 1
    # Some scanners write the gap between slices there, not the distance from one to the next.
    is_gap = times > 2 and abs(stated + (number(header, "SliceThickness") or 0) - usual) <= tolerance
    if times >= 2 and abs(usual / stated - times) <= 0.01 * times and not is_gap:
        return (
            f"its slices lie {usual:.2f} mm apart, but by SpacingBetweenSlices {stated:.2f} mm: only one in {times} is "
            f"there; {MISSING}"
        )
    sideways = (positions - positions[0]) @ orientation.T
    if np.abs(sideways[-1]).max() > 0.5 * min(pixel):
        return "its slices are shifted against each other, as with a tilted gantry"
    displaced = np.abs(sideways - np.linspace(0, 1, len(positions))[:, None] * sideways[-1]).max(axis=1)
    if displaced.max() > 0.5 * min(pixel):
        count = int((displaced > 0.5 * min(pixel)).sum())
        return f"{count} of its {len(positions)} slices lie beside the others, by up to {displaced.max():.2f} mm"
    return None


def _numbered(volumes: Sequence[Series]) -> list[Series]:
    """Sort volumes by number, and count those that share one."""
    counts = Counter(volume.number for volume in volumes)
    parts: Counter[int] = Counter()
    numbered = []
    for volume in sorted(volumes, key=lambda volume: volume.number):
        parts[volume.number] += 1
        numbered.append(replace(volume, part=parts[volume.number] if counts[volume.number] > 1 else 0))
    return numbered


def _pixels(series: Series) -> np.ndarray:
    if not series.multiframe:
        with suppress(RuntimeError):  # a compression that ITK cannot decode, or damaged pixels
            return _with_itk(series)
    try:
        return _with_pydicom(series)
    except Exception:  # every plugin raises its own kinds, and what they say may quote the header
        raise ValueError(f"{series.name}: {_undecodable(series.files[0])}.") from None


def _with_itk(series: Series) -> np.ndarray:
    reader = itk.ImageSeriesReader[itk.Image[itk.F, 3]].New(
        FileNames=[str(path) for path in series.files], ImageIO=itk.GDCMImageIO.New()
    )
    reader.Update()
    return itk.array_from_image(reader.GetOutput()).T


def _with_pydicom(series: Series) -> np.ndarray:
    datasets = [pydicom.dcmread(path) for path in series.files]
    if series.multiframe:
        stored = datasets[0].pixel_array
        planes = [apply_rescale(stored[frame], _flat(datasets[0], frame)) for frame in series.frames]
    else:
        planes = [apply_rescale(dataset.pixel_array, dataset) for dataset in datasets]
    return np.stack([plane.T for plane in planes], axis=2).astype(np.float32)


def _undecodable(path: Path) -> str:
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    try:
        available = not syntax.is_encapsulated or get_decoder(syntax).is_available
    except NotImplementedError:
        return f"compressed as {syntax.name}, which is not known here; send it uncompressed (Explicit VR Little Endian)"
    if available:
        return f"its pixels are damaged or cut off; {MISSING}"
    return (
        f'compressed as {syntax.name}, for which no decoder is installed: pip install "missing-modality-bundles[dicom]"'
    )
