"""The MR series of a study: grouping of files into volumes, their geometry, and what is wrong with them.

Messages never contain patients' names or dates, identifiers or UIDs; a series is named by its SeriesNumber.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from nibabel.affines import from_matvec
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)

from clinic.dicom.headers import MISSING, flat, items, number, numbers, quiet, text, texts, unlike_grey
from common.io.files import unread, walk
from common.io.geometry import require_plausible, require_shape

FARTHEST = 10_000.0  # maximum distance in mm of an image from the scanner's centre
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MULTIFRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file with such a suffix that is not a DICOM file is reported as damaged; files with other names are ignored."""
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "ImageType", "EchoTime", "DiffusionBValue",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "NumberOfFrames", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""Attributes that are read of every file; of a volume's first file all are."""
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Attributes without which an image cannot be assigned to a series or referenced."""
VARYING = (("ImageOrientationPatient", 6, 1e-3), ("PixelSpacing", 2, 1e-3), ("EchoTime", 1, 0.05))
"""What some scanners write a little otherwise in each image of a volume: name, count, tolerance (echo time in ms)."""


@dataclass(frozen=True, eq=False)
class Series:
    """A volume of a study: a DICOM series, or a part of a mixed one. Its repr tells nothing about the patient.

    Attributes:
        number: SeriesNumber; 0 if it is missing or not a number.
        uid: SeriesInstanceUID.
        files: files in the order of the slices, which ascends along the normal of ImageOrientationPatient; the single
            file of a multi-frame image.
        header: attributes of the first slice, without pixels. For a multi-frame image, those of its functional groups
            are moved to the top and named as in a single-frame image (EchoTime, InversionTime, ImageType, ...).
        frame_of_reference: FrameOfReferenceUID; empty if missing. Series with the same one share their coordinates.
        spacing: distances in mm between columns, rows and slices.
        shape: numbers of columns, rows and slices.
        affine: affine from voxel (column, row, slice) to mm, RAS as in NIfTI.
        multiframe: whether it is an enhanced multi-frame image.
        frames: frames (from 0) of a multi-frame image in the order of the slices; else empty.
        part: number, from 1, among the volumes with this SeriesNumber; 0 if it is the only one.
        problem: reason why it cannot be used as a volume, or None.
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
        """Name by which it is set by hand: its SeriesNumber, followed by a hyphen and its part if there are several."""
        return f"{self.number}-{self.part}" if self.part else str(self.number)

    @property
    def name(self) -> str:
        """Name of the series in messages."""
        return f"series {self.key}"


@dataclass(frozen=True, eq=False)
class _Slice:
    path: Path
    frame: int | None
    header: Dataset


@quiet()
def read_series(folder: str | Path) -> list[Series]:
    """Find the MR series in a folder and its subfolders, without reading pixels.

    A series that mixes orientations, matrices, echo times, b-values or image types is split. An instance that occurs
    twice is used once. A series in which two instances have one UID but different pixels cannot be used. What is wrong
    with a single series is stored in its `Series.problem`. Missing slices are noticed only between slices that are
    there. Returns the volumes, sorted by SeriesNumber. Raises ValueError if the folder has no DICOM file or no MR
    image, a damaged file, images without UIDs, or images of two patients or two studies.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM files of a study.")
    slices, others, patients, studies = [], Counter(), [], set()
    seen: dict[str, Path] = {}
    ambiguous, nameless = set(), Counter()
    for path, dataset in _datasets(folder):
        patients.append(_patient(dataset))
        uids = {name: text(dataset, name) for name in UIDS}
        if text(dataset, "SOPClassUID") not in (MRImageStorage, *MULTIFRAME):
            modality = text(dataset, "Modality")
            others[modality if re.fullmatch("[A-Z]{2,12}", modality) else "other"] += 1
        elif not all(uids.values()):
            nameless.update(name for name, uid in uids.items() if not uid)
        elif first := seen.get(uids["SOPInstanceUID"]):
            if not _same_pixels(first, path):
                ambiguous |= {first, path}
        else:
            seen[uids["SOPInstanceUID"]] = path
            studies.add(uids["StudyInstanceUID"])
            slices += _slices(path, dataset)
    if nameless:
        lacking = ", ".join(f"{count} MR images have no {name}" for name, count in nameless.items())
        raise ValueError(
            f"{folder}: {lacking}; expected valid UIDs in each. If they were removed to de-identify the images, "
            f"replace them instead; else {MISSING}."
        )
    _require_one_patient(folder, patients)
    if not slices:
        counted = ", ".join(f"{count} {modality}" for modality, count in sorted(others.items()))
        raise ValueError(f"{folder}: no MR image, only {counted}; expected the MR series of one study.")
    if len(studies) > 1:
        raise ValueError(
            f"{folder}: images of {len(studies)} studies; give the folder of one, or --each if every subfolder "
            "is a study."
        )
    return _numbered([_series(volume, ambiguous) for volume in _volumes(slices)])


def _datasets(folder: str | Path) -> Iterable[tuple[Path, Dataset]]:
    """Yield the DICOM files with their attributes in `TAGS`."""
    paths = walk(folder)
    damaged, bare, closed, read = [], [], [], 0
    for path in paths:
        try:
            with path.open("rb"):
                pass
        except OSError:
            closed.append(path)
            continue
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            whole = bool(text(dataset, "SOPClassUID"))
            if whole and not text(dataset.file_meta, "TransferSyntaxUID"):
                bare.append(path)
                continue
        except InvalidDicomError:
            if _starts_like_dicom(path):
                bare.append(path)
                continue
            dataset, whole = None, False
        except Exception:  # pydicom raises anything on damaged bytes
            dataset, whole = Dataset(), False
        if whole:
            read += 1
            yield path, dataset
        elif path.suffix.lower() in SUFFIXES or (dataset is not None and path.name.upper() != "DICOMDIR"):
            damaged.append(path)
    for unusable, what, remedy in (
        (closed, "cannot be opened", "make all of them readable (chmod -R u+rX)"),
        (
            bare,
            "hold DICOM data without the preamble and meta information of a file",
            "export them as DICOM files again (dcmconv of DCMTK adds what is missing)",
        ),
        (damaged, "are damaged DICOM files", MISSING),
    ):
        if unusable:  # file names may contain patients' names
            raise (PermissionError if unusable is closed else ValueError)(
                f"{folder}: {len(unusable)} of {len(paths)} files {what}, the first is number "
                f"{paths.index(unusable[0]) + 1} in alphabetical order; {remedy}, or remove them."
            )
    if not read:
        index = ["a DICOMDIR is only an index: copy the folders beside it too"]
        other = [*(index if any(path.name.upper() == "DICOMDIR" for path in paths) else []), *unread(paths)]
        raise ValueError(
            f"{folder}: none of its {len(paths)} files is a DICOM file; expected those of a study"
            f"{''.join(f'; {text}' for text in other)}."
        )


def _starts_like_dicom(path: Path) -> bool:
    """Return whether a file without a preamble begins with an attribute of group 0002 or 0008, as DICOM data do."""
    with path.open("rb") as file:
        start = file.read(8)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return start[:2] in (b"\x02\0", b"\x08\0") and (explicit or start[6:8] == b"\0\0") and len(start) == 8


def _patient(dataset: Dataset) -> tuple[str, str, str]:
    name = " ".join(text(dataset, "PatientName").replace("^", " ").split()).casefold()
    return text(dataset, "PatientID").strip(), name, text(dataset, "PatientBirthDate")


def _require_one_patient(folder: str | Path, patients: Sequence[tuple[str, str, str]]) -> None:
    """Refuse two patients, which differ in identifier, name or date of birth; missing values are ignored."""
    counts = [len({value for value in values if value}) for values in zip(*set(patients), strict=True)]
    if max(counts) > 1:
        what = [name for name, count in zip(("ID", "name", "date of birth"), counts, strict=True) if count > 1]
        raise ValueError(
            f"{folder}: images of {max(counts)} patients (by {', '.join(what)}); give the folder of one study."
        )


def _slices(path: Path, dataset: Dataset) -> list[_Slice]:
    if text(dataset, "SOPClassUID") not in MULTIFRAME:
        return [_Slice(path, None, dataset)]
    frames = items(dataset, "PerFrameFunctionalGroupsSequence") or [Dataset()]
    return [_Slice(path, frame, flat(dataset, frame)) for frame in range(len(frames))]


def _volumes(slices: Sequence[_Slice]) -> list[list[_Slice]]:
    """Group slices into volumes."""
    groups: dict[Any, list[list[_Slice]]] = defaultdict(list)
    for piece in slices:
        header = piece.header
        key = (
            text(header, "SeriesInstanceUID"),
            piece.path if piece.frame is not None else None,
            text(header, "FrameOfReferenceUID"),
            tuple(texts(header, "ImageType")),
            *(number(header, name) for name in ("Rows", "Columns", "DiffusionBValue")),
        )
        for volume in groups[key]:
            if _same_volume(volume[0].header, header):
                volume.append(piece)
                break
        else:
            groups[key].append([piece])
    return [volume for volumes in groups.values() for volume in volumes]


def _same_volume(first: Dataset, other: Dataset) -> bool:
    return all(
        np.allclose(*(_or(numbers(header, name, count), np.zeros(count)) for header in (first, other)), atol=tolerance)
        for name, count, tolerance in VARYING
    )


def _or(values: np.ndarray | None, default: Sequence[float]) -> np.ndarray:
    """Return values; if they are None, a default, with which the series is kept but cannot be used."""
    return np.array(default, float) if values is None else values


def _same_pixels(path: Path, other: Path) -> bool:
    """Return whether two files with one UID hold the same pixels, even if one of them is compressed."""
    try:
        first, second = pydicom.dcmread(path), pydicom.dcmread(other)
        return first.PixelData == second.PixelData or np.array_equal(first.pixel_array, second.pixel_array)
    except OSError:
        raise
    except Exception:  # pydicom raises anything on damaged bytes
        return False


def _series(volume: list[_Slice], ambiguous: Collection[Path]) -> Series:
    header = volume[0].header
    orientation = _or(numbers(header, "ImageOrientationPatient", 6), [1, 0, 0, 0, 1, 0]).reshape(2, 3)
    normal = np.cross(*orientation)
    positions = np.array([_or(numbers(piece.header, "ImagePositionPatient", 3), [np.nan] * 3) for piece in volume])
    order = np.argsort(positions @ normal, kind="stable")
    volume, positions = [volume[k] for k in order], positions[order]
    header, whole = _whole_header(volume[0])
    rows, columns = _or(numbers(header, "PixelSpacing", 2), [1, 1]).tolist()
    steps = len(volume) - 1
    step = (positions[-1] - positions[0]) / steps if steps else normal * (number(header, "SliceThickness") or 1)
    shape = (int(number(header, "Columns") or 0), int(number(header, "Rows") or 0), len(volume))
    affine = LPS_TO_RAS @ from_matvec(
        np.stack([orientation[0] * columns, orientation[1] * rows, step], axis=1), positions[0]
    )
    problem = (
        (None if whole else f"the header of its first image is damaged; {MISSING}")
        or _ambiguous(volume, ambiguous)
        or _unlike_grey(volume)
        or _why_no_grid(header, orientation, positions, (columns, rows))
        or _implausible(shape, affine)
    )
    multiframe = volume[0].frame is not None
    return Series(
        number=int(number(header, "SeriesNumber") or 0),
        uid=text(header, "SeriesInstanceUID"),
        files=tuple(piece.path for piece in volume[: 1 if multiframe else None]),
        header=header,
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        spacing=(columns, rows, float(np.linalg.norm(step))),
        shape=shape,
        affine=np.eye(4) if problem else affine,
        multiframe=multiframe,
        frames=tuple(piece.frame for piece in volume) if multiframe else (),
        problem=problem,
    )


def _whole_header(piece: _Slice) -> tuple[Dataset, bool]:
    """Return all attributes of an image except its pixels, and True; if it is damaged, those in `TAGS`, and False."""
    try:
        dataset = pydicom.dcmread(piece.path, stop_before_pixels=True)
        return (dataset if piece.frame is None else flat(dataset, piece.frame)), True
    except Exception:  # pydicom raises anything on damaged bytes
        return piece.header, False


def _ambiguous(volume: Sequence[_Slice], ambiguous: Collection[Path]) -> str | None:
    count = len({piece.path for piece in volume} & {*ambiguous})
    if not count:
        return None
    return f"{count} of its images share their SOPInstanceUID with a file of other pixels; {MISSING}"


def _unlike_grey(volume: Sequence[_Slice]) -> str | None:
    """Return why the pixels of a volume cannot be used as grey values; None if they can, according to the headers."""
    reasons = [reason for piece in volume if (reason := unlike_grey(piece.header))]
    return f"{len(reasons)} of its {len(volume)} images {reasons[0]}" if reasons else None


def _implausible(shape: tuple[int, int, int], affine: np.ndarray) -> str | None:
    """Return why no image of a person has this shape and affine, or None."""
    try:
        require_shape(shape)
        require_plausible(affine, shape)
    except ValueError as error:
        return str(error)
    return None


def _numbered(volumes: Sequence[Series]) -> list[Series]:
    """Sort volumes by number, and number the parts of those that share one."""
    counts = Counter(volume.number for volume in volumes)
    parts: Counter[int] = Counter()
    numbered = []
    for volume in sorted(volumes, key=lambda volume: volume.number):
        parts[volume.number] += 1
        numbered.append(replace(volume, part=parts[volume.number] if counts[volume.number] > 1 else 0))
    return numbered


def _why_no_grid(
    header: Dataset, orientation: np.ndarray, positions: np.ndarray, pixel: tuple[float, float]
) -> str | None:
    """Return why slices, sorted along the normal, do not form a regular grid; None if they do.

    ``header`` is that of the first slice. ``orientation`` ``(2, 3)`` are the directions of rows and columns,
    ``positions`` ``(N, 3)`` those of the slices' first pixels in mm, ``pixel`` the distances in mm between columns and
    between rows.
    """
    geometry = {"ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
    wrong = [name for name, count in geometry.items() if numbers(header, name, count) is None]
    if wrong:
        return (
            "its images do not state their position in space or their size "
            f"({', '.join(wrong)}: missing, or the wrong number of values)"
        )
    if min(pixel) <= 0:
        return "its pixels have no size (PixelSpacing)"
    if not np.isfinite(positions).all():
        return "some of its images do not state their position in space (ImagePositionPatient)"
    if np.abs(positions).max() > FARTHEST:
        return f"some of its images lie over {FARTHEST / 1000:g} m from the scanner's centre (ImagePositionPatient)"
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-3):
        return (
            "the directions of its rows and columns are not at right angles, or not of length 1 "
            "(ImageOrientationPatient)"
        )
    if text(header, "SOPClassUID") == MRImageStorage and (number(header, "NumberOfFrames") or 1) > 1:
        return "a single-frame MR image with several frames, which DICOM does not allow"
    if len(positions) < 2:
        return "it has a single slice"
    sideways = (positions - positions[0]) @ orientation.T
    return _uneven(header, positions @ np.cross(*orientation)) or _displaced(sideways, pixel)


def _uneven(header: Dataset, along: np.ndarray) -> str | None:
    """Return why slices at these positions in mm along their normal are not equally spaced, or None."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    tolerance = 0.01 + 0.01 * usual  # in mm, since positions are written with two or more decimals
    if gaps.min() < 0.01:
        count = int((gaps < 0.01).sum())
        return (
            f"{count} of its {len(along)} images lie at the position of another one "
            "(several time points, or two acquisitions in one series)"
        )
    holes = [round(gap / usual) - 1 for gap in gaps if gap > usual + tolerance]
    whole = all(abs(gap / usual - round(gap / usual)) * usual <= round(gap / usual) * tolerance for gap in gaps)
    if holes and whole:
        at = int(np.argmax(gaps > usual + tolerance)) + 1
        return f"{sum(holes)} of {len(along) + sum(holes)} slices are missing, the first after slice {at}; {MISSING}"
    if np.abs(gaps - usual).max() > tolerance:
        return f"the distance between its slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm"
    stated = number(header, "SpacingBetweenSlices")
    times = round(usual / stated) if stated and stated > 0.01 else 1
    # Some scanners write the gap between slices here instead of the distance between their centres.
    is_gap = times > 2 and abs(stated + (number(header, "SliceThickness") or 0) - usual) <= tolerance
    if times >= 2 and abs(usual / stated - times) <= 0.01 * times and not is_gap:
        return (
            f"its slices lie {usual:.2f} mm apart, but SpacingBetweenSlices is {stated:.2f} mm: only one in {times} is "
            f"present; {MISSING}"
        )
    return None


def _displaced(sideways: np.ndarray, pixel: tuple[float, float]) -> str | None:
    """Return why slices do not form a block, given their shifts ``(N, 2)`` in mm along rows and columns; else None."""
    if np.abs(sideways[-1]).max() > 0.5 * min(pixel):
        return "its slices are shifted against each other, as with a tilted gantry"
    displaced = np.abs(sideways - np.linspace(0, 1, len(sideways))[:, None] * sideways[-1]).max(axis=1)
    if displaced.max() > 0.5 * min(pixel):
        count = int((displaced > 0.5 * min(pixel)).sum())
        return f"{count} of its {len(sideways)} slices lie beside the others, by up to {displaced.max():.2f} mm"
    return None
