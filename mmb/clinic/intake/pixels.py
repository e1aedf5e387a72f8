"""Decoding of the pixels of MR images.

The header is checked before anything is decoded, since decoders trust it. With a wrong header they may invent pixels,
request any amount of memory, or crash the process (as ITK 5.4 does for a PALETTE COLOR image without its palette).
"""

import re
import warnings
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit

from mmb.clinic.intake.headers import MISSING, flatten_frame, items, number, required_number, rescale, text
from mmb.clinic.intake.series import Series
from mmb.errors import StudyError

JPEG = (b"\xff\xd8", b"\xff\x4f")  # first bytes of a JPEG or JPEG-LS, and of a JPEG 2000 stream; all end with FFD9


def load(series: Series) -> nib.Nifti1Image:
    """Read the pixels: float32 ``(columns, rows, slices)``, rescaled by the headers, with the affine of the series.

    They are decoded by pydicom and its plugins, since ITK crashes the whole process for some invalid headers.
    """
    if series.problem:
        raise StudyError(f"{series.name}: {series.problem}.")
    voxels = _pixels(series)
    if not np.isfinite(voxels).all():
        raise StudyError(
            f"{series.name}: its pixels are not finite numbers (RescaleSlope, RescaleIntercept); {MISSING}."
        )
    return nib.Nifti1Image(voxels, series.affine)


def _read_frames(path: Path, columns: int, rows: int) -> tuple[Dataset, np.ndarray]:
    """Return a file's attributes and its pixels ``(frames, rows, columns)``, if they are as its header said."""
    try:
        dataset = pydicom.dcmread(path)
    except OSError:
        raise
    except Exception:  # pydicom raises anything on damaged bytes
        raise StudyError(f"its file is damaged; {MISSING}") from None
    syntax = UID(text(dataset.file_meta, "TransferSyntaxUID"))
    if wrong := _unlike_its_header(dataset, syntax, columns, rows):
        raise StudyError(f"{wrong}; {MISSING}")
    if undecodable := _undecodable(syntax, number(dataset, "BitsStored")):
        raise StudyError(undecodable)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # pydicom warns about a wrong number of bytes
            stored = dataset.pixel_array.reshape(-1, rows, columns)
    except Exception:  # plugins raise many types, whose messages may quote the header
        raise StudyError(f"its pixels are damaged or cut off; {MISSING}") from None
    bits, signed = int(required_number(dataset, "BitsStored")), number(dataset, "PixelRepresentation") == 1
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if stored.min() < least or stored.max() > most:  # pydicom masks what was not compressed; a codec's values are whole
        raise StudyError(
            f"it has values beyond its {bits} bits (BitsStored): {stored.min()} to {stored.max()}; {MISSING}"
        )
    return dataset, stored


def _grey_values(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Return float32 values ``(rows, columns)`` from stored ones: rescaled, and inverted if small values are bright."""
    slope, intercept = rescale(header)
    values = stored.astype(np.float64)
    if text(header, "PhotometricInterpretation") == "MONOCHROME1":  # the smallest value is white
        white = 2 ** required_number(header, "BitsStored") - 1 if number(header, "PixelRepresentation") == 0 else -1
        values = white - values
    return (values * slope + intercept).astype(np.float32)


def _pixels(series: Series) -> np.ndarray:
    voxels = np.empty(series.shape, np.float32)
    columns, rows, slices = series.shape
    contents = defaultdict(list)
    for k, (path, frame) in enumerate(series.slices):
        contents[path].append((k, frame))
    for path, pieces in contents.items():
        try:
            dataset, stored = _read_frames(path, columns, rows)
        except OSError as error:
            raise OSError(f"{series.name}: a file of it cannot be opened ({error.strerror or 'damaged'}).") from None
        except ValueError as error:
            which = "" if len(contents) == 1 else f"image {pieces[0][0] + 1} of {slices}: "
            raise StudyError(f"{series.name}: {which}{error}.", file=path) from None
        for k, frame in pieces:
            header = dataset if frame is None else flatten_frame(dataset, frame)
            voxels[:, :, k] = _grey_values(stored[frame or 0], header).T
    return voxels


def _unlike_its_header(dataset: Dataset, syntax: UID, columns: int, rows: int) -> str | None:
    """Return how the stored pixels, decoded or not, differ from the header; None if they do not."""
    frames = int(number(dataset, "NumberOfFrames") or 1)
    described = len(items(dataset, "PerFrameFunctionalGroupsSequence")) or 1
    if frames != described:
        return f"its header announces {frames} frames but describes {described}"
    if (number(dataset, "Columns"), number(dataset, "Rows")) != (columns, rows):
        return "its header changed while it was read"
    try:
        data = dataset["PixelData"].value
    except Exception:  # missing, or an unknown VR
        data = None
    if not isinstance(data, bytes):
        return "it has no pixels"
    try:
        compressed = syntax.is_encapsulated
    except ValueError:  # unknown to pydicom, which is reported next
        return None
    if not compressed:
        size = columns * rows * frames * int(required_number(dataset, "BitsAllocated")) // 8
        if len(data) not in (size, size + size % 2):
            return f"its pixels are damaged or cut off ({len(data)} bytes; expected {size})"
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # as above
            streams = list(generate_frames(data, number_of_frames=frames))
    except Exception:  # pydicom raises anything on damaged bytes
        return "its pixels are damaged or cut off"
    if any(stream.startswith(JPEG) and not stream.rstrip(b"\0").endswith(b"\xff\xd9") for stream in streams):
        return "its pixels are cut off"  # some decoders would invent the rest
    for found in {_size(stream) for stream in streams} - {(columns, rows)}:
        if found:
            return f"its pixels are damaged ({found[0]} x {found[1]} are compressed; expected {columns} x {rows})"
    return None


def _size(frame: bytes) -> tuple[int, int] | None:
    """Return a JPEG, JPEG-LS or JPEG 2000 stream's own columns and rows, which decoders use; None for other ones."""
    if header := re.search(rb"\xff\x4f\xff\x51", frame[:1024]):  # JPEG 2000: SOC and SIZ
        at = header.end() + 4
        right, below, left, above = (int.from_bytes(frame[k : k + 4], "big") for k in range(at, at + 16, 4))
        return right - left, below - above
    at = 2
    while frame[:2] == b"\xff\xd8" and frame[at : at + 1] == b"\xff":
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # start of frame
            return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")
        at += 2 + length
    return None


def _undecodable(syntax: UID, bits: float | None) -> str | None:
    """Return why pixels with a transfer syntax cannot be decoded here; None if they can."""
    try:
        if not syntax.is_encapsulated:
            return None
        plugins = get_decoder(syntax).available_plugins
    except (NotImplementedError, ValueError):
        name = syntax.name if syntax.name != syntax else "an unknown format"
        return f"compressed as {name}, which is not supported; send it uncompressed (Explicit VR Little Endian)"
    if syntax == JPEGExtended12Bit and bits and bits > 8 and "pylibjpeg" not in plugins:  # the others take 8 bits
        return f"compressed as {syntax.name} with {bits:g} bits; its decoder is GPL-3.0: pip install pylibjpeg-libjpeg"
    if not plugins:
        needed = 'pip install "missing-modality-bundles[clinic]"'
        return f"compressed as {syntax.name}, for which no decoder is installed: {needed}"
    return None
