"""The lesions of a segmentation: number, volumes, sides, and two perpendicular diameters as RANO measures them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from mmb.clinic.study.grid import box, connected_pieces

SMALLEST = 0.1  # volume in ml below which a piece is a speck, not a lesion: a sphere of 6 mm
BOTH_SIDES = 0.1  # fraction of a lesion's volume on the smaller side of the midline from which on it is on both sides
FRONT_TO_BACK = 0.87  # cosine of the largest angle, 30 degrees, between the brain's longer axis and front to back


@dataclass(frozen=True)
class Lesion:
    """A connected piece of the outermost region.

    Attributes:
        volume: its volume in ml.
        side: ``left``, ``right`` or ``both sides`` of the patient.
        diameters: region -> the longest diameter of its part of the lesion in any axial slice, and the longest one
            perpendicular to it in that slice, in mm; without the regions that it lacks.
        centre: the voxel of the lesion that is nearest to its centre of mass.
    """

    volume: float
    side: str
    diameters: Mapping[str, tuple[float, float]]
    centre: tuple[int, int, int]


def lesions(
    masks: Mapping[str, np.ndarray], spacing: Sequence[float], brain: np.ndarray, total: float
) -> tuple[list[Lesion], int]:
    """Return the lesions, the largest first, and the number of pieces of less than `SMALLEST` ml.

    Args:
        masks: region -> bool ``(X, Y, Z)``, RAS; the outermost region first.
        spacing: voxel size in mm.
        brain: mask of the brain, whose midline separates left from right.
        total: volume of the outermost region in ml, which the pieces share by their numbers of voxels.
    """
    if not next(iter(masks.values())).any():
        return [], 0
    extent = box(next(iter(masks.values())))
    masks = {region: mask[extent] for region, mask in masks.items()}
    numbers, sizes = connected_pieces(next(iter(masks.values())))
    boxes, right = ndimage.find_objects(numbers), _right_half(brain)[extent]
    corner = [part.start for part in extent]
    listed = []
    for piece in np.argsort(-sizes, kind="stable"):
        if sizes[piece] * np.prod(spacing) / 1000 < SMALLEST:
            break
        inside = boxes[piece]
        mask = numbers[inside] == piece + 1
        share = float(right[inside][mask].mean())
        parts = {region: whole[inside] & mask for region, whole in masks.items()}
        listed.append(
            Lesion(
                volume=float(total * sizes[piece] / sizes.sum()),
                side="both sides" if BOTH_SIDES <= share <= 1 - BOTH_SIDES else "right" if share > 0.5 else "left",
                diameters={region: diameters(part, spacing) for region, part in parts.items() if part.any()},
                centre=tuple(
                    at + part.start + low for at, part, low in zip(centre(mask, spacing), inside, corner, strict=True)
                ),
            )
        )
    return listed, len(sizes) - len(listed)


def centre(mask: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the voxel of a mask ``(X, Y, Z)`` that is nearest to its centre of mass."""
    voxels = np.argwhere(mask)
    distance = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1)
    return tuple(int(index) for index in voxels[distance.argmin()])


def diameters(mask: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Return the longest axial diameter of a mask ``(X, Y, Z)`` in mm, and the longest one perpendicular to it.

    A diameter joins the outer edges of two voxels of one connected part of a slice, as in RANO (Wen et al. 2017,
    https://doi.org/10.1200/JCO.2017.72.7511); both are measured in the same slice.
    """
    longest = (0.0, 0.0)
    for plane in np.moveaxis(mask, 2, 0):
        numbers, _ = ndimage.label(plane, np.ones((3, 3)))
        for piece, inside in enumerate(ndimage.find_objects(numbers), 1):
            corners = _corners(numbers[inside] == piece) * spacing[:2]
            if np.linalg.norm(np.ptp(corners, axis=0)) > longest[0]:  # else it cannot be longer
                longest = max(longest, _diameters(corners, max(spacing[:2])))
    return longest


def _corners(mask: np.ndarray) -> np.ndarray:
    """Return the corners ``(N, 2)`` of the pixels of a mask ``(A, B)``, in pixels, without those inside of it."""
    padded = np.pad(mask, 1).astype(np.uint8)
    near = padded[1:, 1:] + padded[1:, :-1] + padded[:-1, 1:] + padded[:-1, :-1]
    return np.argwhere((near > 0) & (near < 4)).astype(float)


def _diameters(corners: np.ndarray, step: float) -> tuple[float, float]:
    hull = corners[ConvexHull(corners).vertices]
    distances = squareform(pdist(hull))
    first, last = hull[list(np.unravel_index(distances.argmax(), distances.shape))]
    along = (last - first) / distances.max()
    bins = np.rint((corners - first) @ along / step).astype(int)
    across = (corners - first) @ np.array([-along[1], along[0]])
    extents = ndimage.maximum(across, bins, np.unique(bins)) - ndimage.minimum(across, bins, np.unique(bins))
    return float(distances.max()), float(extents.max())


def _right_half(brain: np.ndarray) -> np.ndarray:
    """Return which voxels lie to the right of the brain's midline: bool ``(X, Y, Z)``.

    The midline runs through the centre of the brain seen from above, along its longer axis if that runs from front to
    back; so a turned head is allowed for, a tilted one is not.
    """
    x, y = np.nonzero(brain.any(axis=2))
    middle = np.full(brain.shape[1], (brain.shape[0] - 1) / 2)
    if len(x) > 1:
        along = np.linalg.eigh(np.cov(x, y))[1][:, -1]
        slope = along[0] / along[1] if abs(along[1]) > FRONT_TO_BACK else 0.0
        middle = x.mean() + slope * (np.arange(brain.shape[1]) - y.mean())
    return np.broadcast_to(np.arange(brain.shape[0])[:, None, None] > middle[:, None], brain.shape)
