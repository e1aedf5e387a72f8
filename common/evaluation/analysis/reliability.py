"""Reliability of predictions given their subset: calibration of probabilities, intervals for volumes."""

from fractions import Fraction
from math import ceil, inf

import numpy as np
import pandas as pd

from common.evaluation.metrics.results import Evaluation

VOLUMES = {"threshold": "volume", "expected_dice": "expected_volume", "by_sequences": "expected_volume"}
"""Decision -> the metric that estimates a region's volume: that of the segmentation, or the sum of probabilities. The
mask of highest expected Dice is larger than what is expected where the network is unsure."""
OFFSET = 1.0
"""Volume in ml that is added before ratios are taken, so that errors of small volumes count as absolute ones."""


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


def check_coverage(coverage: float) -> None:
    """Raise ValueError if the level of intervals is not between 0 and 1."""
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: expected a level above 0 and below 1, e.g. 0.9.")


def calibrate_intervals(calibration: pd.DataFrame, coverage: float, decision: str = "threshold") -> pd.DataFrame:
    """Calibrate split-conformal intervals for the true volume of a region, given the subset used for its prediction.

    The calibration has long-form rows of cases that are not evaluated, with ``reference_volume`` and the predicted
    volume of the decision (`VOLUMES`). The score of a case is ``|log((reference + 1 ml) / (predicted + 1 ml))|``, and
    the quantile is the ``ceil((n + 1) coverage)``-th smallest of n (Vovk et al., Algorithmic learning in a random
    world, 2005; Lei et al., Distribution-free predictive inference for regression, 2018).

    If the case is exchangeable with the calibration cases, intervals contain the true volume with a probability of at
    least ``coverage`` (above 0, below 1; see `fewest_cases`). This probability is an average over draws of the case and
    of the calibration cases; it is not guaranteed for each of them. A validation split that was used to select weights
    is only nearly exchangeable with the test split.

    Returns a row per subset and region; columns modalities, region, coverage (the level), n (calibration cases),
    quantile, decision.
    """
    check_coverage(coverage)
    volumes = _volumes(calibration, VOLUMES[decision])
    if volumes.empty:
        raise ValueError(
            f"calibration: no case has both {VOLUMES[decision]} and reference_volume; expected the validation split's "
            "results. Evaluate with calibration cases for volume intervals."
        )
    score = np.abs(np.log((volumes["reference_volume"] + OFFSET) / (volumes["volume"] + OFFSET)))
    rows = [
        (*key, coverage, len(scores), conformal_quantile(scores.to_numpy(), coverage), decision)
        for key, scores in score.groupby([volumes["modalities"], volumes["region"]], sort=False)
    ]
    return pd.DataFrame(rows, columns=["modalities", "region", "coverage", "n", "quantile", "decision"])


def volume_intervals(calibrated: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Return the intervals of `calibrate_intervals` for the true volumes of cases; no reference is needed.

    The columns are case, modalities, region, volume (predicted), low and high, in ml. Intervals are from 0 to infinity
    if there were too few calibration cases, or none for the subset and region.
    """
    keys = ["modalities", "region"]
    metric = VOLUMES[calibrated["decision"].iloc[0]]
    rows = results.loc[results["metric"] == metric, ["case", *keys, "value"]].rename(columns={"value": "volume"})
    quantile = rows.merge(calibrated[[*keys, "quantile"]], on=keys, how="left")["quantile"].fillna(inf).to_numpy()
    shifted = rows["volume"] + OFFSET
    low, high = shifted * np.exp(-quantile) - OFFSET, shifted * np.exp(quantile) - OFFSET
    return rows.assign(low=low.clip(lower=0), high=high).reset_index(drop=True)


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """Return the ``ceil((n + 1) coverage)``-th smallest of n scores, or infinity if that is more than n."""
    rank = ceil((len(scores) + 1) * Fraction(str(coverage)))  # exact: in floats, 100 * 0.55 is more than 55
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else inf


def coverage_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return how often the calibrated volume intervals contain the true volumes of the evaluated cases.

    Returns a row per region, over all subsets. Columns: region; cases (intervals that are finite, since infinite ones
    contain everything); covered (fraction of them that contain the true volume); width (median, ml). The latter two are
    NaN if no interval is finite.
    """
    keys, results = ["case", "modalities", "region"], evaluation.results
    facts = evaluation.facts
    calibrated = calibrate_intervals(evaluation.calibration, facts["coverage"], facts.get("decision", "threshold"))
    reference = results.loc[results["metric"] == "reference_volume", [*keys, "value"]]
    volumes = volume_intervals(calibrated, results).merge(reference, on=keys).replace(inf, np.nan).dropna()
    covered = volumes["value"].between(volumes["low"], volumes["high"])
    parts = volumes.assign(covered=covered, width=volumes["high"] - volumes["low"]).groupby("region")
    table = parts.agg(cases=("covered", "size"), covered=("covered", "mean"), width=("width", "median"))
    return (
        table.reindex(evaluation.regions)
        .fillna({"cases": 0})
        .astype({"cases": int})
        .rename_axis("region")
        .reset_index()
    )


def _volumes(results: pd.DataFrame, predicted: str) -> pd.DataFrame:
    """Return columns case, modalities, region, volume (the metric ``predicted``) and reference_volume, without gaps."""
    keys = ["case", "modalities", "region"]
    volume, reference = (
        results.loc[results["metric"] == metric, [*keys, "value"]].rename(columns={"value": name})
        for metric, name in ((predicted, "volume"), ("reference_volume", "reference_volume"))
    )
    return volume.merge(reference, on=keys).dropna()
