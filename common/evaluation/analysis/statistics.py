"""Means over cases and subsets, and their confidence intervals.

Tables and figures take their numbers from this module, so that `Conventions.average` is applied in one place. Functions
raise ValueError for a metric that is not in `METRICS`, or if voxels have to be pooled and there are no volumes.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation

RESAMPLES = 2000
"""Number of bootstrap samples. The limits of a 95 % interval are then 50 samples from either end."""
MEAN = "mean"
"""Name used for the mean over all subsets, or all regions, where the name of one of them could be."""
POOLED = {"dice": ("volume", "reference_volume"), "sensitivity": ("reference_volume",), "precision": ("volume",)}
"""Overlap metrics -> the volumes whose sum is the denominator: 2 TP / (P + R), TP / R and TP / P. Weighted with it, a
mean over cases is the metric of the voxels of all cases together.
"""


def is_pooled(evaluation: Evaluation, metric: str) -> bool:
    """Return whether a metric's means pool the voxels of all cases."""
    return evaluation.conventions.average == "voxel" and metric in POOLED


def subset_statistics(evaluation: Evaluation, metric: str) -> pd.DataFrame:
    """Return a metric's mean, standard deviation and number of cases for each subset and region.

    With ``average: voxel`` the means of `POOLED` metrics are computed from the pooled voxels of all cases. They have no
    standard deviation (NaN), and cases without any of these voxels do not count. All other means are over cases. NaN is
    left out. Returns a row per subset, fewest modalities first. The columns are (``mean``, ``std`` or ``n``, region),
    so that ``["mean"]`` is a table of subsets by regions. Units are those of the results; std is the sample's (n - 1).
    """
    values, weights = _weighted(evaluation, metric)
    total = weights.groupby("modalities", sort=False).sum()
    mean = (values * weights).groupby("modalities", sort=False).sum() / total.where(total > 0)
    std = values.groupby("modalities", sort=False).std()
    if is_pooled(evaluation, metric):
        std[:] = np.nan
    count = (weights > 0).groupby("modalities", sort=False).sum()
    parts = {"mean": mean, "std": std, "n": count}
    table = {
        key: part.reindex(evaluation.subsets, fill_value=0 if key == "n" else np.nan) for key, part in parts.items()
    }
    return pd.concat(table, axis=1, names=["statistic", "region"])


def subset_intervals(evaluation: Evaluation, metric: str) -> pd.DataFrame:
    """Return the 95 % bootstrap intervals over cases (see `bootstrap_mean`) of the means of `subset_statistics`.

    There is a row per subset; the columns are (``low`` or ``high``, region).
    """
    values, weights = _weighted(evaluation, metric)
    rows = {
        (subset, region): bootstrap_mean(values.loc[subset, region], weights.loc[subset, region])[1:]
        for subset in evaluation.subsets
        if subset in values.index
        for region in evaluation.regions
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])
    table.index = pd.MultiIndex.from_tuples(rows, names=["modalities", "region"])
    return table.unstack("region").reindex(evaluation.subsets)


def shared_cells(evaluations: Sequence[Evaluation], metric: str) -> frozenset[tuple[str, str]]:
    """Return the (subset, region) pairs for which all methods have a mean of a metric.

    Means over subsets can be compared only over the same subsets, since much depends on which modalities are present.
    """
    means = [subset_statistics(evaluation, metric)["mean"] for evaluation in evaluations]
    return frozenset.intersection(*(frozenset(mean.stack().dropna().index) for mean in means))


def with_shared_cells(evaluations: Sequence[Evaluation], metric: str) -> list[Evaluation]:
    """Return the evaluations with only the results of `shared_cells`; they are empty if nothing is shared."""
    shared = shared_cells(evaluations, metric)
    keys = [pd.MultiIndex.from_frame(evaluation.results[["modalities", "region"]]) for evaluation in evaluations]
    return [replace(e, results=e.results[key.isin([*shared])]) for e, key in zip(evaluations, keys, strict=True)]


def mean_over_subsets(evaluation: Evaluation, metric: str) -> pd.DataFrame:
    """Return a metric's mean over the subsets, with a 95 % bootstrap interval over cases.

    There is a row per region and, with several regions, one named ``mean`` for their mean. The columns are ``mean`` (of
    the means of `subset_statistics`), ``low`` and ``high``.
    """
    cases = evaluation.values(metric).index.unique("case")
    values, weights = (
        np.stack([frame[region].unstack("case").reindex(evaluation.subsets, columns=cases) for region in frame])
        for frame in _weighted(evaluation, metric)
    )
    parts = {region: slice(row, row + 1) for row, region in enumerate(evaluation.regions)}
    if len(parts) > 1:
        parts[MEAN] = slice(None)
    rows = {name: bootstrap_mean(values[part], weights[part]) for name, part in parts.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"]).rename_axis("region")


def bootstrap_mean(values: ArrayLike, weights: ArrayLike | None = None) -> tuple[float, float, float]:
    """Return a mean over cases and its 95 % percentile bootstrap interval (cases resampled, with a fixed seed).

    ``values`` are ``(..., N)`` for N cases, NaN if missing; ``weights``, of the same shape, are 1 by default. The mean
    is taken over the cases first, then over the preceding axes, the last one first: subsets, then regions. Returns the
    mean and the lower and upper limit. The mean is NaN without cases, the limits are NaN with fewer than two.
    """
    values = np.asarray(values, dtype=float)
    weights = np.where(np.isnan(values), 0, 1 if weights is None else weights)
    cases = np.flatnonzero((weights > 0).any(axis=tuple(range(weights.ndim - 1))))
    known, shares = np.nan_to_num(values[..., cases]), weights[..., cases]

    def mean(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        means = _mean(known[..., drawn], shares[..., drawn], axis)
        for outer in reversed(range(known.ndim - 1)):
            means = _mean(np.nan_to_num(means), ~np.isnan(means), outer)
        return means

    everyone = np.arange(len(cases))
    if len(cases) < 2:
        return float(mean(everyone)), np.nan, np.nan
    options = {"n_resamples": RESAMPLES, "batch": 100, "vectorized": True, "method": "percentile"}
    drawn = stats.bootstrap((everyone,), mean, **options, rng=np.random.default_rng(0))
    low, high = drawn.confidence_interval
    return float(mean(everyone)), float(low), float(high)


def _weighted(evaluation: Evaluation, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a metric's values and their weights in the mean over cases; the weight is 0 where there is no value."""
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}; expected one of {', '.join(METRICS)}.")
    values = evaluation.values(metric)
    weights = values.notna().astype(float)
    if is_pooled(evaluation, metric):
        volumes = sum(evaluation.values(name).reindex_like(values) for name in POOLED[metric])
        if (volumes.isna() & values.notna()).any(axis=None):
            raise ValueError(
                f"{evaluation.name}: conventions say `average: voxel`, but some values of {metric} lack their rows of "
                f"{' and '.join(POOLED[metric])}; evaluate again, or set `average: case`."
            )
        weights = volumes.where(values.notna(), 0)
    return values, weights


def _mean(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the weighted mean along an axis; NaN where all weights are 0."""
    with np.errstate(invalid="ignore"):
        return (values * weights).sum(axis) / weights.sum(axis)
