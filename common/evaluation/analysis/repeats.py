"""Averaging of several trainings of one method, with different seeds, into one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from common.evaluation.analysis.comparable import require_comparable
from common.evaluation.metrics.results import COLUMNS, Evaluation

SHARED_FACTS = ("parameters", "substitute_values", "gflops", "window", "spacing", "coverage")
"""Facts that are the same for all trainings of a method."""


def average_repeats(name: str, repeats: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of every measure of each case and subset over repeats of a training.

    Cases thus stay the units of statistics, whatever the number of seeds. A mean is NaN if any repeat has NaN.
    Reliability bins, latents and times belong to single trainings and are left out.

    Args:
        name: name of the method in the result.
        repeats: evaluations of the same cases and subsets, under the same conventions.

    Raises:
        ValueError: if there are fewer than two evaluations, or they are not comparable.
    """
    if len(repeats) < 2:
        raise ValueError(f"{len(repeats)} evaluations given; expected those of two or more trainings.")
    require_comparable([replace(repeat, name=f"repeat {number}") for number, repeat in enumerate(repeats, 1)])
    first = repeats[0]
    facts = {key: first.facts[key] for key in SHARED_FACTS if key in first.facts} | {"repeats": len(repeats)}
    return Evaluation(
        name=name,
        cohort=first.cohort,
        modalities=first.modalities,
        regions=first.regions,
        conventions=first.conventions,
        results=_mean([repeat.results for repeat in repeats]),
        calibration=_mean([repeat.calibration for repeat in repeats]),
        facts=facts,
    )


def spread(repeats: Sequence[Evaluation]) -> pd.DataFrame:
    """Return the mean and standard deviation (n - 1) over repeats of each region's mean Dice over cases and subsets.

    Returns:
        Columns ``mean`` and ``std`` of Dice in [0, 1], with a row per region.
    """
    means = pd.DataFrame([repeat.values("dice").groupby("modalities").mean().mean() for repeat in repeats])
    return pd.DataFrame({"mean": means.mean(), "std": means.std()})


def _mean(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    keys = list(COLUMNS[:-1])
    joined = pd.concat([frame.set_index(keys)["value"] for frame in frames], axis=1)
    return joined.mean(axis=1, skipna=False).rename("value").reset_index()
