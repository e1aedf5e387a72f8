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
        found = {e.name: e.facts[fact] for e in evaluations if fact in e.facts}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{name}: {value}" for name, value in found.items())
            remarks.append(f"The {fact}s differ ({said}), so differences are not due to the networks alone.")
    if len({evaluation.cohort for evaluation in evaluations}) > 1:
        return list(evaluations), [*remarks, "Different cohorts have no cases in common: there are no paired tests."]
    reduced, lacking = _in_common(evaluations)
    if lacking and not allow_missing:
        said = "; ".join(f"{name} lacks {', '.join(cases)}" for name, cases in lacking.items())
        raise ValueError(f"{said}. Complete them, or compare the cases in common with --allow-missing.")
    if any(evaluation.results.empty for evaluation in reduced):
        names = ", ".join(evaluation.name for evaluation in evaluations)
        raise ValueError(f"No case is in all of {names}; are these results of the same data?")
    if lacking:
        said = "; ".join(f"{name} lacks {shortened(cases)}" for name, cases in lacking.items())
        remarks.append(f"Only cases in common are compared: {said}.")
    return reduced, remarks


def select_cases(evaluation: Evaluation, patterns: Sequence[str]) -> Evaluation:
    """Return an evaluation of the cases that match any pattern such as ``BraTS2021_*``; each must match a case."""
    there = sorted(evaluation.results["case"].unique())
    found = {pattern: {case for case in there if fnmatchcase(case, pattern)} for pattern in patterns}
    idle = [pattern for pattern, cases in found.items() if not cases]
    if idle or not patterns:
        raise ValueError(f"{evaluation.name}: no case matches {', '.join(idle)}; there are {shortened(there)}.")
    chosen = set().union(*found.values())
    tables = {part: getattr(evaluation, part) for part in ("results", "bins", "latents")}
    rows = {part: table[table["case"].isin(chosen)] for part, table in tables.items()}
    return replace(evaluation, **rows)


def _in_common(evaluations: Sequence[Evaluation]) -> tuple[list[Evaluation], dict[str, list[str]]]:
    """Return the evaluations with their common results, and what each one lacks: ``case``, or ``case (subset)``."""
    there = {
        e.name: set(e.results[["modalities", "case"]].drop_duplicates().itertuples(index=False, name=None))
        for e in evaluations
    }
    everything = set.union(*there.values())
    subsets = {name: {subset for subset, _ in pairs} for name, pairs in there.items()}
    cases = {name: {case for _, case in pairs} for name, pairs in there.items()}
    lacking = {
        name: {(s, case) for s, case in everything - there[name] if s in subsets[name] or case not in cases[name]}
        for name in there
    }
    common = everything - set.union(*lacking.values())
    reduced = [
        replace(
            e,
            results=select_rows(e.results, ("modalities", "case"), common),
            bins=select_rows(e.bins, ("modalities", "case"), common),
            latents=e.latents[e.latents["case"].isin({case for _, case in common})],
        )
        for e in evaluations
    ]
    said = {
        name: sorted({f"{case} ({subset})" if case in cases[name] else case for subset, case in pairs})
        for name, pairs in lacking.items()
        if pairs
    }
    return reduced, said


def _differences(first: Evaluation, other: Evaluation) -> list[str]:
    ours, theirs = asdict(first.conventions), asdict(other.conventions)
    found = [
        f"convention {key} of {first.name} is {ours[key]!r}, of {other.name} {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if first.cohort != other.cohort:
        return [f"cohort of {first.name} is {first.cohort}, of {other.name} {other.cohort}", *found]
    both = _reference_volumes(first).merge(_reference_volumes(other), on=["case", "region"])
    apart = both[~np.isclose(both["value_x"], both["value_y"], rtol=1e-4, atol=1e-6)]
    if len(apart):
        case, region, one, two = apart.iloc[0]
        found.append(
            f"the reference of case {case} is another one ({region} {one:.4g} ml for {first.name}, {two:.4g} ml for "
            f"{other.name})"
        )
    return found


def _reference_volumes(evaluation: Evaluation) -> pd.DataFrame:
    rows = evaluation.results[evaluation.results["metric"] == "reference_volume"]
    return rows.groupby(["case", "region"], as_index=False)["value"].first()
