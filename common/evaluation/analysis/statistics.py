"""Means over cases and subsets, their confidence intervals, and paired tests between methods.

Tables and figures take their numbers from this module, so that `Conventions.average` is applied in one place. Functions
raise ValueError for a metric that is not in `METRICS`, or if voxels have to be pooled and there are no volumes.
"""

from collections.abc import Collection, Sequence
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


def holm(p: ArrayLike) -> np.ndarray:
    """Return p-values ``(N,)`` corrected for their number (Holm, 1979); NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def signed_rank(difference: ArrayLike) -> tuple[float, float]:
    """Test whether paired differences ``(N,)`` are centred at 0: Wilcoxon's signed-rank test, two-sided.

    Differences of 0 are dropped, ranks of ties are averaged, and no continuity correction is made. p is computed as
    `scipy.stats.wilcoxon` chooses: exactly up to 50 differences (with ties up to 13), and by the normal approximation
    beyond; it is 1 if all differences are 0 and NaN for fewer than two. The second result is the matched-pairs
    rank-biserial correlation, (W+ - W-) / (W+ + W-), above 0 if positive differences prevail (Kerby, 2014).
    """
    difference = np.asarray(difference, dtype=float)
    if len(difference) < 2:
        return np.nan, np.nan
    changes: np.ndarray = difference[difference != 0]
    if not len(changes):
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(changes))
    return float(stats.wilcoxon(changes).pvalue), float(np.sign(changes) @ ranks / ranks.sum())


def paired_tests(
    one: Evaluation, other: Evaluation, metric: str, averaged: Collection[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Compare two methods, for each subset and region, over the cases for which both have a value.

    Tests and their means are per case, even if tables pool voxels (``average: voxel``). There is a row for each subset
    and region that both methods have, and then one per region named ``mean``, for which each case's values are first
    averaged over the subsets. ``averaged`` are the (subset, region) pairs in this average, by default all that both
    have.

    Columns: ``modalities``; ``region``; ``n`` (pairs); ``mean`` (of ``one``); ``other_mean``; ``difference`` (of the
    means); ``low`` and ``high`` (its 95 % bootstrap interval); ``p`` and ``effect`` (see `signed_rank`); ``p_holm``
    (corrected for the number of subsets and regions, or, in the rows ``mean``, for the number of these rows).
    """
    left, right = one.values(metric), other.values(metric)
    common, regions = left.index[left.index.isin(right.index)], one.regions
    if common.empty:
        raise ValueError(f"{one.name!r} and {other.name!r} share no subset and case with a value of {metric!r}.")
    left, right = left.loc[common], right.loc[common]
    left, right = left.where(right.notna()), right.where(left.notna())
    subset_of = common.get_level_values("modalities")
    counts = np.array([[averaged is None or (name, region) in averaged for region in regions] for name in subset_of])
    per_case = [frame.where(counts).groupby("case", sort=False).mean() for frame in (left, right)]
    samples = {name: (left.loc[name], right.loc[name]) for name in common.unique("modalities")} | {MEAN: per_case}
    rows = [
        {"modalities": name, "region": region, **_test(a[region].dropna(), b[region].dropna())}
        for name, (a, b) in samples.items()
        for region in regions
    ]
    tests = pd.DataFrame(rows)
    families = tests.groupby(tests["modalities"] == MEAN)["p"]
    tests.insert(tests.columns.get_loc("p") + 1, "p_holm", families.transform(holm))
    return tests


def compare_to_first(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Compare every other method with the first one, in all metrics that have a best value and that all methods have.

    Returns the rows of `paired_tests` of each method and the first one, with the columns ``method``, ``other`` (names)
    and ``metric`` before the others. The rows ``mean`` are over the `shared_cells` of all methods, as in tables.
    """
    measured = set.intersection(*(set(evaluation.results["metric"]) for evaluation in evaluations))
    first, *rest = evaluations
    averaged = {
        name: shared_cells(evaluations, name)
        for name, metric in METRICS.items()
        if metric.best is not None and name in measured
    }
    tests = [
        paired_tests(method, first, metric, cells).assign(method=method.name, other=first.name, metric=metric)
        for method in rest
        for metric, cells in averaged.items()
    ]
    table, keys = pd.concat(tests, ignore_index=True), ["method", "other", "metric"]
    return table[[*keys, *table.columns.drop(keys)]]


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


def _test(one: pd.Series, other: pd.Series) -> dict[str, float]:
    difference = (one - other).to_numpy()
    mean, low, high = bootstrap_mean(difference)
    p, effect = signed_rank(difference)
    means = {"mean": one.mean(), "other_mean": other.mean(), "difference": mean}
    return {"n": len(difference), **means, "low": low, "high": high, "p": p, "effect": effect}
