"""Whether evaluations may be compared, and of which cases."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from common.evaluation.metrics.results import Evaluation
from common.text import shortened


def require_comparable(evaluations: Sequence[Evaluation]) -> list[str]:
    """Refuse evaluations whose numbers cannot be compared; return remarks that a report must show on the others.

    All must have the same cohort, conventions, modalities, regions, references and cases. A method may have fewer
    subsets than another, but none with fewer cases.
    """
    first, *others = evaluations
    if differences := [what for other in others for what in _differences(first, other)]:
        raise ValueError(
            f"Not comparable: {'; '.join(differences)}. Evaluate all with the same cohort, conventions and references."
        )
    if lacking := _lacking(evaluations):
        raise ValueError(f"{lacking}. Complete them, or name the cases to compare with --cases.")
    remarks = []
    for fact in ("decision", "precision"):
        values = {e.name: e.facts[fact] for e in evaluations if fact in e.facts}
        if len(set(values.values())) > 1:
            which = ", ".join(f"{name}: {value}" for name, value in values.items())
            remarks.append(f"The {fact}s differ ({which}), so differences are not due to the networks alone.")
    return remarks


def select_cases(evaluation: Evaluation, patterns: Sequence[str]) -> Evaluation:
    """Return an evaluation of the cases that match any pattern such as ``BraTS2021_*``; each must match a case."""
    cases = sorted(evaluation.results["case"].unique())
    matches = {pattern: {case for case in cases if fnmatchcase(case, pattern)} for pattern in patterns}
    if idle := [pattern for pattern, matched in matches.items() if not matched]:
        raise ValueError(f"{evaluation.name}: no case matches {', '.join(idle)}; there are {shortened(cases)}.")
    chosen = set().union(*matches.values())
    tables = {part: getattr(evaluation, part) for part in ("results", "bins", "latents")}
    return replace(evaluation, **{part: rows[rows["case"].isin(chosen)] for part, rows in tables.items()})


def _lacking(evaluations: Sequence[Evaluation]) -> str:
    """Return in words the cases that each method lacks, altogether or from one of its subsets."""
    pairs = {
        e.name: set(e.results[["modalities", "case"]].drop_duplicates().itertuples(index=False, name=None))
        for e in evaluations
    }
    words = []
    for name, own in pairs.items():
        subsets, cases = ({pair[part] for pair in own} for part in (0, 1))
        lacking = {
            f"{case} ({subset})" if case in cases else case
            for subset, case in set.union(*pairs.values()) - own
            if subset in subsets or case not in cases
        }
        if lacking:
            words.append(f"{name} lacks {shortened(sorted(lacking))}")
    return "; ".join(words)


def _differences(first: Evaluation, other: Evaluation) -> list[str]:
    """Return the differences between two evaluations for which they cannot be compared."""
    ours, theirs = (
        {"cohort": e.cohort, "modalities": e.modalities, "regions": e.regions, **asdict(e.conventions)}
        for e in (first, other)
    )
    differences = [
        f"{key} of {first.name} is {ours[key]!r}, of {other.name} {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key]
    ]
    both = _reference_volumes(first).merge(_reference_volumes(other), on=["case", "region"])
    apart = both[~np.isclose(both["value_x"], both["value_y"], rtol=1e-4, atol=1e-6)]
    if len(apart):
        case, region, *volumes = apart.iloc[0]
        differences.append(
            f"the reference of case {case} is another one ({region} {volumes[0]:.4g} ml for {first.name}, "
            f"{volumes[1]:.4g} ml for {other.name})"
        )
    return differences


def _reference_volumes(evaluation: Evaluation) -> pd.DataFrame:
    rows = evaluation.results[evaluation.results["metric"] == "reference_volume"]
    return rows.groupby(["case", "region"], as_index=False)["value"].first()
