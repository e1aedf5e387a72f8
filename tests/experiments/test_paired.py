"""Paired tests between methods: p-values and effects by hand, and which cases and subsets they are over."""

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import evaluation_of

from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from mmb.experiments.comparison.paired import compare_to_first, holm, paired_tests, signed_rank

NAN = np.nan


def evaluation(rows, name="a", modalities=("t1", "t2"), regions=("WT", "ET"), **conventions) -> Evaluation:
    results = pd.DataFrame(rows, columns=COLUMNS)
    return Evaluation(name, "toy", modalities, regions, Conventions(**conventions), results)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, NAN, 0.03], [0.03, 0.06, NAN, 0.06]),
        ([0.9, 0.8], [1, 1]),
        ([NAN, NAN], [NAN, NAN]),
    ],
)
def test_holm(p, corrected):
    np.testing.assert_allclose(holm(p), corrected)


@pytest.mark.parametrize(
    ("differences", "p", "effect"),
    [
        ([1, 2, 3, 4, 5, -6], 2 * 14 / 64, 9 / 21),  # W- = 6; of the 64 sign patterns 14 have a rank sum of at most 6
        ([-1, -2, -3, -4, -5, -6], 2 / 64, -1),
        ([0, 1, 2, 0, 3, 4, 5, -6], 2 * 14 / 64, 9 / 21),  # zeros are dropped
        ([1, 1, 1, 1], 2 / 16, 1),
        ([-1, 1, 2, 3, 4], 2 * 3 / 32, 12 / 15),  # ranks 1.5, 1.5, 3, 4, 5: of 32 patterns 3 reach W+ of 13.5 or more
        ([0, 0, 0], 1, 0),
        ([], NAN, NAN),
        ([0.5], NAN, NAN),
    ],
)
def test_signed_rank(differences, p, effect):
    assert signed_rank(differences) == pytest.approx((p, effect), nan_ok=True)


class TestPairedTests:
    def test_pairs_are_the_cases_of_both(self):
        one = evaluation_of({("t1", "WT"): [0.9, 0.8, 0.7, 0.6], ("t1", "ET"): [0.5, NAN, 0.5, 0.5]})
        other = evaluation_of({("t1", "WT"): [0.5, 0.5, 0.5], ("t1", "ET"): [0.1, 0.1, NAN]}, name="b")
        tests = paired_tests(one, other, "dice").set_index(["modalities", "region"])
        assert tests["n"].tolist() == [3, 1, 3, 1]
        row = tests.loc["t1", "WT"]
        assert (row["mean"], row["other_mean"], row["difference"]) == pytest.approx((0.8, 0.5, 0.3))
        assert (row["low"], row["high"]) == (pytest.approx(0.2), pytest.approx(0.4))
        assert (row["p"], row["effect"]) == pytest.approx((2 / 8, 1))
        assert np.isnan(tests.loc[("t1", "ET"), ["p", "p_holm", "effect", "low", "high"]].astype(float)).all()
        assert tests.loc[("t1", "ET"), "difference"] == pytest.approx(0.4)

    def test_subsets_are_averaged_out_over_what_both_have(self):
        one = evaluation_of({("t1", "WT"): [0.4, 0.4], ("t2", "WT"): [0.8, 0.8]}, regions=("WT",))
        other = evaluation_of({("t1", "WT"): [0.3, NAN], ("t2", "WT"): [0.5, 0.7]}, regions=("WT",))
        mean = paired_tests(one, other, "dice").iloc[-1]
        assert mean["modalities"] == "mean"
        # case c0: 0.6 against 0.4; c1: only t2 counts, 0.8 against 0.7
        assert (mean["n"], mean["mean"], mean["other_mean"]) == (2, pytest.approx(0.7), pytest.approx(0.55))

    def test_correction_within_subsets_and_within_means(self):
        better = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        keys = [(subset, region) for subset in ("t1", "t2", "t1+t2") for region in ("WT", "ET")]
        one, other = (evaluation_of({key: values for key in keys}) for values in (better, [0] * 6))
        tests = paired_tests(one, other, "dice")
        assert tests["p"].tolist() == pytest.approx([2 / 64] * 8)
        assert tests["p_holm"].tolist() == pytest.approx([6 * 2 / 64] * 6 + [2 * 2 / 64] * 2)

    def test_no_common_case(self):
        one = evaluation([("x", "t1", "WT", "dice", 1.0)])
        with pytest.raises(ValueError, match="'a' and 'b' share no subset and case"):
            paired_tests(one, evaluation([("y", "t1", "WT", "dice", 1.0)], name="b"), "dice")

    def test_means_are_over_what_all_methods_have(self):
        values = {("t1", "WT"): [0.1, 0.1], ("t2", "WT"): [0.3, 0.3], ("t1+t2", "WT"): [0.8, 0.8]}
        methods = [
            evaluation_of({(s, r): values[s, r] for s, r in values if s in chosen}, name=name, regions=("WT",))
            for name, chosen in {"a": ("t1", "t2", "t1+t2"), "b": ("t2", "t1+t2"), "c": ("t1", "t1+t2")}.items()
        ]
        tests = compare_to_first(methods).set_index(["method", "modalities"])
        pairs = [("b", "t2"), ("b", "t1+t2"), ("b", "mean"), ("c", "t1"), ("c", "t1+t2"), ("c", "mean")]
        assert tests.index.tolist() == pairs
        assert tests["mean"].tolist() == pytest.approx([0.3, 0.8, 0.8, 0.1, 0.8, 0.8])
        assert compare_to_first(methods[:2]).iloc[-1]["mean"] == pytest.approx(0.55)
        lost = evaluation_of({("t1", "WT"): [0.1, 0.1]}, name="d", regions=("WT",))
        none = compare_to_first([methods[0], methods[1], lost]).query("modalities == 'mean'")
        assert none["n"].tolist() == [0, 0]
        assert none[["mean", "difference", "p", "p_holm"]].isna().all(axis=None)

    def test_against_the_first_in_all_that_can_be_better_or_worse(self):
        one, other = (
            evaluation([("c", "t1", "WT", metric, 1.0) for metric in metrics], name, regions=("WT",))
            for name, metrics in (("a", ("volume", "hd95", "assd", "dice")), ("b", ("volume", "dice", "hd95")))
        )
        assert compare_to_first([one, other])["metric"].unique().tolist() == ["dice", "hd95"]
