"""Whether evaluations may be put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from common.cohorts import shortened
from common.evaluation.metrics.results import Evaluation

Results = set[tuple[str, str]]
"""Subsets and cases that there are results for."""


def require_comparable(
    evaluations: Sequence[Evaluation], allow_missing: bool = False, force: bool = False
) -> tuple[list[Evaluation], list[str]]:
    """Return the evaluations reduced to the cases that all of them have, and remarks that a report must show.

    A case counts if every method has it, and for a subset if every method with that subset has the case for it. Cases
    of different cohorts are never the same ones: such evaluations stay whole, and there are no paired tests of them.

    Args:
        evaluations: to be compared.
        allow_missing: go on with the cases in common where some lack others.
        force: compare although cohorts, conventions or references differ; the remarks say so.

    Raises:
        ValueError: cohorts, conventions or references differ, names occur twice, cases are missing on one side, or none
            is in common; modalities or regions differ, whatever is allowed.
    """
    first, *others = evaluations
    names = [evaluation.name for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise ValueError(f"Two methods have the same name ({', '.join(names)}); give them as NAME=FOLDER.")
    apart = [what for other in others for what in _apart(first, other, ("modalities", "regions"))]
    if apart:
        raise ValueError(f"Not comparable: {'; '.join(apart)}. Evaluate all with the same cohort.")
    differences = [what for other in others for what in _differences(first, other)]
    if differences and not force:
        raise ValueError(
            f"Not comparable: {'; '.join(differences)}. Evaluate all with the same cohort, conventions and references; "
            "--force compares nevertheless and marks the report."
        )
    remarks = [f"Compared by force although not comparable: {what}." for what in differences]
    if len({evaluation.cohort for evaluation in evaluations}) > 1:
        return list(evaluations), [*remarks, "Different cohorts have no cases in common: there are no paired tests."]
    reduced, lacking = _in_common(evaluations)
    if lacking and not allow_missing:
        said = "; ".join(f"{name} lacks {', '.join(cases)}" for name, cases in lacking.items())
        raise ValueError(f"{said}. Complete them, or compare the cases in common with --allow-missing.")
    if any(evaluation.results.empty for evaluation in reduced):
        raise ValueError(f"No case is in all of {', '.join(names)}; are these results of the same data?")
    if lacking:
        said = "; ".join(f"{name} lacks {shortened(cases)}" for name, cases in lacking.items())
        remarks.append(f"Only cases in common are compared: {said}.")
    return reduced, remarks


def select_cases(evaluation: Evaluation, patterns: Sequence[str]) -> Evaluation:
    """Return an evaluation of those cases alone whose name matches a pattern such as ``BraTS2021_*``.

    Raises:
        ValueError: there is none for a pattern.
    """
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
    """Return the evaluations with the results in common, and what each one lacks: ``case``, or ``case (subset)``."""
    there = {evaluation.name: _pairs(evaluation.results) for evaluation in evaluations}
    everything = set.union(*there.values())
    subsets = {name: {subset for subset, _ in pairs} for name, pairs in there.items()}
    cases = {name: {case for _, case in pairs} for name, pairs in there.items()}
    lacking = {
        name: {(s, case) for s, case in everything - there[name] if s in subsets[name] or case not in cases[name]}
        for name in there
    }
    common = everything - set.union(*lacking.values())
    reduced = [
        replace(e, results=_kept(e.results, common), bins=_kept(e.bins, common), latents=_kept_latents(e, common))
        for e in evaluations
    ]
    return reduced, {name: _said(pairs, cases[name]) for name, pairs in lacking.items() if pairs}


def _pairs(rows: pd.DataFrame) -> Results:
    return set(rows[["modalities", "case"]].drop_duplicates().itertuples(index=False, name=None))


def _kept(rows: pd.DataFrame, common: Results) -> pd.DataFrame:
    return rows[np.array([pair in common for pair in zip(rows["modalities"], rows["case"], strict=True)], bool)]


def _kept_latents(evaluation: Evaluation, common: Results) -> pd.DataFrame:
    return evaluation.latents[evaluation.latents["case"].isin({case for _, case in common})]


def _said(lacking: Results, there: set[str]) -> list[str]:
    """Return the cases that a method lacks, by subset where it has the case for another one."""
    return sorted({f"{case} ({subset})" if case in there else case for subset, case in lacking})


def _apart(first: Evaluation, other: Evaluation, keys: Sequence[str]) -> list[str]:
    return [
        f"{key} of {first.name} is {getattr(first, key)}, of {other.name} {getattr(other, key)}"
        for key in keys
        if getattr(first, key) != getattr(other, key)
    ]


def _differences(first: Evaluation, other: Evaluation) -> list[str]:
    """Return in words what two evaluations do not share."""
    found = _apart(first, other, ("cohort",))
    ours, theirs = asdict(first.conventions), asdict(other.conventions)
    found += [
        f"convention {key} of {first.name} is {ours[key]!r}, of {other.name} {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    if first.cohort != other.cohort:
        return found
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
