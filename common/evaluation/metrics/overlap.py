"""Overlap of a prediction with a reference label map, and the distances between their surfaces.

The values equal those of `monai.metrics` (and medpy's HD95, if pooled), but are faster for many predictions of a case:
voxels are counted in the prediction's bounding box alone, distances are searched between surface voxels alone (k-d
trees, exact), and the surfaces of the reference are computed once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from common.evaluation.metrics.conventions import METRICS, Conventions
from common.evaluation.metrics.lesions import Lesions
from common.modalities import IGNORED, LabelSet

DISTANCES = ("hd95", "hd", "assd")
SCORES = ("dice", *DISTANCES, "surface_dice", "sensitivity", "precision")
ROUNDING = 1e-6
"""Tolerance (mm) for rounding errors in the surface Dice: with 1.2 mm voxels, the distance of a neighbour is
1.2000000000000002 mm in floating point."""


class Reference:
    """A reference label map, with masks and surfaces of its regions computed once for all predictions.

    The label map ``(X, Y, Z)`` or ``(X, Y)`` has integers in the cohort's values, 0 for the background. The spacing is
    in mm along each axis. The attribute ``masks`` has the mask of each region by name. Voxels that are `IGNORED` belong
    to no region of the reference or of a prediction; the attribute ``counted`` is the mask of all others. Raises
    ValueError if the spacing, a value or the conventions do not fit.

    Examples:
        >>> import numpy as np
        >>> from common.cohorts import get_cohort
        >>> from common.evaluation import Reference
        >>> truth, prediction = np.array([[0, 2, 2], [0, 0, 4]]), np.array([[0, 2, 2], [0, 0, 0]])
        >>> scores = Reference(truth, get_cohort("brats2021").labels, spacing=(1, 1)).measure(prediction)
        >>> scores["WT", "dice"], scores["ET", "dice"]  # 2 * 2 / (3 + 2), and a region that was missed
        (0.8, 0.0)
    """

    def __init__(
        self,
        label: np.ndarray,
        labels: LabelSet,
        spacing: Sequence[float],
        conventions: Conventions = Conventions(),  # noqa: B008 (frozen)
    ) -> None:
        if conventions.et_min_voxels and not {"ET", "NCR"} <= set(labels.values):
            raise ValueError(
                f"conventions: et_min_voxels is {conventions.et_min_voxels}, but the classes are "
                f"{', '.join(labels.values)}; it needs ET and NCR. Set it to 0."
            )
        self._shape, self._labels, self._conventions = label.shape, labels, conventions
        self._spacing = np.asarray(spacing, dtype=float)
        if self._spacing.shape != (label.ndim,) or not (self._spacing > 0).all():
            raise ValueError(f"spacing {spacing}: expected the {label.ndim} sides of a voxel in mm.")
        self.counted = label != IGNORED
        label = np.where(self.counted, label, 0)
        _require_known(label, labels, "The reference")
        self.masks = dict(zip(labels.regions, region_masks(label, labels), strict=True))
        self._sizes = {region: int(np.count_nonzero(mask)) for region, mask in self.masks.items()}
        task = conventions.lesion_wise
        self._lesions = {region: Lesions(mask, spacing, task) for region, mask in self.masks.items() if task}
        box = _bounding_box(label)
        self._surfaces = {region: _surface(mask[box], box, self._spacing) for region, mask in self.masks.items()}

    def prepared(self, prediction: np.ndarray) -> np.ndarray:
        """Return a predicted label map as it is measured: after the conventions' post-processing, 0 where ignored.

        The prediction has integers in the cohort's values and the reference's shape. An enhancing tumour of fewer than
        ``et_min_voxels`` becomes necrosis. Nothing else changes predictions before they are measured.
        """
        if prediction.shape != self._shape:
            raise ValueError(f"The prediction's shape is {prediction.shape}; expected the reference's, {self._shape}.")
        if least := self._conventions.et_min_voxels:
            enhancing = prediction == self._labels.values["ET"]
            if np.count_nonzero(enhancing) < least:
                prediction = np.where(enhancing, prediction.dtype.type(self._labels.values["NCR"]), prediction)
        return prediction * self.counted

    def measure(self, prediction: np.ndarray) -> dict[tuple[str, str], float]:
        """Compare a prediction with the reference, after the post-processing that the conventions define."""
        return self.compare(self.prepared(prediction))

    def compare(self, prediction: np.ndarray) -> dict[tuple[str, str], float]:
        """Compare a prediction, as `prepared` returns it, with the reference.

        Surface voxels are the voxels of a region at the image's edge, or with a face (2D: edge) neighbour outside the
        region. Each has a distance to the nearest surface voxel of the other side. HD95 and the Hausdorff distance are
        the 95th percentile and the maximum of these distances. The average surface distance is their mean over both
        sides' voxels. The surface Dice (Nikolov et al. 2021, arXiv:1809.04430, here by voxels) is the fraction within
        the tolerance.

        Returns ``(region, metric)`` -> value, with regions in the label set's order and metrics in that of `METRICS`.
        Values are fractions, mm, or ml (2D: of slices 1 mm thick). Volumes are never NaN. If ``conventions.empty`` is
        ``skip``, a region that the reference lacks has only volumes.
        """
        box = _bounding_box(prediction)
        values: dict[tuple[str, str], float] = {}
        inside = np.where(prediction[box] == IGNORED, 0, prediction[box])
        _require_known(inside, self._labels, "The prediction")
        for region, mask in zip(self._labels.regions, region_masks(inside, self._labels), strict=True):
            measured = self._compare(region, mask, box)
            values |= {(region, metric): float(measured[metric]) for metric in METRICS if metric in measured}
        return values

    def _compare(self, region: str, mask: np.ndarray, box: tuple[slice, ...]) -> dict[str, float]:
        predicted, expected = int(np.count_nonzero(mask)), self._sizes[region]
        millilitres = self._spacing.prod() / 1000
        measured = {"volume": predicted * millilitres, "reference_volume": expected * millilitres}
        if self._lesions:
            measured |= self._lesions[region].scores(mask, box)
        if not (predicted and expected):
            return measured | _empty_scores(predicted, expected, self._conventions.empty)
        shared = np.count_nonzero(mask & self.masks[region][box])
        overlap = {
            "dice": 2 * shared / (predicted + expected),
            "sensitivity": shared / expected,
            "precision": shared / predicted,
        }
        surface = _surface(mask, box, self._spacing)
        return measured | overlap | _surface_scores(surface, self._surfaces[region], self._conventions)


def region_masks(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return the regions of an integer label map of any shape ``(...)``: bool ``(R, ...)``, see `LabelSet`."""
    return labels.to_regions(torch.from_numpy(np.ascontiguousarray(label))[None]).numpy().view(bool)


def _empty_scores(predicted: int, expected: int, empty: str) -> dict[str, float]:
    """Return the scores of a region that is empty on at least one side, as `Conventions` defines them."""
    if empty == "skip" and not expected:
        return {}
    if not (predicted or expected):
        scores: dict[str, Any] = {metric: METRICS[metric].best for metric in SCORES}
    else:
        scores = {metric: METRICS[metric].worst for metric in SCORES}
        if empty == "released":
            scores |= dict.fromkeys(DISTANCES, 1.0)
    if empty == "nan":
        scores |= dict.fromkeys((*DISTANCES, "precision") if expected else SCORES, float("nan"))
    return scores


def _surface_scores(prediction: KDTree, reference: KDTree, conventions: Conventions) -> dict[str, float]:
    """Compare the surface voxels of two non-empty regions."""
    sides = reference.query(prediction.data)[0], prediction.query(reference.data)[0]
    both = np.concatenate(sides)
    return {
        "hd95": np.percentile(both, 95) if conventions.hd95 == "pooled" else max(np.percentile(d, 95) for d in sides),
        "hd": both.max(),
        "assd": both.mean(),
        "surface_dice": np.mean(both <= conventions.surface_tolerance + ROUNDING),
    }


def _require_known(label: np.ndarray, labels: LabelSet, source: str) -> None:
    """Refuse values that are not a class."""
    if sum(np.count_nonzero(label == value) for value in labels.values.values()) != np.count_nonzero(label):
        labels.check(np.unique(label).tolist(), source)


def _bounding_box(label: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of all voxels that are not background, which may be empty."""
    inside, box = label != 0, []
    for axis in range(label.ndim):
        planes = np.flatnonzero(inside.any(axis=tuple(other for other in range(label.ndim) if other != axis)))
        side = slice(int(planes[0]), int(planes[-1]) + 1) if len(planes) else slice(0, 0)
        inside = inside[(*[slice(None)] * axis, side)]  # makes the search along the next axis smaller
        box.append(side)
    return tuple(box)


def _surface(mask: np.ndarray, box: tuple[slice, ...], spacing: np.ndarray) -> KDTree:
    """Return the surface voxels of a region (mm in the whole image) from its mask in a box that contains it."""
    inner = mask.copy()  # erosion by shifts, ten times faster than scipy's
    for axis in range(mask.ndim):
        eroded, whole = inner.swapaxes(0, axis), mask.swapaxes(0, axis)
        eroded[1:] &= whole[:-1]
        eroded[:-1] &= whole[1:]
        eroded[:1] = eroded[-1:] = False
    voxels = np.stack(np.unravel_index(np.flatnonzero(mask ^ inner), mask.shape), axis=1)
    millimetres = (voxels + [side.start for side in box]) * spacing
    return KDTree(millimetres, leafsize=48, balanced_tree=False)  # fastest settings for voxels of a grid
