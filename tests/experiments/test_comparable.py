"""Which evaluations can be compared or are folds of one, and the choice of cases."""

import re
from dataclasses import replace

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.metrics.results import Evaluation, read_evaluation, write_evaluation
from common.transforms.decision import DECISIONS
from mmb.experiments.comparison.combine import pool_folds
from mmb.experiments.comparison.comparable import require_comparable, select_cases

ONE = random_evaluation()


def two(**more) -> Evaluation:
    return random_evaluation("two", seed=1, **more)


def without(evaluation: Evaluation, case: str, subset: str | None = None) -> Evaluation:
    """Return an evaluation that lacks a case, or a case's subset."""
    rows = evaluation.results
    gone = (rows["case"] == case) & ((rows["modalities"] == subset) if subset else True)
    return replace(evaluation, results=rows[~gone])


def with_reference(value: float) -> Evaluation:
    """Return the second method with another reference volume of ET in case c2, 7 ml in the first."""
    rows = two().results
    chosen = (rows["case"] == "c2") & (rows["region"] == "ET") & (rows["metric"] == "reference_volume")
    return replace(two(), results=rows.assign(value=rows["value"].where(~chosen, value)))


def only_volumes(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation without scores of case c2, as of an empty reference under ``skip``."""
    rows = evaluation.results
    return replace(evaluation, results=rows[(rows["case"] != "c2") | rows["metric"].isin(["reference_volume"])])


@pytest.mark.parametrize("evaluations", [
    [ONE],
    [ONE, two()],
    [ONE, with_reference(7.0001)],
    [ONE, two(only=["t1+t2+flair"])],  # subsets that a method lacks altogether are no missing cases
    [only_volumes(random_evaluation(empty="skip", probabilities=True)), only_volumes(two(empty="skip"))],
], ids=["alone", "alike", "rounding", "fewer subsets", "no scores"])  # fmt: skip
def test_what_is_comparable(evaluations):
    assert require_comparable(evaluations) == []


@pytest.mark.parametrize(("fact", "values"), [("decision", DECISIONS[:2]), ("precision", ("float32", "bfloat16"))])
def test_different_decisions_and_precisions_are_remarked(fact, values):
    one, other = (replace(e, facts={fact: value}) for e, value in zip((ONE, two()), values, strict=True))
    (remark,) = require_comparable([one, other])
    assert f"The {fact}s differ (one: {values[0]}, two: {values[1]})" in remark
    assert require_comparable([one, replace(other, facts=one.facts)]) == []
    assert require_comparable([one, two()]) == []


@pytest.mark.parametrize(("others", "fact"), [
    ([two(cohort="brats2020")], "cohort of one is 'toy', of two 'brats2020'"),
    ([two(empty="skip", hd95="pooled")], "empty of one is 'brats', of two 'skip'; hd95 of one is 'max', of two"),
    ([two(et_min_voxels=500)], "et_min_voxels of one is 0, of two 500"),
    ([two(), random_evaluation("three", empty="nan")], "of one is 'brats', of three 'nan'"),
    ([with_reference(7.5)], "the reference of case c2 is another one (ET 7 ml for one, 7.5 ml for two)"),
    ([two(modalities=("t1", "t2"))], "modalities of one is ('t1', 't2', 'flair'), of two ('t1', 't2')"),
    ([two(regions=("WT", "TC"))], "regions of one is ('WT', 'ET'), of two ('WT', 'TC')"),
    ([without(two(), "c1")], "two lacks c1. Complete them, or name the cases to compare with --cases."),
    ([two(cases=("c1", "c2", "c3", "c4", "c5"))], "one lacks c5"),
    ([without(without(two(), "c2", "t1+t2"), "c3")], "two lacks c2 (t1+t2), c3"),
])  # fmt: skip
def test_what_is_not(others, fact):
    with pytest.raises(ValueError, match=re.escape(fact)):
        require_comparable([ONE, *others])


def test_selected_cases_are_left_in_everything_that_is_drawn():
    found = select_cases(random_evaluation(probabilities=True), ["c[12]", "c4"])
    for frame in (found.results, found.bins, found.latents):
        assert set(frame["case"]) == {"c1", "c2", "c4"}
    with pytest.raises(ValueError, match=r"^one: no case matches C1, d\*; there are c1, c2"):
        select_cases(ONE, ["C1", "c[12]", "d*"])


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


@pytest.mark.parametrize(("folds", "said"), [
    ([fold("ab"), fold("bc"), fold("de")], "b: tested by 2 of ab, bc, de"),
    ([fold("ab"), fold("de")], "c: tested by 0 of ab, de"),
    ([fold("ab"), fold("cde", "bcde")], "a: not in the split of cde, but in that of another"),
    ([fold("ab"), replace(fold("cde"), other_cases=())], "cde: its evaluation.json does not list"),
    ([fold("ab"), fold("cde", cohort="another")], "cohort of cde is another, of ab toy"),
    ([fold("ab"), fold("cde", hd95="pooled")], "conventions of cde"),
    ([fold("ab"), fold("cde", facts={"decision": "expected_dice"})], "the decisions differ"),
    ([fold("ab"), fold("cde", only=("t1",))], "subsets of cde"),
])  # fmt: skip
def test_what_is_no_whole_cross_validation_is_refused_by_name(folds, said):
    with pytest.raises(ValueError, match=said):
        pool_folds("method", folds)
