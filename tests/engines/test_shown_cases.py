"""Which cases a report shows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.engines.evaluate import Report, _shown
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.evaluation.metrics.store import CaseStore
from mmb.experiments.comparison.side_by_side import side_by_side

DICE = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.7, "e": 0.6}
SHOWN = {"t1": 0.1, "t2": 0.2, "t1+t2": 0.0}
"""Subset -> Dice that it loses."""


def evaluated(
    folder: Path, cases: str, name: str = "toy", lost: float = 0.0, drawn: int = 0, size: int = 2
) -> tuple[Evaluation, CaseStore]:
    """Return the results of cases with these names, and the store of their slices, labelled ``drawn``."""
    store = CaseStore(folder, [lost], [{"case": case, "image": [], "label": None} for case in cases])
    rows = [(case, subset, "WT", "dice", DICE[case] - lost - less) for case in cases for subset, less in SHOWN.items()]
    results, facts = pd.DataFrame(rows, columns=COLUMNS), {"decision": "threshold"}
    for case in cases:
        plane = np.full((size, size), drawn, np.uint8)
        planes = {"image": np.zeros((2, size, size), np.float16), "reference": plane, "spacing": np.ones(2)}
        measured = results[results["case"] == case].assign(decision="threshold")
        store.write(CaseResult(case, measured, planes=planes | {f"threshold/{name}": plane for name in SHOWN}))
    return Evaluation(name, "made up", ("t1", "t2"), ("WT",), Conventions(), results, facts=facts), store


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("abcde", ["best case: b", "median case: e", "worst case: a"]),
        ("abcd", ["best case: b", "median case: c", "worst case: a"]),
        ("ab", ["best case: b", "worst case: a"]),
        ("a", ["best case: a"]),
    ],
)
def test_best_median_and_worst_case_are_shown(tmp_path, cases, expected):
    slices = list(_shown(*evaluated(tmp_path, cases), None, None))
    assert list(dict.fromkeys(row.title for row in slices)) == expected
    assert [row.subset for row in slices] == ["t1", "t2", "t1+t2"] * len(expected)


def test_chosen_cases_and_subsets_are_shown_in_their_order(tmp_path):
    slices = list(_shown(*evaluated(tmp_path, "abc"), ["c", "a"], ["t1+t2", "t1"]))
    titles = ["chosen case: c", "chosen case: c", "chosen case: a", "chosen case: a"]
    assert [(row.title, row.subset) for row in slices] == list(zip(titles, ["t1+t2", "t1"] * 2, strict=True))


def test_methods_are_shown_side_by_side_by_the_slices_of_their_evaluations(tmp_path):
    evaluated(tmp_path / "a" / "cases", "abc", lost=0.05, drawn=9)  # of earlier weights, in the same folder
    methods = [evaluated(tmp_path / name / "cases", "abc", name, 0.1 * (name == "b"), name == "b")[0] for name in "ab"]
    folders = {name: str(tmp_path / name) for name in "ab"}
    slices = [*side_by_side(methods, folders, ["c"], ["t1+t2", "t1"])]
    titles = ["c, from T1 + T2", "c, from T1 + T2", "c, from T1", "c, from T1"]
    assert [(row.title, row.method, row.prediction.max()) for row in slices] == [
        *zip(titles, "abab", (0, 1, 0, 1), strict=True)
    ]
    assert [row.dice[0] for row in slices] == pytest.approx([0.5, 0.4, 0.4, 0.3])
    with pytest.raises(ValueError, match=r"a: .*cases has no slices of d"):
        [*side_by_side(methods, folders, ["d"])]
    with pytest.raises(ValueError, match=r"a: c was not segmented from t3"):
        [*side_by_side(methods, folders, ["c"], ["t3"])]
    coarse, _ = evaluated(tmp_path / "coarse" / "cases", "abc", "coarse", size=1)
    with pytest.raises(ValueError, match="several sizes"):
        [*side_by_side([methods[0], coarse], folders | {"coarse": str(tmp_path / "coarse")}, ["c"])]


RIGHT = {
    **{"method": "M", "cohort": "phantom", "conventions": {}, "decision": "threshold"},
    **{"data": {}, "cases": [{"case": "a"}, {"case": "b"}], "calibration_cases": []},
    **{"subsets": [("t1",), ("t1", "t2")], "window": (8, 8, 8), "spacing": (1, 1, 1), "facts": {}},
}


@pytest.mark.parametrize("panels", [{"panel_subsets": "null"}, {"panel_cases": "a,b", "panel_subsets": ["t1+t2"]}])
def test_panels_may_be_chosen(tmp_path, panels):
    report = Report(**RIGHT, output_dir=str(tmp_path), **panels)
    assert report.panel_cases == (["a", "b"] if "panel_cases" in panels else None)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"panel_cases": ["x"]}, "panel_cases: 'x' .* a, b"),
        ({"panel_subsets": "t1,t2+t1"}, r"panel_subsets: 't2\+t1' .* t1, t1\+t2"),
        ({"method": ("U-Net", "ModDrop")}, r"method \('U-Net', 'ModDrop'\): .* two pairs of quotes"),
        ({"cases": []}, "part of the split is empty"),
    ],
)
def test_wrong_settings_are_refused_before_the_evaluation(tmp_path, settings, facts):
    with pytest.raises(ValueError, match=facts):
        Report(**RIGHT | {"output_dir": str(tmp_path)} | settings)
