"""Shapes and affines: which of them can be a medical image's, and how far two affines lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

MOST_VOXELS = 2**29
"""Of an image file, 2 GiB in float32; a file of a few kilobytes can claim any number."""
VOXEL_SIZES = (0.05, 50.0)
"""mm that a voxel of a scan of a person can be long."""
LARGEST = 1000.0
"""mm that a scan of a person can be long."""
FLATTEST = 0.3
"""Least volume of a voxel, as a share of that of a cuboid with its edges: a gantry's tilt of 30 degrees leaves 0.87."""


def require_shape(shape: Sequence[int]) -> None:
    """Refuse a shape that is neither one volume ``(X, Y, Z)`` nor several ``(X, Y, Z, C)``, empty or too large."""
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)}; expected one volume (X, Y, Z), or several (X, Y, Z, C)")
    if math.prod(map(int, shape)) > MOST_VOXELS:
        raise ValueError(f"shape {tuple(shape)} is more than the {MOST_VOXELS} voxels that are read at most")


def require_plausible(affine: np.ndarray, shape: Sequence[int]) -> None:
    """Refuse an affine (to mm) that cannot be that of a scan of a person of this shape ``(X, Y, Z)``.

    Raises:
        ValueError: it has NaN or Inf or is singular; voxels or the whole image are too small or too large.
    """
    if not np.isfinite(affine).all():
        raise ValueError(f"its affine {_rows(affine)} has NaN or Inf; write a right one into it, or convert it again")
    sizes = voxel_sizes(affine)
    if min(sizes) == 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < FLATTEST:
        raise ValueError(f"its affine {_rows(affine)} is singular or nearly so; write a right one, or convert it again")
    least, most = VOXEL_SIZES
    whole = sizes * shape[:3]
    if min(sizes) < least or max(sizes) > most or max(whole) > LARGEST:
        raise ValueError(
            f"voxels of {lengths(sizes)} mm, in all {lengths(whole)} mm; expected are voxels of {least:g} to {most:g} "
            f"mm and up to {LARGEST:g} mm in all. Is its unit of length wrong (metres or micrometres for mm)? Correct "
            "its voxel sizes"
        )


def corner_distance(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return by how many mm at most two affines put the corners of a volume ``(X, Y, Z)`` apart."""
    corners = list(product(*[(0, size - 1) for size in shape[:3]]))
    return float(np.linalg.norm(apply_affine(one, corners) - apply_affine(other, corners), axis=1).max())


def lengths(sizes: Iterable[float]) -> str:
    """Return lengths as a text, ``1 x 1 x 5.5``."""
    return " x ".join(f"{size:.3g}" for size in sizes)


def _rows(affine: np.ndarray) -> str:
    return str(np.asarray(affine)[:3].round(4).tolist())
