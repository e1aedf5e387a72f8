"""Binning of a region's probabilities for a reliability diagram."""

import numpy as np
import pandas as pd

BINS = 15  # equal-width bins of probability, as in Guo et al., On calibration of modern neural networks, ICML 2017


def bin_probabilities(probability: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> pd.DataFrame:
    """Return the bins of a reliability diagram of one region, from the voxels of a mask.

    All arguments have one shape, whatever it is: the predicted probabilities in [0, 1], the reference's mask of the
    region, and the voxels to count (the brain, as the subset's modalities show it). Returns a row per bin, including
    empty ones; bin b of `BINS` holds ``b / BINS <= probability < (b + 1) / BINS``, the last bin also 1. Columns bin,
    voxels, probability (sum over the voxels, 64-bit) and positives (number of voxels in the region).
    """
    probability, truth, mask = np.asarray(probability, np.float32), np.asarray(truth) > 0, np.asarray(mask) > 0
    probability, truth = probability[mask], truth[mask]
    # Sums of class probabilities may exceed 1 slightly because of rounding.
    if len(probability) and not (probability.min() >= 0 and probability.max() < 1.001):
        raise ValueError(
            f"Probabilities from {probability.min()} to {probability.max()}; expected 0 to 1. Apply softmax or sigmoid."
        )
    index = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return pd.DataFrame(
        {
            "bin": np.arange(BINS),
            "voxels": np.bincount(index, minlength=BINS),
            "probability": np.bincount(index, weights=probability, minlength=BINS),
            "positives": np.bincount(index, weights=truth, minlength=BINS).astype(np.int64),
        }
    )
