"""Checks of whether evaluations may be compared."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from common.evaluation.metrics.results import Evaluation, require_alike, select_rows
from common.text import shortened


def require_comparable(
    evaluations: Sequence[Evaluation], allow_missing: bool = False, force: bool = False
) -> tuple[list[Evaluation], list[str]]:
    """Return the evaluations reduced to the cases that all of them have, and remarks that a report must show.

    Without ``allow_missing`` different cases are an error. With it, a case is dropped if a method lacks it altogether,
    and left out of a subset if a method with results for that subset lacks it there. With ``force`` evaluations are
    compared although cohorts, conventions or references differ, and the remarks say so. Those of different cohorts then
    stay as they are, without paired tests, since their cases are never the same. Raises ValueError if evaluations
    differ in what is not allowed, in modalities or in regions, or have no case in common.
    """
    require_alike(evaluations)
    first, *others = evaluations
    differences = [what for other in others for what in _differences(first, other)]
    if differences and not force:
        raise ValueError(
            f"Not comparable: {'; '.join(differences)}. Evaluate all with the same cohort, conventions and references; "
            "--force compares nevertheless and marks the report."
        )
    remarks = [f"Compared by force although not comparable: {what}." for what in differences]
    for fact in ("decision", "precision"):
        values = {e.name: e.facts[fact] for e in evaluations if fact in e.facts}
        if len(set(values.values())) > 1:
            which = ", ".join(f"{name}: {value}" for name, value in values.items())
            remarks.append(f"The {fact}s differ ({which}), so differences are not due to the networks alone.")
    if len({evaluation.cohort for evaluation in evaluations}) > 1:
        return list(evaluations), [*remarks, "Different cohorts have no cases in common: there are no paired tests."]
    reduced, lacking = _in_common(evaluations)
    if any(evaluation.results.empty for evaluation in reduced):
        names = ", ".join(evaluation.name for evaluation in evaluations)
        raise ValueError(f"No case is in all of {names}; are these results of the same data?")
    if lacking and not allow_missing:
        raise ValueError(f"{lacking}. Complete them, or compare the cases in common with --allow-missing.")
    return reduced, [*remarks, f"Only cases in common are compared: {lacking}."] if lacking else remarks


def select_cases(evaluation: Evaluation, patterns: Sequence[str]) -> Evaluation:
    """Return an evaluation of the cases that match any pattern such as ``BraTS2021_*``; each must match a case."""
    cases = sorted(evaluation.results["case"].unique())
    matches = {pattern: {case for case in cases if fnmatchcase(case, pattern)} for pattern in patterns}
    idle = [pattern for pattern, matched in matches.items() if not matched]
    if idle or not patterns:
        raise ValueError(f"{evaluation.name}: no case matches {', '.join(idle)}; there are {shortened(cases)}.")
    chosen = set().union(*matches.values())
    tables = {part: getattr(evaluation, part) for part in ("results", "bins", "latents")}
    return replace(evaluation, **{part: rows[rows["case"].isin(chosen)] for part, rows in tables.items()})


def _in_common(evaluations: Sequence[Evaluation]) -> tuple[list[Evaluation], str]:
    """Return the evaluations with their common results, and in words what each one lacks."""
    pairs = {
        e.name: set(e.results[["modalities", "case"]].drop_duplicates().itertuples(index=False, name=None))
        for e in evaluations
    }
    everything, common, words = set.union(*pairs.values()), set.union(*pairs.values()), []
    for name, own in pairs.items():
        subsets, cases = ({pair[part] for pair in own} for part in (0, 1))
        lacking = {pair for pair in everything - own if pair[0] in subsets or pair[1] not in cases}
        common = common - lacking
        if lacking:
            listed = sorted({f"{case} ({subset})" if case in cases else case for subset, case in lacking})
            words.append(f"{name} lacks {shortened(listed)}")
    pair, cases = ("modalities", "case"), {case for _, case in common}
    reduced = [
        replace(
            e,
            results=select_rows(e.results, pair, common),
            bins=select_rows(e.bins, pair, common),
            latents=e.latents[e.latents["case"].isin(cases)],
        )
        for e in evaluations
    ]
    return reduced, "; ".join(words)


def _differences(first: Evaluation, other: Evaluation) -> list[str]:
    """Return the differences between two evaluations for which they cannot be compared."""
    ours, theirs = asdict(first.conventions), asdict(other.conventions)
    differences = [
        f"convention {key} of {first.name} is {ours[key]!r}, of {other.name} {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if first.cohort != other.cohort:
        return [f"cohort of {first.name} is {first.cohort}, of {other.name} {other.cohort}", *differences]
    both = _reference_volumes(first).merge(_reference_volumes(other), on=["case", "region"])
    apart = both[~np.isclose(both["value_x"], both["value_y"], rtol=1e-4, atol=1e-6)]
    if len(apart):
        case, region, ours, theirs = apart.iloc[0]
        differences.append(
            f"the reference of case {case} is another one ({region} {ours:.4g} ml for {first.name}, {theirs:.4g} ml "
            f"for {other.name})"
        )
    return differences


def _reference_volumes(evaluation: Evaluation) -> pd.DataFrame:
    rows = evaluation.results[evaluation.results["metric"] == "reference_volume"]
    return rows.groupby(["case", "region"], as_index=False)["value"].first()
