"""Lesion-wise Dice and HD95, by which the BraTS challenges have ranked since 2023, as in their first definition.

Source: Saluja et al., BraTS 2023 Lesion-Wise Performance Metrics, github.com/rachitsaluja/BraTS-2023-Metrics. Later
years differ: 2024 also joins and filters what is predicted of gliomas after treatment, and 2025 matches lesions one to
one (panoptica).
"""

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges
from scipy import ndimage
from scipy.spatial import KDTree

from common.evaluation.metrics.conventions import LESION_WISE, METRICS

Surface = tuple[KDTree, np.ndarray]
"""Surface elements: where they are in mm, and their areas."""


class Lesions:
    """The lesions of a region in a reference, against which predictions of the region are scored.

    The mask ``(X, Y, Z)`` or ``(X, Y)`` is of the whole image; the spacing is in mm along each axis. Parts that touch
    after a dilation by some voxels (`LESION_WISE`) are one lesion. Parts touch if they share a corner.
    """

    def __init__(self, mask: np.ndarray, spacing: Sequence[float], task: str) -> None:
        dilation, least = LESION_WISE[task]
        self._mask, self._spacing, self._corners = mask, np.asarray(spacing, dtype=float), np.ones((3,) * mask.ndim)
        neighbours = ndimage.generate_binary_structure(mask.ndim, 2)
        self._around, count = ndimage.label(ndimage.binary_dilation(mask, neighbours, dilation), self._corners)
        self._sizes = np.bincount(self._around[mask], minlength=count + 1)
        large = np.flatnonzero(self._sizes * self._spacing.prod() > least)
        boxes = ndimage.find_objects(self._around)
        self._surfaces = {i: self._surface(self._lesion(i, boxes[i - 1]), boxes[i - 1]) for i in large.tolist()}

    def scores(self, prediction: np.ndarray, box: tuple[slice, ...]) -> dict[str, float]:
        """Return ``lesion_dice`` and ``lesion_hd95`` (mm) of a predicted mask, given in a box that contains it.

        A lesion is compared with all predicted parts that touch its dilation. If none does, its Dice is 0 and its HD95
        `PENALTY` of lesions; each predicted part that touches no lesion counts as another such lesion. The scores are
        means over these. Lesions of at most the task's least volume are not counted, nor are parts that touch them.
        Without any lesion and part to count, the scores are perfect.
        """
        parts, count = ndimage.label(prediction, self._corners)
        around, sizes = self._around[box], np.bincount(parts.ravel(), minlength=count + 1)
        both = (parts > 0) & (around > 0)
        touching = np.unique(np.stack([around[both], parts[both]]), axis=1)
        scored = []
        for number, surface in self._surfaces.items():
            matched = touching[1, touching[0] == number]
            if len(matched):
                mask = np.isin(parts, matched)
                shared = np.count_nonzero(mask & self._lesion(number, box))
                dice = 2 * shared / (sizes[matched].sum() + self._sizes[number])
                scored.append((dice, _hd95(surface, self._surface(mask, box))))
            else:
                scored.append(_MISSED)
        scored += [_MISSED] * (count - len(np.unique(touching[1])))
        dice, hd95 = np.mean(scored, axis=0) if scored else _PERFECT
        return {"lesion_dice": float(dice), "lesion_hd95": float(hd95)}

    def _lesion(self, number: int, box: tuple[slice, ...]) -> np.ndarray:
        return (self._around[box] == number) & self._mask[box]

    def _surface(self, mask: np.ndarray, box: tuple[slice, ...]) -> Surface:
        """Return the surface elements between voxels of a mask in a box, as DeepMind's surface-distance has them."""
        padded = torch.from_numpy(np.pad(mask, 1))
        edges, _, areas, _ = get_mask_edges(padded, padded, crop=False, spacing=self._spacing.tolist())
        corners = torch.argwhere(edges).numpy() + [side.start for side in box]
        return KDTree(corners * self._spacing), areas[edges].double().numpy()


_MISSED, _PERFECT = (
    tuple(getattr(METRICS[metric], end) for metric in ("lesion_dice", "lesion_hd95")) for end in ("worst", "best")
)


def _hd95(first: Surface, second: Surface) -> float:
    """Return the larger of the two distances within which 95 % of a surface's area lie from the other surface."""
    sides = []
    for (tree, areas), (target, _) in ((first, second), (second, first)):
        distances = target.query(tree.data)[0]
        order = np.argsort(distances)
        share = np.cumsum(areas[order]) / areas.sum()
        sides.append(distances[order[min(int(np.searchsorted(share, 0.95)), len(order) - 1)]])
    return max(sides)
