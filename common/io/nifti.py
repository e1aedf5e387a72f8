"""Reading NIfTI and Analyze files strictly: by the standard, completely, and with warnings about doubtful headers."""

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

PAIR = (".hdr", ".img")  # suffixes of Analyze and NIfTI images that consist of two files; either file can be given
PADDING = 4096  # maximum number of bytes after the voxels
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI code of a unit of length (unknown, metre, millimetre, micrometre) -> its length in mm."""
SAME_SIZE = 0.01  # tolerated relative difference between the voxel sizes in a header's affine and its pixdim
SAME_PLACE = 1.0  # tolerated distance in mm between the corners as a header's two affines place them


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a NIfTI (``.nii``, ``.nii.gz``) or Analyze file (``.hdr`` with ``.img``).

    MONAI's reader is not used: where voxel sizes disagree, it takes the qform instead of the sform, whatever their
    codes (`monai.data.utils.rectify_header_sform_qform`, 1.6.1), and it does not verify the checksum of a gzip file.

    Voxels are ``(X, Y, Z)`` or ``(X, Y, Z, C)``, the affine is in mm, RAS, and doubts about the file are texts. For an
    incomplete or unreadable file, nibabel and gzip raise any type of error.
    """
    if path.name.lower().endswith(PAIR):
        image, said = nib.load(path), []
        require_shape(image.shape)
        stored = Path(image.file_map["image"].filename).stat().st_size
        _require_size(stored, _announced(image.header))
    else:
        image, said = _single_file(path)
    return np.asanyarray(image.dataobj), *_placed(image, said)


def _single_file(path: Path) -> tuple[Nifti1Image, list[str]]:
    """Return an image after reading all of its bytes, and the header errors that nibabel found and repaired."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        start = file.read(Nifti2Image.header_class.sizeof_hdr)
        if len(start) < Nifti1Image.header_class.sizeof_hdr:
            raise EOFError(f"{len(start)} bytes, fewer than a NIfTI header has")
        kind = Nifti2Image if start[4:8] == b"n+2\0" else Nifti1Image
        said: list[str] = []
        header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
        header.check_fix(_listing(said), error_level=logging.ERROR)
        slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
        if np.isinf(slope) or (slope == 0 and intercept != 0):
            said.append(f"scl_slope {slope:g} with scl_inter {intercept:g}: its values are taken unscaled")
        require_shape(header.get_data_shape())
        expected = _announced(header)
        content = start + file.read(expected + PADDING + 1 - len(start))
        _require_size(len(content), expected)
    return kind.from_bytes(content), said


def _announced(header: nib.AnalyzeHeader) -> int:
    """Return the number of bytes of the file that holds the voxels."""
    return int(header["vox_offset"]) + int(np.prod(header.get_data_shape())) * header.get_data_dtype().itemsize


def _require_size(found: int, announced: int) -> None:
    if found > announced + PADDING:
        raise ValueError(f"its header announces {announced} bytes, but it has more; copy or convert it again")
    if found < announced:
        raise EOFError(f"{found} of the {announced} bytes that its header announces")


def _listing(said: list[str]) -> logging.Logger:
    """Return a logger that appends nibabel's warnings to a list, except on offsets of voxels, which do no harm."""

    class Listing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "not divisible by 16" not in record.getMessage():
                said.append(record.getMessage())

    log = logging.Logger("nifti", level=1)
    log.addHandler(Listing())
    return log


def _placed(image: nib.AnalyzeImage | Nifti1Image, said: list[str]) -> tuple[np.ndarray, list[str]]:
    """Return an image's affine in mm by the standard (sform if its code is not 0, else qform), and doubts about it.

    Source: NIfTI-1, "3D image (volume) orientation and location in space"; with neither code, its method 1.
    """
    header, affine = image.header, image.affine
    if not isinstance(header, Nifti1Header):  # an Analyze header has voxel sizes only
        return affine, said
    said = [f"its header is not valid ({text})" for text in said]
    code = int(header["xyzt_units"]) % 8
    unit = MILLIMETRES.get(code, 1.0)
    if code not in MILLIMETRES:
        said.append(f"its header has an unknown unit of length (xyzt_units {code}); mm is assumed")
    sform, qform = (form(coded=True)[0] for form in (image.get_sform, image.get_qform))
    if sform is None and qform is None:
        axes = "".join(aff2axcodes(affine))
        said.append(
            f"its header does not state the orientation (qform and sform code 0); taken as {axes}, with the middle at "
            "the origin: left and right may be exchanged. Convert it again from the scanner's files, or write its "
            "affine into it"
        )
    elif sform is not None and qform is not None:
        apart = corner_distance(sform, qform, image.shape) * unit
        if apart > SAME_PLACE:
            said.append(
                f"its sform and its qform place voxels up to {apart:.1f} mm apart; the sform is used, as the standard "
                "requires"
            )
    sizes, stated = voxel_sizes(affine), np.array(header.get_zooms()[:3])
    if np.isfinite(sizes).all() and not np.allclose(sizes, stated, rtol=SAME_SIZE):
        said.append(
            f"its affine has voxels of {lengths(sizes * unit)} mm, its pixdim {lengths(stated * unit)} mm; the "
            "affine is used, as the standard requires"
        )
    return np.diag([unit, unit, unit, 1]) @ affine, said
