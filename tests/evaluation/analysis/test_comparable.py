"""Which evaluations can be compared, and on which of their results."""

import re
from dataclasses import replace

import pytest
from evaluation.examples import random_evaluation

from common.evaluation.analysis.comparable import require_comparable, select_cases
from common.evaluation.metrics.results import Evaluation
from common.transforms.decision import DECISIONS

ONE = random_evaluation()

KEPT = ("volume", "reference_volume", "expected_dice")


def two(**more) -> Evaluation:
    return random_evaluation("two", seed=1, **more)


def without(evaluation: Evaluation, case: str, subset: str | None = None) -> Evaluation:
    """Return an evaluation that lacks a case, or a case's subset."""
    rows = evaluation.results
    gone = (rows["case"] == case) & ((rows["modalities"] == subset) if subset else True)
    return replace(evaluation, results=rows[~gone])


def there(evaluation: Evaluation) -> set[tuple[str, str]]:
    return set(evaluation.results[["modalities", "case"]].itertuples(index=False, name=None))


def test_alike_they_stay_as_they_are():
    evaluations, remarks = require_comparable([ONE, two()])
    assert remarks == []
    assert [e.name for e in evaluations] == ["one", "two"]
    assert evaluations[1].results.equals(two().results)


def test_one_alone_is_comparable():
    (found,), remarks = require_comparable([ONE])
    assert found.results.equals(ONE.results)
    assert remarks == []


@pytest.mark.parametrize(("fact", "values"), [("decision", DECISIONS), ("precision", ("float32", "bfloat16"))])
def test_different_decisions_and_precisions_are_remarked(fact, values):
    one, other = (
        replace(evaluation, facts={fact: value}) for evaluation, value in zip((ONE, two()), values, strict=True)
    )
    _, (remark,) = require_comparable([one, other])
    assert f"The {fact}s differ (one: {values[0]}, two: {values[1]})" in remark
    assert require_comparable([one, replace(other, facts=one.facts)])[1] == []
    assert require_comparable([one, two()])[1] == []


def with_reference(value: float) -> Evaluation:
    """Return the second method with another reference volume of ET in case c2, 7 ml in the first."""
    rows = two().results
    chosen = (rows["case"] == "c2") & (rows["region"] == "ET") & (rows["metric"] == "reference_volume")
    return replace(two(), results=rows.assign(value=rows["value"].where(~chosen, value)))


DIFFERENCES = [
    (two(cohort="brats2020"), "cohort of one is toy, of two brats2020"),
    (two(hd95="pooled"), "convention hd95 of one is 'max', of two 'pooled'"),
    (two(et_min_voxels=500), "convention et_min_voxels of one is 0, of two 500"),
    (with_reference(7.5), "the reference of case c2 is another one (ET 7 ml for one, 7.5 ml for two)"),
]


@pytest.mark.parametrize(("other", "what"), DIFFERENCES, ids=["cohort", "hd95", "post-processing", "reference"])
def test_differences_are_refused_or_said(other, what):
    with pytest.raises(ValueError, match=f"^Not comparable: {re.escape(what)}.*--force"):
        require_comparable([ONE, other], allow_missing=True)
    evaluations, remarks = require_comparable([ONE, other], force=True)
    assert f"Compared by force although not comparable: {what}." in remarks
    assert there(evaluations[0]) == there(ONE)


def test_references_that_differ_by_rounding_are_alike():
    require_comparable([ONE, with_reference(7.0001)])


@pytest.mark.parametrize(
    ("evaluations", "allowed", "said"),
    [
        ([ONE, two(), random_evaluation("three", empty="nan")], {}, "of one is 'brats', of three 'nan'"),
        ([ONE, two(empty="skip", hd95="pooled")], {}, "convention empty .*; convention hd95 "),
        ([ONE, random_evaluation(seed=1)], {"force": True}, r"same name \(one, one\).*NAME=FOLDER"),
        ([ONE, two(modalities=("t1", "t2"))], {"force": True}, "^'two' has modalities t1, t2; .* 'one', t1, t2, flair"),
        ([ONE, two(regions=("WT", "TC"))], {"force": True}, "^'two' has regions WT, TC; .* 'one', WT, ET(?!.*--force)"),
        ([without(ONE, "c4"), without(two(), "c1")], {}, r"^one lacks c4; two lacks c1\. .*--allow-missing"),
        ([ONE, without(without(two(), "c2", "t1+t2"), "c3")], {}, r"^two lacks c2 \(t1\+t2\), c3\. "),
        ([ONE, two(cases=("x1", "x2"))], {"allow_missing": True}, "No case is in all of one, two; .* the same data"),
    ],
)
def test_what_is_refused(evaluations, allowed, said):
    with pytest.raises(ValueError, match=said):
        require_comparable(evaluations, **allowed)


class TestSelectedCases:
    def test_are_left_in_everything_that_is_drawn(self):
        found = select_cases(random_evaluation(probabilities=True), ["c[12]", "c4"])
        for frame in (found.results, found.bins, found.latents):
            assert set(frame["case"]) == {"c1", "c2", "c4"}

    def test_each_pattern_without_one_is_an_error(self):
        with pytest.raises(ValueError, match=r"^one: no case matches C1, d\*; there are c1, c2"):
            select_cases(ONE, ["C1", "c[12]", "d*"])
        with pytest.raises(ValueError, match="no case matches"):
            select_cases(ONE, [])


class TestMissingCases:
    def test_may_be_left_out(self):
        first, other = without(ONE, "c4"), without(two(), "c1")
        evaluations, remarks = require_comparable([first, other], allow_missing=True)
        assert [set(e.results["case"]) for e in evaluations] == [{"c2", "c3"}] * 2
        assert remarks == ["Only cases in common are compared: one lacks c4; two lacks c1."]

    def test_of_a_subset_are_left_out_of_it_for_every_method(self):
        evaluations, _ = require_comparable([ONE, without(two(), "c2", "t1+t2")], allow_missing=True)
        assert there(evaluations[0]) == there(evaluations[1]) == there(ONE) - {("t1+t2", "c2")}

    def test_subsets_that_a_method_lacks_altogether_are_no_missing_cases(self):
        evaluations, remarks = require_comparable([ONE, two(only=["t1+t2+flair"])])
        assert remarks == []
        assert there(evaluations[0]) == there(ONE)

    def test_are_left_out_of_everything_that_is_drawn(self):
        whole = random_evaluation(probabilities=True)
        (found, _), _ = require_comparable([whole, without(two(), "c1")], allow_missing=True)
        for frame in (found.results, found.bins, found.latents):
            assert set(frame["case"]) == {"c2", "c3", "c4"}
        assert list(found.bins.columns) == list(whole.bins.columns)

    def test_without_bins_and_latents_their_columns_stay(self):
        (found, _), _ = require_comparable([ONE, two()])
        assert list(found.bins.columns) == list(ONE.bins.columns)

    def test_without_the_regions_that_skip_leaves_out_are_there(self):
        """The case has only volumes, because its reference is empty, and for one of the methods an expected Dice."""
        one, other = random_evaluation(empty="skip", probabilities=True), two(empty="skip")
        unscored = [
            replace(e, results=e.results[(e.results["case"] != "c2") | e.results["metric"].isin(KEPT)])
            for e in (one, other)
        ]
        evaluations, remarks = require_comparable(unscored)
        assert remarks == []
        assert there(evaluations[0]) == there(one)


def test_forced_cohorts_keep_their_own_cases():
    other = two(cohort="brats2020", cases=("c1", "x2"))
    evaluations, remarks = require_comparable([ONE, other], force=True)
    assert [set(e.results["case"]) for e in evaluations] == [{"c1", "c2", "c3", "c4"}, {"c1", "x2"}]
    assert remarks == [
        "Compared by force although not comparable: cohort of one is toy, of two brats2020.",
        "Different cohorts have no cases in common: there are no paired tests.",
    ]
