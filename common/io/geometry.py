"""Plausibility of shapes and affines of medical images, and the distance between two affines."""

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

MOST_VOXELS = 2**29  # maximum number of voxels of an image file (2 GiB in float32); a tiny file can claim any number
VOXEL_SIZES = (0.05, 50.0)  # smallest and largest plausible voxel size of a scan of a person, in mm
LARGEST = 1000.0  # largest plausible extent of a scan of a person, in mm
GRID_TOLERANCE = 1e-2
"""Largest distance in mm between corresponding corners of two images for which they count as being on one grid."""
FLATTEST = 0.3
"""Minimum ratio of a voxel's volume to that of a cuboid with its edges; a gantry tilt of 30 degrees leaves 0.87."""


def require_shape(shape: Sequence[int]) -> None:
    """Refuse a shape that is empty, too large, or neither one volume ``(X, Y, Z)`` nor several ``(X, Y, Z, C)``."""
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)}; expected one volume (X, Y, Z), or several (X, Y, Z, C)")
    if math.prod(map(int, shape)) > MOST_VOXELS:
        raise ValueError(f"shape {tuple(shape)} exceeds the maximum of {MOST_VOXELS} voxels")


def require_plausible(affine: np.ndarray, shape: Sequence[int]) -> None:
    """Refuse an affine (in mm) that a scan of a person with this shape ``(X, Y, Z)`` cannot have."""
    if not np.isfinite(affine).all():
        raise ValueError(f"its affine {_rows(affine)} has NaN or Inf; correct it, or convert the file again")
    sizes = voxel_sizes(affine)
    if min(sizes) == 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < FLATTEST:
        raise ValueError(f"its affine {_rows(affine)} is singular or nearly so; correct it, or convert the file again")
    least, most = VOXEL_SIZES
    whole = sizes * shape[:3]
    if min(sizes) < least or max(sizes) > most or max(whole) > LARGEST:
        raise ValueError(
            f"voxels of {lengths(sizes)} mm and an extent of {lengths(whole)} mm; expected voxels of {least:g} to "
            f"{most:g} mm and an extent of at most {LARGEST:g} mm. Is its unit of length wrong (metres or micrometres "
            "for mm)? Correct its voxel sizes"
        )


def corner_distance(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Return the largest distance in mm between the corners of a volume ``(X, Y, Z)`` as two affines place them."""
    corners = list(product(*[(0, size - 1) for size in shape[:3]]))
    return float(np.linalg.norm(apply_affine(one, corners) - apply_affine(other, corners), axis=1).max())


def grid_difference(volume: Any, reference: Any, tolerance: float = GRID_TOLERANCE) -> str | None:
    """Return how the grid of a volume differs from that of another one, in words; None if it is the same.

    Both have a ``shape`` ``(X, Y, Z)`` and an ``affine`` to mm. Corners may be apart by the tolerance in mm.
    """
    here, there = (tuple(each.shape[:3]) for each in (volume, reference))
    if here != there:
        return f"shape {'x'.join(map(str, here))}, not {'x'.join(map(str, there))}"
    apart = corner_distance(np.asarray(volume.affine), np.asarray(reference.affine), there)
    return f"voxels up to {apart:.2f} mm away" if apart > tolerance else None


def lengths(sizes: Iterable[float]) -> str:
    """Return lengths as text, e.g. ``1 x 1 x 5.5``."""
    return " x ".join(f"{size:.3g}" for size in sizes)


def _rows(affine: np.ndarray) -> str:
    return str(np.asarray(affine)[:3].round(4).tolist())
