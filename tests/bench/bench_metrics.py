"""Measure how much faster our metrics are than the usual ways, for 15 predictions of 3 regions at BraTS's size.

Run: python tests/bench/bench_metrics.py [--wt 112000 --tc 24000 --ncr 7000] [--every 3]. It draws a tumour of these
numbers of voxels and 15 predictions of it, each worse than the one before and with stray islands. The ratios become
smaller with larger and more distant surfaces. One thread is used and CPU seconds are counted; the ways take turns on
each prediction, but medpy, the slowest, measures only every third.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from unittest.mock import patch

import fire
import numpy as np
import torch
from medpy.metric.binary import hd95
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.metrics import Reference
from common.modalities import tumour_labels

LABELS = tumour_labels(NCR=1, ED=2, ET=4)
PREDICTIONS = 15
SPACING = (1.0, 1.0, 1.0)


def _bumps(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), width)
    return field / field.std()


def _nested(depth: np.ndarray, voxels: dict[int, int]) -> np.ndarray:
    """Return a label map in which each value fills the given number of the smallest depths; later values overwrite."""
    order, label = np.argpartition(depth.ravel(), list(voxels.values())), np.zeros(depth.size, np.uint8)
    for value, count in voxels.items():
        label[order[:count]] = value
    return label.reshape(depth.shape)


def _draw(shape: tuple[int, ...], voxels: dict[int, int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a reference and predictions of it, the best one first."""
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in shape), indexing="ij")
    distance = sum((axis - 0.45 * size) ** 2 for axis, size in zip(grid, shape, strict=True)) ** 0.5 / 20
    depth = distance + 0.35 * _bumps(rng, shape, 6)
    predictions = [_nested(depth + (0.05 + 0.02 * n) * _bumps(rng, shape, 4), voxels) for n in range(PREDICTIONS)]
    for n, prediction in enumerate(predictions):
        for corner in rng.integers(30, np.array(shape) - 30, (n % 4, len(shape))):
            prediction[tuple(slice(start, start + 4) for start in corner)] = 2
    return _nested(depth, voxels), predictions


def _masks(label: np.ndarray) -> torch.Tensor:
    """Return the regions' masks ``(R, X, Y, Z)``; the time to make them is not counted."""
    return LABELS.to_regions(torch.from_numpy(label)[None])


def _by_medpy(prediction: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """Compute HD95 as the authors do: with medpy on int64 masks of the whole volume."""
    return [hd95(*pair, SPACING) for pair in zip(prediction.numpy(), reference.numpy(), strict=True)]


def _by_monai(prediction: torch.Tensor, reference: torch.Tensor) -> list[float]:
    masks = prediction[None], reference[None]
    return compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=SPACING)[0].tolist()


def _by_float_maps(prediction: np.ndarray, reference: np.ndarray) -> list[float]:
    """Compute Dice as the authors do: with a float map per class of both masks, summed to regions."""
    sides = []
    for label in (torch.from_numpy(prediction), torch.from_numpy(reference)):
        maps = {name: (label == value).float() for name, value in LABELS.values.items()}
        sides.append([sum(maps[name] for name in names) for names in LABELS.regions.values()])
    return [(2 * (p * r).sum() / (p.sum() + r.sum())).item() for p, r in zip(*sides, strict=True)]


def _timed(spent: list[float], what: Callable, *arguments: object, times: int = 1) -> object:
    runs = []
    for _ in range(times):
        start = time.process_time()
        result = what(*arguments)
        runs.append(time.process_time() - start)
    spent.append(median(runs))
    return result


def _column(found: dict[tuple[str, str], float], metric: str) -> np.ndarray:
    return np.array([value for (_, name), value in found.items() if name == metric])


def main(
    shape: tuple[int, int, int] = (240, 240, 155), wt: int = 112_000, tc: int = 24_000, ncr: int = 7_000, every: int = 3
) -> None:
    """Print seconds per prediction, ratios (medians over predictions) and the largest differences."""
    torch.set_num_threads(1)
    label, predictions = _draw(shape, {2: wt, 4: tc, 1: ncr})
    spent = {key: [] for key in ("measure", "dice", "medpy", "monai", "float maps", "once")}
    differences = {key: [] for key in ("medpy", "monai", "float maps")}
    reference = _timed(spent["once"], Reference, label, LABELS, SPACING, Conventions(hd95="pooled"))
    by_maximum = Reference(label, LABELS, SPACING, Conventions(hd95="max"))
    for n, prediction in enumerate(predictions):
        found = _timed(spent["measure"], reference.measure, prediction, times=3)
        with patch.multiple(
            "common.evaluation.metrics.metrics", _surface=lambda *_: None, _surface_scores=lambda *_: {}
        ):
            dice = _column(_timed(spent["dice"], reference.measure, prediction, times=3), "dice")
        masks = _masks(prediction), _masks(label)
        if n % every == 0:
            theirs = _timed(spent["medpy"], _by_medpy, *(side.long() for side in masks))
            differences["medpy"].append(abs(_column(found, "hd95") - theirs).max())
        theirs = _timed(spent["monai"], _by_monai, *masks)
        differences["monai"].append(abs(_column(by_maximum.measure(prediction), "hd95") - theirs).max())
        theirs = _timed(spent["float maps"], _by_float_maps, prediction, label)
        differences["float maps"].append(abs(dice - theirs).max())
        print(f"prediction {n}: Dice {dice.round(3)}, HD95 {_column(found, 'hd95').round(1)} mm")

    once = spent["once"][0] / PREDICTIONS  # the reference's share of each prediction

    def show(name: str, key: str, ours: list[float]) -> None:
        ratio = median(slow / (fast + once) for slow, fast in zip(spent[key], ours, strict=True))
        print(f"{name:40s} {median(spent[key]):8.3f} s {ratio:7.1f} x   largest difference {max(differences[key]):.1e}")

    print(f"all metrics, with the reference's share  {median(spent['measure']) + once:8.3f} s")
    show(f"HD95, medpy, on {len(spent['medpy'])} of {PREDICTIONS}", "medpy", spent["measure"][::every])
    show("HD95, MONAI", "monai", spent["measure"])
    print(f"overlap metrics alone, with that share   {median(spent['dice']) + once:8.3f} s")
    show("Dice, a float map per class", "float maps", spent["dice"])


if __name__ == "__main__":
    fire.Fire(main)
