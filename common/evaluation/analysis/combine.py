"""Evaluations of several trainings of one method combined into one: averaged over seeds, or pooled over folds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from common.evaluation.analysis.comparable import require_comparable
from common.evaluation.metrics.results import COLUMNS, Evaluation, require_alike, require_own_output
from common.text import shortened

SHARED_FACTS = (
    "parameters", "substitute_values", "gflops", "window", "spacing", "coverage", "decision", "precision", "part",
)  # fmt: skip
"""Facts of a method that are kept if they are the same for all its trainings."""


def average_repeats(name: str, repeats: Sequence[Evaluation]) -> Evaluation:
    """Return the mean of every measure of each case and subset over trainings with different seeds.

    So the units of the statistics are still cases, whatever the number of seeds. A mean is NaN if any repeat has NaN.
    Reliability bins, latents and times belong to single trainings and are left out. Raises ValueError if the
    evaluations are not comparable.
    """
    require_comparable([replace(repeat, name=f"repeat {number}") for number, repeat in enumerate(repeats, 1)])
    results, calibration = (_mean([getattr(r, part) for r in repeats]) for part in ("results", "calibration"))
    return _combined(
        name,
        repeats,
        {"repeats": len(repeats)} | {key: repeats[0].facts[key] for key in ("split",) if key in repeats[0].facts},
        results=results,
        calibration=calibration,
    )


def spread(repeats: Sequence[Evaluation]) -> pd.DataFrame:
    """Return the mean and standard deviation (n - 1) over repeats of each region's mean Dice over cases and subsets.

    Columns are ``mean`` and ``std`` of Dice in [0, 1], with a row per region.
    """
    means = pd.DataFrame([repeat.values("dice").groupby("modalities").mean().mean() for repeat in repeats])
    return pd.DataFrame({"mean": means.mean(), "std": means.std()})


def pool_folds(name: str, folds: Sequence[Evaluation]) -> Evaluation:
    """Return the results of all folds of a cross-validation, each case from the network not trained on it.

    Calibration and latents belong to single networks and are left out. The folds' own names appear only in messages.
    Raises ValueError if cohorts, conventions, modalities, regions, subsets or splits' cases differ; if a case is tested
    in two folds or in none; or if an evaluation does not list the other cases of its split.
    """
    require_alike(folds)
    first, *others = folds
    for other in others:
        for key in ("cohort", "conventions", "subsets"):
            value, expected = getattr(other, key), getattr(first, key)
            if value != expected:
                raise ValueError(f"{key} of {other.name} is {value}, of {first.name} {expected}; expected the same.")
    _require_cases_once(folds)
    results, bins = (
        pd.concat([getattr(fold, part) for fold in folds], ignore_index=True) for part in ("results", "bins")
    )
    return _combined(name, folds, {"folds": len(folds)}, results=results, bins=bins)


def require_apart(output_dir: str, folders: Sequence[str]) -> None:
    """Refuse fewer than two folders, a folder that is given twice, and an output folder that is also read."""
    if len(folders) < 2:
        raise ValueError(f"{len(folders)} evaluations given; expected those of two or more trainings.")
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ValueError(f"folders {', '.join(folders)}: one is given twice; expected one for each training.")
    require_own_output(output_dir, folders)


def _combined(name: str, evaluations: Sequence[Evaluation], count: dict[str, int], **tables: Any) -> Evaluation:
    """Return an evaluation with these tables, what all trainings share, and the number of trainings."""
    first = evaluations[0]
    decisions = [evaluation.facts.get("decision", "threshold") for evaluation in evaluations]
    if len({*decisions}) > 1:
        raise ValueError(f"{name}: the decisions differ ({', '.join(decisions)}); give results of one decision.")
    shared = set.intersection(*(set(evaluation.facts.items()) for evaluation in evaluations))
    facts = {key: first.facts[key] for key in SHARED_FACTS if (key, first.facts.get(key)) in shared} | count
    return Evaluation(name, first.cohort, first.modalities, first.regions, first.conventions, facts=facts, **tables)


def _mean(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    keys = list(COLUMNS[:-1])
    joined = pd.concat([frame.set_index(keys)["value"] for frame in frames], axis=1)
    return joined.mean(axis=1, skipna=False).rename("value").reset_index()


def _require_cases_once(folds: Sequence[Evaluation]) -> None:
    """Refuse folds whose splits are not of the same cases, or that do not test each of these once."""
    splits = {fold.name: {*fold.results["case"], *fold.other_cases} for fold in folds}
    everything = set.union(*splits.values())
    for fold in folds:
        if not fold.other_cases:
            raise ValueError(f"{fold.name}: its evaluation.json does not list its training cases; evaluate it again.")
        if foreign := sorted(everything - splits[fold.name]):
            raise ValueError(f"{shortened(foreign)}: not in the split of {fold.name}, but in that of another fold.")
    times = Counter(case for fold in folds for case in fold.results["case"].unique())
    if wrong := sorted(case for case in everything if times[case] != 1):
        raise ValueError(
            f"{shortened(wrong)}: tested by {times[wrong[0]]} of {', '.join(splits)}; expected all folds of one "
            "cross-validation, each case in one of them (to average several seeds of one split, use `average`)."
        )
