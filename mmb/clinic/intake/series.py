"""The MR series of a study: grouping of files into volumes, their geometry, and what is wrong with them.

Messages never contain patients' names or dates, identifiers or UIDs; a series is named by its SeriesNumber.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
from nibabel.affines import apply_affine, from_matvec
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from common.io.files import is_strange, unread, walk
from common.io.geometry import require_plausible, require_shape
from common.text import shortened
from mmb.clinic.intake.completeness import Present, doubt, parts_by_description, present, why_incomplete
from mmb.clinic.intake.field_of_view import holds_head
from mmb.clinic.intake.grouping import Slice, Volume, group, not_one, positions
from mmb.clinic.intake.headers import (
    MISSING,
    ONE_UID,
    ONLY_A_PART,
    flatten_frame,
    items,
    number,
    numbers,
    patient,
    require_one_patient,
    text,
    unlike_grey,
)
from mmb.clinic.intake.regular_grid import unrounded, why_no_grid
from mmb.errors import EACH, StudyError

SAME_SLICE = 0.25  # distance, in gaps between slices, up to which an image lies at the place of a slice
LOSSY = "its pixels were compressed with loss (LossyImageCompression), so small parts may be blurred or missing"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MULTIFRAME = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
SUFFIXES = (".dcm", ".dicom", ".ima")
"""A file with such a suffix that is not a DICOM file is damaged."""
MOST_STRANGE = 0.1
"""Share of a folder's files, of those that are or may have been DICOM files, from which on so many are missing that
none of its series is whole."""
TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID",
    "StudyDate",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID", "ImageType",
    "ComplexImageComponent", "InstanceNumber", "InConcatenationNumber", "EchoTime", "RepetitionTime",
    "InversionTime", "FlipAngle", "DiffusionBValue", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope",
    "RescaleIntercept", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
"""Attributes that are read of every file; of a volume's first file all are."""
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Attributes without which an image cannot be assigned to a series or referenced."""


@dataclass(frozen=True, eq=False)
class Series:
    """A volume of a study: a DICOM series, or a part of a mixed one. Its repr tells nothing about the patient.

    ``files`` are those of the slices, in their order along the normal of ImageOrientationPatient; a single one if all
    are its frames. ``header`` has the attributes, without pixels, of the first slice, or that of the largest original
    part; of a multi-frame image named as in a single-frame one (EchoTime, ImageType, ...).
    """

    number: int  # SeriesNumber; 0 if it is missing or not a number
    uid: str = field(repr=False)
    files: tuple[Path, ...] = field(repr=False)
    header: Dataset = field(repr=False)
    frame_of_reference: str = field(repr=False)  # empty if missing; series of one share coordinates
    spacing: tuple[float, float, float]  # distances in mm between columns, rows and slices
    shape: tuple[int, int, int]  # columns, rows, slices
    affine: np.ndarray  # from voxel to mm, RAS as in NIfTI
    multiframe: bool  # slices are frames of enhanced multi-frame images
    frames: tuple[int | None, ...] = ()  # if so, that of each slice in its file, from 0; None for a single-frame image
    part: int = 0  # from 1, among the volumes with this SeriesNumber; 0 if it is the only one
    problem: str | None = None  # why it cannot be used as a volume
    differ: tuple[str, ...] = ()  # attributes in which the parts differ that it was joined of
    doubt: str = ""  # why it may lack images or detail
    parts: tuple[Dataset, ...] = field(default=(), repr=False)  # headers of the smaller parts of an unusable mixture

    @property
    def key(self) -> str:
        """Name by which it is set by hand: its SeriesNumber, followed by a hyphen and its part if there are several."""
        return f"{self.number}-{self.part}" if self.part else str(self.number)

    @property
    def slices(self) -> list[tuple[Path, int | None]]:
        """The file of each slice, and its frame in a multi-frame image (from 0)."""
        count = self.shape[2]
        files = self.files if len(self.files) == count else self.files * count
        return [*zip(files, self.frames or [None] * count, strict=True)]

    @property
    def name(self) -> str:
        """Name of the series in messages."""
        return f"series {self.key}"


Others = Mapping[tuple[int, str], Sequence[Path]]
"""SeriesNumber and class of DICOM objects that are no MR images -> their files."""


def read_all(folder: str | Path, files: Sequence[Path] | None = None) -> tuple[list[Series], Others]:
    """Find the MR series in a folder and its subfolders, without reading pixels, and what else lies there, by number.

    A mixed series is split, unless the parts make up one volume (`mmb.clinic.intake.grouping`). An instance that occurs
    twice is used once. What is wrong with a single series is stored in its `Series.problem`. ``files`` are all files in
    the folder, if they are known. Raises StudyError if the folder has no DICOM file or no MR image, a damaged file,
    images without UIDs, or images of two patients or two studies.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with the DICOM files of a study.")
    slices, patients, studies = [], [], set()
    others: dict[tuple[int, str], list[Path]] = defaultdict(list)
    seen: dict[str, Path] = {}
    nameless: Counter[str] = Counter()
    ambiguous, unlike = set(), []
    for path, dataset in _datasets(folder, walk(folder) if files is None else files):
        patients.append(patient(dataset))
        uids = {name: text(dataset, name) for name in UIDS}
        if text(dataset, "SOPClassUID") not in (MRImageStorage, *MULTIFRAME):
            uid = UID(text(dataset, "SOPClassUID"))  # which messages never show, since DICOM need not know it
            kind = uid.name.removesuffix(" Storage") if uid.name != uid else "object of an unknown class"
            others[int(number(dataset, "SeriesNumber") or 0), kind].append(path)
            unlike.append(dataset)
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
        removed = f"If they were removed to de-identify the images, replace them instead; else {MISSING}"
        raise StudyError.of(folder, f"{lacking}; expected valid UIDs in each. {removed}.", code="unread")
    require_one_patient(folder, patients)
    others = dict(sorted(others.items()))
    if not slices:
        listed = shortened(f"{len(paths)} {kind} (series {key})" for (key, kind), paths in others.items())
        expected = f"the MR series of one study, as {MRImageStorage.name} or {EnhancedMRImageStorage.name}"
        raise StudyError.of(folder, f"no MR image, only {listed}; expected {expected}.", code="no_mr_image")
    if 1 < len(studies) == len(seen):
        own = f"each of the {len(seen)} MR images has a StudyInstanceUID of its own"
        raise StudyError.of(folder, f"{own}; {ONE_UID.format('study')}.", code="several_studies")
    if len(studies) > 1 and not _one_examination(slices):
        only = "Only series of one date that share their frames of reference are one study"
        what = f"images of {len(studies)} studies; give the folder of one. {only}."
        raise StudyError.of(folder, what, code="several_studies", command=EACH)
    here = present(slices, unlike)
    found = [_series(volume, ambiguous, here) for volume in group(slices)]
    said = [text(series.header, "SeriesDescription") for series in found]
    parts = parts_by_description(said, [(series.shape, series.affine) for series in found])
    for k, part in enumerate(parts):
        if part and holds_head(found[k].shape, found[k].affine):  # so the words may mean something else
            found[k] = replace(found[k], doubt=found[k].doubt or part)
        elif part:
            found[k] = replace(found[k], problem=found[k].problem or part)
    return _numbered(found), others


def _one_examination(slices: Sequence[Slice]) -> bool:
    """Return whether images with several StudyInstanceUIDs are of one date, and share frames of reference.

    Some scanners give each series a StudyInstanceUID of its own. Of a frame of reference there is but one examination,
    unless a program registered images of several dates.
    """
    of_series: dict[str, set[str]] = defaultdict(set)
    for piece in slices:
        of_series[text(piece.header, "SeriesInstanceUID")].add(text(piece.header, "StudyInstanceUID"))
    if max(map(len, of_series.values())) > 1:
        return False
    dates = {text(piece.header, "StudyDate") for piece in slices} - {""}
    frames: dict[str, set[str]] = defaultdict(set)
    for piece in slices:
        frames[text(piece.header, "FrameOfReferenceUID")].add(text(piece.header, "StudyInstanceUID"))
    linked, *others = [studies for frame, studies in frames.items() if frame] or [set()]
    while more := [studies for studies in others if studies & linked and studies - linked]:
        linked = linked.union(*more)
    return len(dates) <= 1 and linked >= {text(piece.header, "StudyInstanceUID") for piece in slices}


def _datasets(folder: str | Path, paths: Sequence[Path]) -> Iterable[tuple[Path, Dataset]]:
    """Yield the DICOM files of a folder with their attributes in `TAGS`."""
    damaged, bare, closed, strange, read = [], [], [], list[Path](), Counter[Path]()
    for path in paths:
        dataset: Dataset | None = None
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
            whole = bool(text(dataset, "SOPClassUID"))
            if whole and not text(dataset.file_meta, "TransferSyntaxUID"):
                bare.append(path)
                continue
        except OSError as error:
            if error.errno:
                closed.append(path)
                continue
            dataset, whole = Dataset(), False  # without a number it is pydicom's, on damaged bytes
        except InvalidDicomError:
            if _starts_like_dicom(path):
                bare.append(path)
                continue
            dataset, whole = None, False
        except Exception:  # pydicom raises anything on damaged bytes
            dataset, whole = Dataset(), False
        if dataset is not None and whole:
            read[path.parent] += 1
            yield path, dataset
        elif path.suffix.lower() in SUFFIXES or (dataset is not None and path.name.upper() != "DICOMDIR"):
            damaged.append(path)
        elif is_strange(path):
            strange.append(path)
    counts = Counter(path.parent for path in strange)
    lacking = {
        place for place, count in counts.items() if count >= MOST_STRANGE * (count + read[place]) and read[place]
    }
    for unusable, what, remedy in (
        (closed, "cannot be opened", "make all of them readable (chmod -R u+rX)"),
        (
            bare,
            "hold DICOM data without the preamble and meta information of a file",
            "export them as DICOM files again (dcmconv of DCMTK adds what is missing)",
        ),
        (damaged, "are damaged DICOM files", MISSING),
        ([path for path in strange if path.parent in lacking], "cannot be read, as of a copy that broke off", MISSING),
    ):
        if unusable:  # file names may contain patients' names
            found, first = f"{len(unusable)} of {len(paths)} files {what}", paths.index(unusable[0]) + 1
            raise StudyError(
                f"{folder}: {found}, the first is number {first} in alphabetical order; {remedy}, or remove them.",
                f"The study: {found}; {remedy}, or remove them.",
                unusable[0],
                code="unread",
            )
    if not read:
        index = ["a DICOMDIR is only an index: copy the folders beside it too"]
        other = [*(index if any(path.name.upper() == "DICOMDIR" for path in paths) else []), *unread(paths)[0]]
        what = f"none of its {len(paths)} files is a DICOM file; expected those of a study"
        raise StudyError.of(folder, f"{'; '.join([what, *other])}.", code="unread")


def _starts_like_dicom(path: Path) -> bool:
    """Return whether a file without a preamble begins with an attribute of group 0002 or 0008, as DICOM data do."""
    with path.open("rb") as file:
        start = file.read(8)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return start[:2] in (b"\x02\0", b"\x08\0") and (explicit or start[6:8] == b"\0\0") and len(start) == 8


def _slices(path: Path, dataset: Dataset) -> list[Slice]:
    if text(dataset, "SOPClassUID") not in MULTIFRAME:
        return [Slice(path, None, dataset)]
    frames = items(dataset, "PerFrameFunctionalGroupsSequence") or [Dataset()]
    return [Slice(path, frame, flatten_frame(dataset, frame)) for frame in range(len(frames))]


def _same_pixels(path: Path, other: Path) -> bool:
    """Return whether two files with one UID hold the same pixels, even if one of them is compressed."""
    try:
        first, second = pydicom.dcmread(path), pydicom.dcmread(other)
        return first.PixelData == second.PixelData or np.array_equal(first.pixel_array, second.pixel_array)
    except OSError:
        raise
    except Exception:  # pydicom raises anything on damaged bytes
        return False


def _series(volume: Volume, ambiguous: Collection[Path], there: Mapping[str, Present]) -> Series:
    """Return a volume as a series; ``there``: SeriesInstanceUID -> what is there of a series."""
    header, whole = _whole_header(volume.first)
    here = there[text(volume.first.header, "SeriesInstanceUID")]
    pieces, places = volume.slices, positions(volume.slices)
    axes = unrounded(volume.axes, places)
    pixel = numbers(header, "PixelSpacing", 2)
    rows, columns = (1.0, 1.0) if pixel is None else pixel.tolist()
    steps = len(pieces) - 1
    step = (places[-1] - places[0]) / steps if steps else np.cross(*axes) * (number(header, "SliceThickness") or 1)
    shape = (int(number(header, "Columns") or 0), int(number(header, "Rows") or 0), len(pieces))
    affine = LPS_TO_RAS @ from_matvec(np.stack([axes[0] * columns, axes[1] * rows, step], axis=1), places[0])
    uneven = why_no_grid(header, axes, places, (columns, rows))
    if uneven and volume.differ:
        uneven = not_one(volume.differ, volume.parts, uneven)
    problem = (
        volume.problem
        or (None if whole else f"the header of its first image is damaged; {MISSING}")
        or _unusable(pieces, ambiguous)
        or uneven
        or _implausible(shape, affine)
        or _incomplete(shape, affine, here.foreign)
        or why_incomplete(header, here)
    )
    frames, files = [piece.frame for piece in pieces], [piece.path for piece in pieces]
    multiframe = any(frame is not None for frame in frames)
    return Series(
        number=int(number(header, "SeriesNumber") or 0),
        uid=text(header, "SeriesInstanceUID"),
        files=tuple(files if len({*files}) > 1 else files[:1]),
        header=header,
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        spacing=(columns, rows, float(np.linalg.norm(step))),
        shape=shape,
        affine=np.eye(4) if problem else affine,
        multiframe=multiframe,
        frames=tuple(frames) if multiframe else (),
        problem=problem,
        differ=volume.differ,
        doubt=doubt(header, here) or LOSSY * (text(header, "LossyImageCompression") == "01"),
        parts=tuple(_whole_header(piece)[0] for piece in volume.others) if problem else (),
    )


def _incomplete(shape: tuple[int, int, int], affine: np.ndarray, foreign: Sequence[Dataset]) -> str | None:
    """Return that slices of a volume are of another class, if any of these images lies at none of its own."""
    stated = [at for each in foreign if (at := numbers(each, "ImagePositionPatient", 3)) is not None]
    places = apply_affine(np.linalg.inv(LPS_TO_RAS @ affine), np.array(stated))[:, 2] if stated else np.empty(0)
    beside = (np.abs(places - np.rint(places).clip(0, shape[2] - 1)) > SAME_SLICE).sum()
    return f"{beside} of its slices are not of a class of MR images, {ONLY_A_PART}" if beside else None


def _whole_header(piece: Slice) -> tuple[Dataset, bool]:
    """Return all attributes of an image except its pixels, and True; if it is damaged, those in `TAGS`, and False."""
    try:
        dataset = pydicom.dcmread(piece.path, stop_before_pixels=True)
        return (dataset if piece.frame is None else flatten_frame(dataset, piece.frame)), True
    except Exception:  # pydicom raises anything on damaged bytes
        return piece.header, False


def _unusable(volume: Sequence[Slice], ambiguous: Collection[Path]) -> str | None:
    """Return why images are not what they seem, or why their pixels are no grey values, according to the headers."""
    if count := len({piece.path for piece in volume} & {*ambiguous}):
        return f"{count} of its images share their SOPInstanceUID with a file of other pixels; {MISSING}"
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
