"""Calibration of probabilities, given the subset that they were predicted from."""

import pandas as pd


def calibration_error(bins: pd.DataFrame) -> pd.DataFrame:
    """Return the expected calibration error (ECE) of region probabilities for each subset, pooled over voxels.

    It is the mean of ``|observed frequency - mean predicted probability|`` over bins, weighted by their voxels (Naeini
    et al., AAAI 2015; Guo et al., ICML 2017). The probability is that of a voxel to be in the region, not the
    confidence in the predicted class. Most voxels are far from the region, so values are small. Only values over the
    same voxels can be compared: between methods, and between subsets if their modalities show the same brain. The
    columns are modalities, region, voxels and ece (a fraction).
    """
    sums = ["voxels", "probability", "positives"]
    curve = bins.groupby(["modalities", "region", "bin"], sort=False)[sums].sum().reset_index()
    curve["ece"] = (curve["positives"] - curve["probability"]).abs()
    pooled = curve.groupby(["modalities", "region"], sort=False)[["voxels", "ece"]].sum().reset_index()
    pooled["ece"] /= pooled["voxels"]
    return pooled
