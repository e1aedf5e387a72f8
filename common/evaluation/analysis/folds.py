"""Pooling of the folds of a cross-validation into one result."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from common.cohorts import shortened
from common.evaluation.analysis.repeats import SHARED_FACTS
from common.evaluation.metrics.results import Evaluation, require_alike


def pool_folds(name: str, folds: Sequence[Evaluation]) -> Evaluation:
    """Pool the results of all folds into one evaluation, in which no network was trained on a case that it segmented.

    Calibration and latents belong to single networks and are left out.

    Args:
        name: name of the method in the result.
        folds: one evaluation of each fold's test cases; their own names appear only in messages.

    Raises:
        ValueError: if there are fewer than two folds; their cohorts, conventions, modalities, regions, subsets or cases
            differ; a case is tested in two folds or in none; or an evaluation does not list the other cases of its
            split.
    """
    if len(folds) < 2:
        raise ValueError(f"folds: {len(folds)} given; expected the evaluations of two or more folds.")
    require_alike(folds)
    first, *others = folds
    for other in others:
        for key in ("cohort", "conventions", "subsets"):
            found, expected = getattr(other, key), getattr(first, key)
            if found != expected:
                raise ValueError(f"{key} of {other.name} is {found}, of {first.name} {expected}; expected the same.")
    _require_cases_once(folds)
    facts = {key: first.facts[key] for key in SHARED_FACTS if key in first.facts} | {"folds": len(folds)}
    return Evaluation(
        name=name,
        cohort=first.cohort,
        modalities=first.modalities,
        regions=first.regions,
        conventions=first.conventions,
        results=pd.concat([fold.results for fold in folds], ignore_index=True),
        bins=pd.concat([fold.bins for fold in folds], ignore_index=True),
        facts=facts,
    )


def _require_cases_once(folds: Sequence[Evaluation]) -> None:
    tested = {fold.name: set(fold.results["case"]) for fold in folds}
    everything = set().union(*tested.values(), *(fold.other_cases for fold in folds))
    place: dict[str, str] = {}
    for fold in folds:
        if not fold.other_cases:
            raise ValueError(
                f"{fold.name}: its evaluation.json does not list its training and validation cases (other_cases); "
                "evaluate it again."
            )
        if twice := sorted(case for case in tested[fold.name] if case in place):
            raise ValueError(
                f"{shortened(twice)}: tested by {place[twice[0]]} and by {fold.name}; expected folds of one "
                "cross-validation, each case in one of them (to average several seeds of one split, use `average`)."
            )
        place |= dict.fromkeys(tested[fold.name], fold.name)
        if foreign := sorted(everything - tested[fold.name] - set(fold.other_cases)):
            raise ValueError(f"{shortened(foreign)}: not in the split of {fold.name}, but in that of another fold.")
    if missing := sorted(everything - set(place)):
        raise ValueError(f"{shortened(missing)}: tested by none of {', '.join(tested)}; give all folds.")
