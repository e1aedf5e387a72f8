"""The folds of a cross-validation become one evaluation, in which cases remain the units."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.metrics.results import read_evaluation, write_evaluation
from mmb.experiments.comparison.combine import pool_folds

CASES = ("a", "b", "c", "d", "e")


def fold(tested, everything=CASES, **more):
    others = tuple(case for case in everything if case not in tested)
    evaluation = random_evaluation("".join(tested), cases=tested, seed=sum(map(ord, tested)), **more)
    return replace(evaluation, other_cases=others)


def test_each_case_is_taken_from_the_fold_that_tested_it(tmp_path):
    folds = [fold(cases, facts={"part": "test", "split": f"cv{i}of3"}) for i, cases in enumerate(("ab", "cd", "e"), 1)]
    for one in folds:
        write_evaluation(one, tmp_path / one.name)
    pooled = pool_folds("method", [read_evaluation(tmp_path / one.name) for one in folds])
    values = pooled.values("dice")
    assert sorted(values.index.unique("case")) == list(CASES)
    for one in folds:
        expected = one.values("dice")
        np.testing.assert_allclose(values.loc[expected.index], expected)
    assert pooled.facts == {"folds": 3, "part": "test"}  # of no single split
    assert pooled.calibration.empty


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ([fold("ab"), fold("bc"), fold("de")], "b: tested by 2 of ab, bc, de"),
        ([fold("ab"), fold("de")], "c: tested by 0 of ab, de"),
        ([fold("ab"), fold("cde", "bcde")], "a: not in the split of cde, but in that of another"),
        ([fold("ab"), replace(fold("cde"), other_cases=())], "cde: its evaluation.json does not list"),
        ([fold("ab"), fold("cde", cohort="another")], "cohort of cde is another, of ab toy"),
        ([fold("ab"), fold("cde", hd95="pooled")], "conventions of cde"),
        ([fold("ab"), fold("cde", facts={"decision": "expected_dice"})], "the decisions differ"),
        ([fold("ab"), fold("cde", only=("t1",))], "subsets of cde"),
    ],
)
def test_what_is_no_whole_cross_validation_is_refused_by_name(folds, said):
    with pytest.raises(ValueError, match=said):
        pool_folds("method", folds)
