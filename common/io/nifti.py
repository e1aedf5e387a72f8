"""Reading NIfTI and Analyze files by the standard, to their last byte, and with a word on what is doubtful."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.orientations import aff2axcodes

from common.io.geometry import corner_distance, lengths, require_shape

PAIR = (".hdr", ".img")
"""Suffixes of Analyze and NIfTI images of two files, either of which names both."""
PADDING = 4096
"""Bytes that may follow the voxels."""
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of a unit of length (unknown, metre, millimetre, micrometre) -> its length in mm; the affine is in it."""
SAME_SIZE = 0.01
"""Share by which a header's two statements of one voxel size may differ."""
SAME_PLACE = 1.0
"""mm by which a header's two affines may put a corner apart without a word."""


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a NIfTI (``.nii``, ``.nii.gz``) or Analyze file (``.hdr`` with ``.img``).

    MONAI's reader is not used: where voxel sizes disagree it takes the qform in place of the sform, whatever their
    codes (`monai.data.utils.rectify_header_sform_qform`, 1.6.1), and it does not reach the checksum of a gzip file.

    Returns:
        Voxels ``(X, Y, Z)`` or ``(X, Y, Z, C)``; the affine to mm, RAS; what is doubtful about the file.

    Raises:
        Exception: of the kinds that nibabel and gzip have; the header tells of what is not in the file, or is not read.
    """
    if path.name.lower().endswith(PAIR):
        image, said = nib.load(path), []
        require_shape(image.shape)
    else:
        image, said = _single_file(path)
    return np.asanyarray(image.dataobj), *_placed(image, said)


def _single_file(path: Path) -> tuple[Nifti1Image, list[str]]:
    """Return the image, of which all bytes are read, and what nibabel finds wrong with the header and mends."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.read(Nifti2Image.header_class.sizeof_hdr)
        if len(start) < Nifti1Image.header_class.sizeof_hdr:
            raise EOFError(f"{len(start)} bytes, fewer than a header has")
        kind = Nifti2Image if start[4:8] == b"n+2\0" else Nifti1Image
        said: list[str] = []
        header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
        header.check_fix(_listing(said), error_level=logging.ERROR)
        require_shape(header.get_data_shape())
        expected = int(header["vox_offset"]) + int(np.prod(header.get_data_shape())) * header.get_data_dtype().itemsize
        content = start + file.read(expected + PADDING + 1 - len(start))
        if len(content) > expected + PADDING:
            raise ValueError(f"its header tells of {expected} bytes, and there are more; copy or convert it again")
        if len(content) < expected:
            raise EOFError(f"{len(content)} of the {expected} bytes that its header tells of")
    return kind.from_bytes(content), said


def _listing(said: list[str]) -> logging.Logger:
    """Return a log that appends to a list what nibabel warns about; voxels at any offset are read right."""

    class Listing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "not divisible by 16" not in record.getMessage():
                said.append(record.getMessage())

    log = logging.Logger("nifti", level=1)
    log.addHandler(Listing())
    return log


def _placed(image: nib.AnalyzeImage | Nifti1Image, said: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return an image's affine to mm by the standard (sform if its code is not 0, else qform), and what is doubtful.

    Source: NIfTI-1, "3D image (volume) orientation and location in space"; without either code, its method 1.
    """
    header, affine = image.header, image.affine
    if not isinstance(header, Nifti1Header):  # Analyze knows voxel sizes alone
        return affine, said
    said = [f"its header is not as it should be ({text})" for text in said]
    code = int(header["xyzt_units"]) % 8
    unit = MILLIMETRES.get(code, 1.0)
    if code not in MILLIMETRES:
        said.append(f"its header names a unit of length that there is not (xyzt_units {code}); taken as mm")
    sform, qform = (form(coded=True)[0] for form in (image.get_sform, image.get_qform))
    if sform is None and qform is None:
        axes = "".join(aff2axcodes(affine))
        said.append(
            f"the file does not say how it lies (qform and sform code 0); taken as {axes}, with the middle at the "
            "origin: left and right may be exchanged. Convert it again from the scanner's files, or write its affine "
            "into it"
        )
    elif sform is not None and qform is not None:
        apart = corner_distance(sform, qform, image.shape) * unit
        if apart > SAME_PLACE:
            said.append(
                f"its sform and its qform put voxels up to {apart:.1f} mm apart; the sform is taken, as the standard "
                "has it"
            )
    sizes, stated = voxel_sizes(affine), np.array(header.get_zooms()[:3])
    if np.isfinite(sizes).all() and not np.allclose(sizes, stated, rtol=SAME_SIZE):
        said.append(
            f"its affine has voxels of {lengths(sizes * unit)} mm, its pixdim {lengths(stated * unit)} mm; the "
            "affine is taken, as the standard has it"
        )
    return np.diag([unit, unit, unit, 1]) @ affine, said
