"""Paired tests between methods, over the cases that both have."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from common.evaluation.analysis.statistics import MEAN, bootstrap_mean, shared_cells
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation


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


def _test(one: pd.Series, other: pd.Series) -> dict[str, float]:
    difference = (one - other).to_numpy()
    mean, low, high = bootstrap_mean(difference)
    p, effect = signed_rank(difference)
    means = {"mean": one.mean(), "other_mean": other.mean(), "difference": mean}
    return {"n": len(difference), **means, "low": low, "high": high, "p": p, "effect": effect}
