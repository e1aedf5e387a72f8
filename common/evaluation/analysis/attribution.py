"""The worth of modalities: Shapley values."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd

from common.evaluation.analysis.statistics import bootstrap_mean
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import Evaluation
from common.modalities import subset_name, subsets


def shapley(value: Mapping[frozenset[str], np.ndarray | float], modalities: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the exact Shapley value of each of M modalities; they sum to ``value[all] - value[none]``.

    The value of modality m is what m adds, averaged over all orders in which the modalities can be added one by one.
    This is the sum over subsets S without m of ``|S|! (M - |S| - 1)! / M! (value[S with m] - value[S])`` (Shapley, A
    value for n-person games, 1953). ``value`` has a number or array for each of the ``2^M`` subsets.
    """
    total = len(modalities)
    worth: dict[str, Any] = {}
    for modality in modalities:
        others = [name for name in modalities if name != modality]
        worth[modality] = sum(
            (value[frozenset({*subset, modality})] - value[frozenset(subset)])
            * (factorial(size) * factorial(total - size - 1) / factorial(total))
            for size in range(total)
            for subset in combinations(others, size)
        )
    return worth


def dice_of_empty_prediction(reference_volume: np.ndarray, conventions: Conventions) -> np.ndarray:
    """Return the Dice without any modality, which is that of an empty prediction.

    It is 0 if the reference has the region, that is, if its volume (in any unit) is not 0. Otherwise it is 1, or NaN
    under the conventions that leave such cases out (``nan``, ``skip``).
    """
    without_region = np.nan if conventions.empty in ("nan", "skip") else 1.0
    return np.where(np.asarray(reference_volume) == 0, without_region, 0.0)


def shapley_values(evaluation: Evaluation) -> pd.DataFrame:
    """Return the Shapley value of each modality for a case's Dice: columns case, region, modality, value (a fraction).

    Only cases with a Dice for all ``2^M - 1`` subsets count; for the empty subset see `dice_of_empty_prediction`.
    """
    results, names = evaluation.results, {frozenset(s): subset_name(s) for s in subsets(evaluation.modalities)}
    dice = results[results["metric"] == "dice"].pivot(index=["case", "region"], columns="modalities", values="value")
    dice = dice.reindex(columns=[*names.values()]).dropna().reindex(evaluation.regions, level="region")
    volumes = results[results["metric"] == "reference_volume"].groupby(["case", "region"])["value"].first()
    value = {subset: dice[name].to_numpy() for subset, name in names.items()}
    value[frozenset()] = dice_of_empty_prediction(volumes.reindex(dice.index), evaluation.conventions)
    worth = pd.DataFrame(shapley(value, evaluation.modalities), index=dice.index).dropna()
    return worth.melt(ignore_index=False, var_name="modality").reset_index()


def shapley_summary(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over cases of `shapley_values`: columns region, modality, mean, low, high (95 %), n (cases)."""
    rows = [
        (*key, *bootstrap_mean(case["value"].to_numpy()), len(case))
        for key, case in values.groupby(["region", "modality"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["region", "modality", "mean", "low", "high", "n"])
