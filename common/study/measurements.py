"""Measurements of one segmentation: volumes, their intervals, and expected gains from missing modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from common.evaluation.analysis.reliability import volume_intervals
from common.evaluation.metrics.results import COLUMNS
from common.evaluation.report.style import number
from common.modalities import LabelSet

REGIONS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}


def in_words(region: str) -> str:
    """Return a region's name in words, e.g. ``whole tumour`` for ``WT``; unknown names stay unchanged."""
    return REGIONS.get(region, region)


def millilitres(volume: float) -> str:
    """Return a volume in ml as text, without the unit."""
    return "< 0.1" if 0 < volume < 0.05 else number(volume)


def region_masks(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return the regions of a label map ``(X, Y, Z)``, bool ``(R, X, Y, Z)``."""
    return labels.to_regions(torch.from_numpy(label.astype(np.int64))[None]).numpy() > 0


def volumes(label: np.ndarray, labels: LabelSet, spacing: Sequence[float]) -> dict[str, float]:
    """Return the volume of each region in ml.

    Args:
        label: label map ``(X, Y, Z)`` in the values of ``labels``.
        labels: label set that defines the regions.
        spacing: voxel size in mm.
    """
    masks = region_masks(label, labels)
    return {region: volume_of(mask, spacing) for region, mask in zip(labels.regions, masks, strict=True)}


def volume_of(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the volume in ml of a mask ``(X, Y, Z)`` with the given voxel size in mm."""
    return float(np.count_nonzero(mask) * np.prod(spacing) / 1000)


def intervals(
    calibration: pd.DataFrame | None, subset: str, measured: Mapping[str, float], brain: float
) -> dict[str, tuple[float, float, float]]:
    """Return the interval of each region's true volume as (low, high, coverage), where the calibration gives one.

    Args:
        calibration: calibration table of an evaluation, see `volume_intervals`; None if there is none.
        subset: modalities that the segmentation was made from, e.g. ``t1c+flair``.
        measured: region -> volume in ml.
        brain: volume in ml of the visible brain, which bounds all intervals.
    """
    if calibration is None or calibration.empty:
        return {}
    rows = [("case", subset, region, "volume", volume) for region, volume in measured.items()]
    bounds = volume_intervals(calibration, pd.DataFrame(rows, columns=COLUMNS))
    coverage = float(calibration["coverage"].iloc[0])
    return {row.region: (row.low, min(row.high, brain), coverage) for row in bounds.itertuples() if row.high < np.inf}


def gains(advice: pd.DataFrame | None, subset: str) -> dict[str, dict[str, float]]:
    """Return missing modality -> region -> expected gain in Dice, as a fraction.

    Args:
        advice: advice table of an evaluation; None if there is none.
        subset: modalities that are present, e.g. ``t1c+flair``.
    """
    expected: dict[str, dict[str, float]] = {}
    if advice is not None:
        for row in advice[advice["modalities"] == subset].itertuples():
            expected.setdefault(row.modality, {})[row.region] = row.average
    return expected


def connected_pieces(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number (1, 2, ...) of each voxel's connected piece, and the pieces' sizes in voxels.

    Voxels that share a corner are connected.
    """
    numbers, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    return numbers, np.bincount(numbers.ravel())[1:]
