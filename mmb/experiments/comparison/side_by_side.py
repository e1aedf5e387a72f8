"""The same slices of several methods, from what their evaluations stored of each case."""

from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path

import numpy as np
import pandas as pd

from common.evaluation.metrics.case import CASE_COLUMNS
from common.evaluation.metrics.results import Evaluation, read_rows
from common.evaluation.report.slices import Slice
from common.modalities import display_subset, subset_name


def side_by_side(
    evaluations: Sequence[Evaluation],
    folders: Mapping[str, str],
    cases: Sequence[str],
    subsets: Sequence[str] | None = None,
) -> Iterator[Slice]:
    """Yield, for each case and subset, the slice of every method.

    Args:
        evaluations: the methods.
        folders: name of each method -> output folder of its evaluation, with its folder ``cases``.
        cases: names of cases.
        subsets: names of subsets, such as ``t1c+flair``; None for each modality alone, and all.
    """
    subsets = subsets or [*evaluations[0].modalities, subset_name(evaluations[0].modalities)]
    for case in cases:
        stored = {each.name: _planes(each, folders[each.name], case) for each in evaluations}
        shapes = {name: planes["image"].shape for name, planes in stored.items()}
        if len({*shapes.values()}) > 1:
            raise ValueError(f"{case}: slices of several sizes, {shapes}; evaluate all with the same `spacing`.")
        for subset in subsets:
            for evaluation in evaluations:
                dice, planes = evaluation.values("dice"), stored[evaluation.name]
                prediction = planes.get(f"{evaluation.facts['decision']}/{subset}")
                if prediction is None or (subset, case) not in dice.index:
                    raise ValueError(f"{evaluation.name}: {case} was not segmented from {subset}.")
                yield Slice(
                    title=f"{case}, from {display_subset(subset)}",
                    subset=subset,
                    images=planes["image"].astype(np.float32),
                    reference=planes["reference"],
                    prediction=prediction,
                    dice=tuple(dice.loc[(subset, case)]),
                    spacing=tuple(planes["spacing"]),
                    method=evaluation.name,
                )


def _planes(evaluation: Evaluation, folder: str, case: str) -> dict[str, np.ndarray]:
    """Return the stored planes of a case (see `CaseResult`): those whose Dice is that of the evaluation."""
    results = evaluation.results
    measured = _dice(results[results["case"] == case])
    for path in Path(folder, "cases").glob(f"{escape(case)}-*.csv"):
        rows = read_rows(path, CASE_COLUMNS)
        if measured and measured == _dice(rows[rows["decision"] == evaluation.facts["decision"]]):
            with np.load(path.with_suffix(".npz")) as arrays:
                return {key.removeprefix("plane/"): arrays[key] for key in arrays.files if key.startswith("plane/")}
    raise ValueError(
        f"{evaluation.name}: {Path(folder, 'cases')} has no slices of {case}; expected a case of this evaluation, and "
        "the folder to which it was written."
    )


def _dice(rows: pd.DataFrame) -> frozenset[tuple]:
    """Return the defined Dice of some rows, in no order."""
    dice = rows[(rows["metric"] == "dice") & rows["value"].notna()]
    return frozenset(dice[["modalities", "region", "value"]].itertuples(index=False, name=None))
