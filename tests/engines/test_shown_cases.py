"""Which cases a report shows."""

import numpy as np
import pandas as pd
import pytest

from common.engines.evaluate import _best_to_worst
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.evaluation.metrics.store import CaseStore

DICE = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.7, "e": 0.6}
SHOWN = {"t1": 0.1, "t2": 0.2, "t1+t2": 0.0}
"""Subset -> Dice that it loses."""


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("abcde", ["best case: b", "median case: e", "worst case: a"]),
        ("abcd", ["best case: b", "median case: c", "worst case: a"]),
        ("abc", ["best case: b", "median case: c", "worst case: a"]),
        ("ab", ["best case: b", "worst case: a"]),
        ("a", ["only case: a"]),
    ],
)
def test_best_median_and_worst_case_are_shown(tmp_path, cases, expected):
    store = CaseStore(tmp_path, [], [{"case": case, "image": [], "label": None} for case in cases])
    rows = [(case, subset, "WT", "dice", DICE[case] - lost) for case in cases for subset, lost in SHOWN.items()]
    for case in cases:
        plane = np.zeros((2, 2), np.uint8)
        planes = {"image": np.zeros((2, 2, 2), np.float16), "reference": plane, **dict.fromkeys(SHOWN, plane)}
        store.write(CaseResult(case, planes=planes | {"spacing": np.ones(2)}))
    evaluation = Evaluation("toy", "made up", ("t1", "t2"), ("WT",), Conventions(), pd.DataFrame(rows, columns=COLUMNS))
    slices = list(_best_to_worst(evaluation, store))
    assert list(dict.fromkeys(row.title for row in slices)) == expected
    assert [row.subset for row in slices] == ["t1", "t2", "t1+t2"] * len(expected)
