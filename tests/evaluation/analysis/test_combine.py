"""Trainings with several seeds, or on all folds, become one evaluation, in which cases remain the units."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.analysis.combine import average_repeats, pool_folds, spread
from common.evaluation.metrics.results import read_evaluation, write_evaluation

CASES = ("a", "b", "c", "d", "e")


def shifted(evaluation, by):
    change = by * (evaluation.results["metric"] == "dice")
    return replace(evaluation, results=evaluation.results.assign(value=evaluation.results["value"] + change))


def test_each_case_gets_its_mean_over_repeats():
    one = random_evaluation(facts={"part": "test", "split": "full"})
    mean = average_repeats("method", [shifted(one, 0.0), shifted(one, 0.1), shifted(one, -0.4)])
    expected = one.values("dice") - 0.1
    np.testing.assert_allclose(mean.values("dice").loc[expected.index], expected, atol=1e-12)
    assert mean.name == "method"
    assert mean.facts == {"repeats": 3, "part": "test", "split": "full"}
    assert len(mean.results) == len(one.results)
    assert mean.bins.empty


def test_results_of_different_decisions_are_refused():
    other = random_evaluation(facts={"decision": "expected_dice"})
    with pytest.raises(ValueError, match=r"the decisions differ \(threshold, expected_dice\)"):
        average_repeats("method", [random_evaluation(), other])


def test_a_value_that_one_repeat_lacks_is_undefined():
    one = random_evaluation()
    other = one.results.copy()
    other.loc[0, "value"] = np.nan
    mean = average_repeats("method", [one, replace(one, results=other)])
    key = other.loc[0, ["case", "modalities", "region", "metric"]].tolist()
    row = mean.results.set_index(["case", "modalities", "region", "metric"]).loc[tuple(key)]
    assert np.isnan(row["value"])
    assert mean.results["value"].isna().sum() == one.results["value"].isna().sum() + 1


def test_spread_is_of_the_means_of_repeats():
    one = random_evaluation()
    found = spread([shifted(one, 0.0), shifted(one, 0.2)])
    level = one.values("dice").groupby("modalities").mean().mean()
    np.testing.assert_allclose(found["mean"], level + 0.1)
    np.testing.assert_allclose(found["std"], 0.2 / np.sqrt(2))


def test_what_cannot_be_averaged_is_refused():
    one = random_evaluation()
    fewer = replace(one, results=one.results[one.results["case"] != one.results["case"].iloc[0]])
    with pytest.raises(ValueError, match="lacks"):
        average_repeats("method", [one, fewer])


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
        ([fold("ab"), fold("cde", only=("t1",))], "subsets of cde"),
    ],
)
def test_what_is_no_whole_cross_validation_is_refused_by_name(folds, said):
    with pytest.raises(ValueError, match=said):
        pool_folds("method", folds)
