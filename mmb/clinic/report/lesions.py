"""The lesions of a segmentation: number, volumes and sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

from mmb.clinic.head.grid import box, connected_pieces

SMALLEST = 0.1  # volume in ml below which a piece is a speck, not a lesion: a sphere of 6 mm
BOTH_SIDES = 0.1  # fraction of a lesion's volume on the smaller side of the midline from which on it is on both sides
UNKNOWN = "not known"  # side of a lesion in images that do not state how they lie, or do not show both halves whole
CUT_OFF = 0.25  # share of the largest sagittal section by which those at its ends differ in a brain that is cut off
FRONT_TO_BACK = 0.87  # cosine of the largest angle, 30 degrees, between the brain's longer axis and front to back


@dataclass(frozen=True)
class Lesion:
    """A connected piece of the outermost region, its volume in ml, and the voxel nearest to its centre of mass.

    ``side`` is ``left``, ``right`` or ``both sides`` of the patient, or ``not known``.
    """

    volume: float
    side: str
    centre: tuple[int, int, int]


def lesions(
    masks: Mapping[str, np.ndarray], affine: np.ndarray, brain: np.ndarray, total: float, oriented: bool = True
) -> tuple[list[Lesion], int]:
    """Return the lesions, the largest first, and the number of pieces of less than `SMALLEST` ml.

    ``masks`` are those of the regions, bool ``(X, Y, Z)``, the outermost first; ``affine`` leads to mm, RAS. The
    ``brain``'s midline separates left from right, if it can be known (``oriented``). The pieces share the
    ``total`` volume (ml) by their numbers of voxels.
    """
    spacing = voxel_sizes(affine)
    outermost = next(iter(masks.values()))
    if not outermost.any():
        return [], 0
    extent = box(outermost)
    numbers, sizes = connected_pieces(outermost[extent])
    boxes, right = ndimage.find_objects(numbers), _right_half(brain, affine)[extent]
    corner = [part.start for part in extent]
    listed = []
    for piece in np.argsort(-sizes, kind="stable"):
        if sizes[piece] * np.prod(spacing) / 1000 < SMALLEST:
            break
        inside = boxes[piece]
        mask = numbers[inside] == piece + 1
        share = float(right[inside][mask].mean())
        side = "both sides" if BOTH_SIDES <= share <= 1 - BOTH_SIDES else "right" if share > 0.5 else "left"
        side = side if oriented else UNKNOWN
        at = np.add(centre(mask, spacing), [part.start + low for part, low in zip(inside, corner, strict=True)])
        listed.append(Lesion(float(total * sizes[piece] / sizes.sum()), side, tuple(at.tolist())))
    return listed, len(sizes) - len(listed)


def cut_off(brain: np.ndarray) -> str:
    """Return at which end, left or right, more of a brain ``(X, Y, Z)``, in RAS, lies off the image, or ""."""
    sections = brain.sum(axis=(1, 2), dtype=int)
    more = sections[0] - sections[-1]
    return ("left" if more > 0 else "right") if abs(more) > CUT_OFF * sections.max() else ""


def centre(mask: np.ndarray, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the voxel of a mask ``(X, Y, Z)`` that is nearest to its centre of mass."""
    voxels = np.argwhere(mask)
    distance = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1)
    x, y, z = (int(index) for index in voxels[distance.argmin()])
    return x, y, z


def _right_half(brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return which voxels lie to the right of the brain's midline: bool ``(X, Y, Z)``; ``affine`` leads to mm, RAS.

    The midline runs through the centre of the brain seen from above, along its longer axis if that runs from front to
    back; so a turned head is allowed for, a tilted one is not. An oblique grid makes no difference.
    """
    voxels = np.argwhere(brain)
    x, y = apply_affine(affine, voxels if len(voxels) > 1 else np.argwhere(brain | True))[:, :2].T
    along = np.linalg.eigh(np.cov(x, y))[1][:, -1]
    slope = along[0] / along[1] if len(voxels) > 1 and abs(along[1]) > FRONT_TO_BACK else 0.0
    corner, steps = affine[:2, 3], affine[:2, :3]
    offset = steps[0] - slope * steps[1]
    beside = (corner[0] - x.mean()) - slope * (corner[1] - y.mean())
    i, j, k = (np.arange(size) * step for size, step in zip(brain.shape, offset, strict=True))
    return beside + i[:, None, None] + j[:, None] + k > 0
