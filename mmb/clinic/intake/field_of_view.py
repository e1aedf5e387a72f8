"""Which images of a study show the whole head: what of the largest field of view each covers, by grids alone."""

from collections.abc import Sequence

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

HEAD_MM = np.array([140.0, 170.0, 140.0])
"""Extent in mm from left to right, back to front, and bottom to top beyond which a field of view shows no more of a
brain."""
MIN_EXTENT_MM = 80.0  # minimum extent of a volume of a whole brain; smaller ones are slabs
WHOLE = 0.8  # minimum share of the largest field of view, each not counted beyond `HEAD_MM`, of an image of the whole

Grid = tuple[Sequence[int], np.ndarray]
"""Shape of an image, and its affine from voxels to mm (RAS)."""


def centre_within(one: Grid, other: Grid) -> bool:
    """Return whether the centre of one field of view lies within another."""
    (shape, affine), (seen, grid) = one, other
    voxel = np.linalg.solve(grid, affine @ [*((size - 1) / 2 for size in shape), 1])[:3]
    return bool((voxel > -0.5).all() and (voxel < np.array(seen) - 0.5).all())


def shares(grids: Sequence[Grid], frames: Sequence[str]) -> list[float]:
    """Return for each grid the least share that it covers of any other one.

    Grids of one of the ``frames`` of reference are compared where they lie, others by their extents alone.
    """
    ends = [_ends(*grid) for grid in grids]
    return [
        min((_share(one, other, frame == seen) for other, seen in zip(ends, frames, strict=True)), default=1.0)
        for one, frame in zip(ends, frames, strict=True)
    ]


def holds_head(shape: Sequence[int], affine: np.ndarray) -> bool:
    """Return whether a field of view is as large as one that shows a whole brain needs to be."""
    return bool((np.diff(_ends(shape, affine), axis=0)[0] >= HEAD_MM).all())


def _ends(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Return where a grid begins and ends ``(2, 3)`` along the patient's axes, each taken along the grid's nearest."""
    sizes = voxel_sizes(affine)
    nearest = np.abs(affine[:3, :3] / sizes).argmax(axis=1)
    lengths = (np.array(shape) * sizes)[nearest]
    centre = apply_affine(affine, (np.array(shape) - 1) / 2)
    return np.stack([centre - lengths / 2, centre + lengths / 2])


def _share(one: np.ndarray, other: np.ndarray, in_place: bool) -> float:
    lengths, theirs = np.diff(one, axis=0)[0], np.diff(other, axis=0)[0]
    both = np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]) if in_place else np.minimum(lengths, theirs)
    return float(np.clip(both / np.minimum(theirs, HEAD_MM), 0, 1).prod())
