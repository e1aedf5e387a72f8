"""The worth of modalities: Shapley values, the best subset, and advice on which missing one to acquire."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd

from common.evaluation.analysis.statistics import MEAN, bootstrap_mean
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
    worth = {}
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
    dice = _complete(results, [*names.values()]).reindex(evaluation.regions, level="region")
    volumes = results[results["metric"] == "reference_volume"].groupby(["case", "region"])["value"].first()
    volumes = volumes.reindex(dice.index)
    if volumes.isna().any():
        case, region = volumes.index[volumes.isna()][0]
        raise ValueError(
            f"{evaluation.name}: case {case} has no reference_volume for {region}, which is needed to score an empty "
            "prediction. Evaluate again with this metric."
        )
    value = {subset: dice[name].to_numpy() for subset, name in names.items()}
    value[frozenset()] = dice_of_empty_prediction(volumes.to_numpy(), evaluation.conventions)
    worth = pd.DataFrame(shapley(value, evaluation.modalities), index=dice.index).dropna()
    return worth.melt(ignore_index=False, var_name="modality").reset_index()


def shapley_summary(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over cases of `shapley_values`: columns region, modality, mean, low, high (95 %), n (cases)."""
    return _mean_over_cases(values, ["region", "modality"])


def best_subsets(evaluation: Evaluation) -> pd.DataFrame:
    """Return the subset with the best mean Dice, and its gain over all modalities.

    A subset can be better than all modalities (MAG-MS, He et al., section 3.2). Choosing and measuring it on the same
    cases would overestimate it, so it is chosen on the calibration cases if these have the Dice. Only cases with a Dice
    for every subset of the evaluation count, even if tables pool voxels. Of equally good subsets, the one with the
    fewest modalities is taken.

    Returns a row per region and, with several regions, one named ``mean`` for the mean of their means. Columns: region;
    modalities (the best subset); best (its Dice, a fraction); all (that of all modalities); gain (best - all, paired by
    case); low and high (the gain's 95 % bootstrap interval over cases); n (cases); chosen_on (``calibration`` or
    ``evaluated``). There are no rows if there is only one subset, or none with all modalities.
    """
    columns = ["region", "modalities", "best", "all", "gain", "low", "high", "n", "chosen_on"]
    names, everything, rows = evaluation.subsets, subset_name(evaluation.modalities), []
    if everything not in names or len(names) < 2:
        return pd.DataFrame(columns=columns)
    measured, held_out = (_complete(frame, names) for frame in (evaluation.results, evaluation.calibration))
    parts = {region: [region] for region in evaluation.regions}
    if len(parts) > 1:
        parts[MEAN] = [*parts]
    for part, regions in parts.items():
        here, before = (dice[dice.index.isin(regions, level="region")] for dice in (measured, held_out))
        if here.empty:
            continue
        chosen_on = "evaluated" if before.empty else "calibration"
        best = _mean_dice(here if before.empty else before).idxmax()
        gain = (here[best] - here[everything]).unstack("case")
        dice = _mean_dice(here)[[best, everything]]
        rows.append((part, best, *dice, *bootstrap_mean(gain), gain.shape[1], chosen_on))
    return pd.DataFrame(rows, columns=columns)


def observed_gains(results: pd.DataFrame, modalities: Sequence[str]) -> pd.DataFrame:
    """Return how much each case's Dice gains when a missing modality is added to a subset, where both are defined.

    The columns are case, modalities (the subset), modality (the one added), region and gain.
    """
    steps = [
        (subset_name(subset), added, subset_name([name for name in modalities if name in (*subset, added)]))
        for subset in subsets(modalities)
        for added in modalities
        if added not in subset
    ]
    before = results.loc[results["metric"] == "dice", ["case", "modalities", "region", "value"]]
    after = before.rename(columns={"modalities": "more", "value": "after"})
    rows = pd.DataFrame(steps, columns=["modalities", "modality", "more"], dtype="str")
    rows = rows.merge(before, on="modalities").merge(after, on=["case", "region", "more"])
    rows["gain"] = rows["after"] - rows["value"]
    return rows.loc[rows["gain"].notna(), ["case", "modalities", "modality", "region", "gain"]].reset_index(drop=True)


def expected_gains(calibration: pd.DataFrame, modalities: Sequence[str]) -> pd.DataFrame:
    """Return the expected gain in Dice from adding a missing modality to a subset: the mean over calibration cases.

    ``calibration`` has the long-form rows of cases that are not evaluated (the validation split). The columns are
    modalities (the subset), modality (the one added), region, n (calibration cases) and average (a fraction). A step is
    left out if no case has the Dice before and after it.
    """
    steps = observed_gains(calibration, modalities).groupby(["modalities", "modality", "region"], sort=False)["gain"]
    return steps.agg(n="count", average="mean").reset_index()


def advice_table(evaluation: Evaluation) -> pd.DataFrame:
    """Return `expected_gains` in a report's layout: a row per step, a column per region and one for their mean."""
    gains, step = expected_gains(evaluation.calibration, evaluation.modalities), ["modalities", "modality"]
    wide = gains.pivot(index=step, columns="region", values="average").rename_axis(columns=None)
    wide = wide.reindex(pd.MultiIndex.from_frame(gains[step].drop_duplicates()), columns=evaluation.regions)
    return wide.assign(mean=wide.mean(axis=1)).reset_index()


def advice_quality(evaluation: Evaluation) -> pd.DataFrame:
    """Return how well `expected_gains` ranks the missing modalities of the evaluated cases.

    Every subset of a case that lacks two or more modalities counts once, and gains are means over regions. Results are
    averaged over a case's subsets, then over cases, with 95 % bootstrap intervals over cases. The columns are estimate
    (``average``, the expected gain, or ``chance``, a random choice), measure (see `ranking_quality`), mean, low, high
    and n (cases).
    """
    step = ["modalities", "modality"]
    advised = expected_gains(evaluation.calibration, evaluation.modalities).groupby(step)["average"].mean()
    observed = observed_gains(evaluation.results, evaluation.modalities).groupby(["case", *step])["gain"].mean()
    gains = observed.to_frame().join(advised, on=step, how="inner").assign(chance=0.0)
    rows = [
        (case, estimate, measure, value)
        for (case, _), asked in gains.groupby(["case", "modalities"])
        if len(asked) > 1
        for estimate in ("average", "chance")
        for measure, value in ranking_quality(asked[estimate].to_numpy(), asked["gain"].to_numpy()).items()
    ]
    asked = pd.DataFrame(rows, columns=["case", "estimate", "measure", "value"])
    per_case = asked.groupby(["estimate", "measure", "case"], sort=False)["value"].mean().dropna().reset_index()
    return _mean_over_cases(per_case, ["estimate", "measure"])


def ranking_quality(advised: np.ndarray, gained: np.ndarray) -> dict[str, float]:
    """Return how well the advised gains of missing modalities rank them by their observed gains.

    Of equally advised modalities one is taken at random, and the expected value over this choice is returned. So advice
    that is the same for all modalities is as good as chance.

    Returns:
        ``first_choice``: 1 if the modality advised first is (one of) the best, else 0.
        ``concordance``: fraction of the pairs with different gains that the advice orders correctly; a pair with equal
            advice counts half; NaN if no gains differ.
        ``regret``: Dice lost by following the advice instead of choosing the best.
    """
    chosen = advised == advised.max()
    first, second = np.triu_indices(len(gained), k=1)
    order = np.sign(gained[first] - gained[second])
    agreement = (1 + order * np.sign(advised[first] - advised[second])) / 2
    return {
        "first_choice": float((gained == gained.max())[chosen].mean()),
        "concordance": float(agreement[order != 0].mean()) if order.any() else float("nan"),
        "regret": float(gained.max() - gained[chosen].mean()),
    }


def _complete(results: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the Dice of cases that have it for all subsets: index (case, region), one column per subset, in order."""
    dice = results[results["metric"] == "dice"].pivot(index=["case", "region"], columns="modalities", values="value")
    return dice.reindex(columns=names).dropna()


def _mean_over_cases(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the mean of the column value over cases: columns ``keys``, mean, low, high (95 % interval) and n."""
    means = [
        (*key, *bootstrap_mean(values.to_numpy()), len(values))
        for key, values in rows.groupby(list(keys), sort=False)["value"]
    ]
    return pd.DataFrame(means, columns=[*keys, "mean", "low", "high", "n"])


def _mean_dice(dice: pd.DataFrame) -> pd.Series:
    """Return the mean over cases, then over regions, of each subset (column)."""
    return dice.groupby("region").mean().mean()
