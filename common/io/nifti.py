"""Reading NIfTI and Analyze files by the standard and completely, with warnings about doubtful orientations."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Image

from common.io.geometry import MOST_VOXELS, corner_distance, require_shape
from common.io.orientation import orientation_doubt

PAIR = (".hdr", ".img")  # suffixes of Analyze and NIfTI images that consist of two files; either file can be given
MOST_BYTES = 8 * MOST_VOXELS  # maximum number of bytes that are read; a small packed file can hold any number
MILLIMETRES = {1: 1000.0, 3: 0.001}
"""NIfTI code of a unit of length (metre, micrometre) -> its length in mm; others count as mm."""
SAME_PLACE = 1.0  # tolerated distance in mm between the corners as a header's two affines place them


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Read a NIfTI (``.nii``, ``.nii.gz``) or Analyze file (``.hdr`` with ``.img``).

    MONAI's reader is not used: where voxel sizes disagree, it takes the qform instead of the sform, whatever their
    codes (`monai.data.utils.rectify_header_sform_qform`, 1.6.1), and it does not verify the checksum of a gzip file.

    Further dimensions are dropped if all are of size 1. Voxels are ``(X, Y, Z)`` or ``(X, Y, Z, C)``, the affine is in
    mm, RAS, and doubts about the file are texts by their codes. For an incomplete or unreadable file, nibabel and gzip
    raise any type of error.
    """
    if path.name.lower().endswith(PAIR):
        image: Any = nib.load(path)
    else:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(MOST_BYTES)  # at its end gzip verifies its checksum
        image = (Nifti2Image if content[4:8] == b"n+2\0" else Nifti1Image).from_bytes(content)
    shape = image.shape[:3] if set(image.shape[3:]) == {1} else image.shape
    require_shape(shape)
    affine, doubts = _placed(image)
    return np.asanyarray(image.dataobj).reshape(shape), affine, doubts | orientation_doubt(path, image, affine)


def _placed(image: nib.AnalyzeImage) -> tuple[np.ndarray, dict[str, str]]:
    """Return an image's affine in mm by the standard (sform if its code is not 0, else qform), and doubts about it.

    Source: NIfTI-1, "3D image (volume) orientation and location in space"; with neither code, its method 1.
    """
    if not isinstance(image, Nifti1Pair):  # an Analyze header has voxel sizes only
        return image.affine, {}
    unit = MILLIMETRES.get(int(image.header["xyzt_units"]) % 8, 1.0)
    sform, qform = (form(coded=True)[0] for form in (image.get_sform, image.get_qform))
    doubts = {}
    if sform is not None and qform is not None:
        apart = corner_distance(sform, qform, image.shape) * unit
        if apart > SAME_PLACE:
            doubts["two_affines"] = (
                f"its sform and its qform place voxels up to {apart:.1f} mm apart; the sform is used, as the standard "
                "requires"
            )
    return np.diag([unit, unit, unit, 1]) @ image.affine, doubts
