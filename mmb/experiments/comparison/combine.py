"""Evaluations of the folds of a cross-validation, pooled into one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from common.evaluation.metrics.results import Evaluation
from common.text import shortened
from mmb.experiments.evaluations import require_own_output

SHARED_FACTS = (
    "parameters", "substitute_values", "gflops", "window", "spacing", "decision", "precision", "part",
)  # fmt: skip
"""Facts of a method that are kept if they are the same for all its trainings."""


def pool_folds(name: str, folds: Sequence[Evaluation]) -> Evaluation:
    """Return the results of all folds of a cross-validation, each case from the network not trained on it.

    Calibration and latents belong to single networks and are left out. The folds' own names appear only in messages.
    """
    first, *others = folds
    for other in others:
        for key in ("cohort", "conventions", "modalities", "regions", "subsets"):
            value, expected = getattr(other, key), getattr(first, key)
            if value != expected:
                raise ValueError(f"{key} of {other.name} is {value}, of {first.name} {expected}; expected the same.")
    _require_cases_once(folds)
    decisions = [str(fold.facts.get("decision", "threshold")) for fold in folds]
    if len({*decisions}) > 1:
        raise ValueError(f"{name}: the decisions differ ({', '.join(decisions)}); give results of one decision.")
    shared = set.intersection(*(set(fold.facts.items()) for fold in folds))
    facts = {key: first.facts[key] for key in SHARED_FACTS if (key, first.facts.get(key)) in shared}
    results, bins = (
        pd.concat([getattr(fold, part) for fold in folds], ignore_index=True) for part in ("results", "bins")
    )
    return Evaluation(
        name,
        first.cohort,
        first.modalities,
        first.regions,
        first.conventions,
        results,
        bins=bins,
        facts=facts | {"folds": len(folds)},
    )


def require_apart(output_dir: str, folders: Sequence[str]) -> None:
    """Refuse fewer than two folders, a folder that is given twice, and an output folder that is also read."""
    if len({Path(folder).resolve() for folder in folders}) < max(len(folders), 2):
        raise ValueError(f"folders {', '.join(folders)}: expected two or more, each once.")
    require_own_output(output_dir, folders)


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
            "cross-validation, each case in one of them."
        )
