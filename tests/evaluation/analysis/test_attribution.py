"""Shapley values, best subsets and expected gains, compared with numbers worked out by hand."""

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest

from common.evaluation.analysis.attribution import (
    advice_quality,
    advice_table,
    best_subsets,
    dice_of_empty_prediction,
    expected_gains,
    ranking_quality,
    shapley,
    shapley_summary,
    shapley_values,
)
from common.evaluation.analysis.statistics import bootstrap_mean
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.modalities import subset_name, subsets

MODALITIES = ("t1", "t1c", "t2", "flair")
REGIONS = ("WT", "TC", "ET")


def long(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluation(results, calibration=(), modalities=MODALITIES, regions=REGIONS, **conventions) -> Evaluation:
    return Evaluation("a", "b", modalities, regions, Conventions(**conventions), long(results), long(calibration))


def random_rows(cases=8, modalities=MODALITIES, regions=REGIONS, seed=0) -> list[tuple]:
    rng = np.random.default_rng(seed)
    return [
        (f"case{case}", subset_name(subset), region, metric, value)
        for case in range(cases)
        for subset in subsets(modalities)
        for region in regions
        for metric, value in (("dice", rng.uniform()), ("reference_volume", 5.0))
    ]


# v(none), v(a), v(b), v(c), v(ab), v(ac), v(bc), v(abc)
TOY = dict(zip(["", "a", "b", "c", "ab", "ac", "bc", "abc"], [0.0, 12, 6, 0, 24, 18, 6, 30], strict=True))


def test_three_modalities_by_hand():
    """a: (2*12 + 18 + 18 + 2*24)/6 = 18; b: (2*6 + 12 + 6 + 2*12)/6 = 9; c: (2*0 + 6 + 0 + 2*6)/6 = 3."""
    worth = shapley({frozenset(name): value for name, value in TOY.items()}, "abc")
    assert worth == pytest.approx({"a": 18, "b": 9, "c": 3}, abs=1e-12)


@pytest.mark.parametrize("modalities", ["ab", "abc", "abcd"])
def test_efficiency_symmetry_and_null_player(modalities):
    rng = np.random.default_rng(0)
    every = [frozenset(s) for s in chain.from_iterable(combinations(modalities, k) for k in range(len(modalities) + 1))]
    value = {subset: rng.uniform(size=50) for subset in every}
    worth = shapley(value, modalities)
    np.testing.assert_allclose(sum(worth.values()), value[every[-1]] - value[every[0]], atol=1e-9, rtol=0)

    alike = {s: value[frozenset(modalities[: len(s)])] for s in every}  # only the number of modalities matters
    worth = shapley(alike, modalities)
    np.testing.assert_allclose(worth["a"], worth["b"], atol=1e-12)

    without_a = {s: value[s - {"a"}] for s in every}
    np.testing.assert_allclose(shapley(without_a, modalities)["a"], 0, atol=1e-12)


@pytest.mark.parametrize(("empty", "absent"), [("brats", 1), ("released", 1), ("nan", np.nan), ("skip", np.nan)])
def test_nothing_predicts_nothing(empty, absent):
    np.testing.assert_array_equal(
        dice_of_empty_prediction(np.array([0.0, 0.001, 30.0]), Conventions(empty=empty)), [absent, 0, 0]
    )


def toy_rows(case: str, scale: float, volume: float) -> list[tuple]:
    names = {"a": "t1", "b": "t1c", "c": "t2"}
    return [
        (case, subset_name([names[letter] for letter in subset]), "WT", metric, value)
        for subset, score in TOY.items()
        if subset
        for metric, value in (("dice", scale * score), ("reference_volume", volume))
    ]


def test_values_of_cases():
    """Without the region, v(none) is 1, so each modality gets a third less. A case that lacks a subset is left out."""
    rows = toy_rows("x", 1 / 30, 5.0) + toy_rows("y", 1 / 30, 0.0)
    rows += [row for row in toy_rows("z", 1 / 30, 5.0) if row[1] != "t1+t2"]
    values = shapley_values(evaluation(rows, (), ("t1", "t1c", "t2"), ("WT",)))
    assert list(values.columns) == ["case", "region", "modality", "value"]
    found = values.pivot(index="case", columns="modality", values="value")[["t1", "t1c", "t2"]]
    assert list(found.index) == ["x", "y"]
    np.testing.assert_allclose(found.loc["x"], [0.6, 0.3, 0.1], atol=1e-12)
    np.testing.assert_allclose(found.loc["y"], np.array([0.6, 0.3, 0.1]) - 1 / 3, atol=1e-12)
    assert set(shapley_values(evaluation(rows, (), ("t1", "t1c", "t2"), ("WT",), empty="nan"))["case"]) == {"x"}


def test_undefined_dice_and_incomplete_sweeps_are_left_out():
    rows = [(*row[:4], np.nan) if (row[0], *row[2:4]) == ("case3", "ET", "dice") else row for row in random_rows()]
    values = shapley_values(evaluation(rows))
    assert values.groupby("region")["case"].nunique().to_dict() == {"WT": 8, "TC": 8, "ET": 7}
    chosen = evaluation([row for row in rows if row[1] in ("t1", "t1+t1c+t2+flair")])
    assert shapley_values(chosen).empty
    assert shapley_summary(shapley_values(chosen)).empty


def test_missing_reference_volume():
    rows = [row for row in random_rows() if row[:4:3] != ("case2", "reference_volume")]
    with pytest.raises(ValueError, match="case2 has no reference_volume for WT"):
        shapley_values(evaluation(rows))


def test_summary():
    values = shapley_values(evaluation(random_rows()))
    summary = shapley_summary(values)
    assert list(summary.columns) == ["region", "modality", "mean", "low", "high", "n"]
    assert {*zip(summary["region"], summary["modality"], strict=True)} == {(r, m) for r in REGIONS for m in MODALITIES}
    means = values.groupby(["region", "modality"])["value"].mean()
    for row in summary.itertuples():
        assert row.mean == pytest.approx(means[row.region, row.modality])
        assert row.low < row.mean < row.high
    assert set(summary["n"]) == {8}
    pd.testing.assert_frame_equal(summary, shapley_summary(values))


def dice_rows(case: str, dice: dict[str, float]) -> list[tuple]:
    return [(case, subset, "WT", "dice", value) for subset, value in dice.items()]


TWO = ("t1", "t2")
CALIBRATION = dice_rows("x", {"t1": 0.1, "t2": 0.5, "t1+t2": 0.7}) + dice_rows(
    "y", {"t1": 0.3, "t2": 0.5, "t1+t2": 0.5}
)


def cases_of(dice: dict[str, list[float]], region: str = "WT", name: str = "c") -> list[tuple]:
    return [
        (f"{name}{number}", subset, region, "dice", value)
        for subset, values in dice.items()
        for number, value in enumerate(values)
    ]


BEST = {"t1": [0.6, 0.7, 0.8], "t2": [0.1, 0.2, 0.6], "t1+t2": [0.5, 0.7, 0.6]}


class TestBestSubsets:
    def found(self, results: list[tuple], calibration=(), regions=("WT",)) -> list[tuple]:
        best = best_subsets(evaluation(results, calibration, TWO, regions))
        return list(best.itertuples(index=False, name=None))

    def test_by_hand(self):
        best = best_subsets(evaluation(cases_of(BEST), (), TWO, ("WT",)))
        columns = ["region", "modalities", "best", "all", "gain", "low", "high", "n", "chosen_on"]
        assert list(best.columns) == columns
        (row,) = best.itertuples(index=False, name=None)
        assert row[:2] == ("WT", "t1")
        assert row[2:7] == pytest.approx((0.7, 0.6, *bootstrap_mean([0.1, 0.0, 0.2])))
        assert row[4:6] == pytest.approx((0.1, 0.0))
        assert row[7:] == (3, "evaluated")

    def test_chosen_on_calibration_cases_and_measured_on_others(self):
        calibration = cases_of({"t1": [0.5], "t2": [0.9], "t1+t2": [0.8]}, name="v")
        (row,) = self.found(cases_of(BEST), calibration)
        assert row[:2] == ("WT", "t2")
        assert row[2:7] == pytest.approx((0.3, 0.6, *bootstrap_mean([-0.4, -0.5, 0.0])))
        assert row[7:] == (3, "calibration")

    @pytest.mark.parametrize("lost", [{"modalities": "t1+t2"}, {"metric": "dice"}])
    def test_calibration_without_dice_of_all_subsets_does_not_choose(self, lost):
        ((key, value),) = lost.items()
        rows = cases_of({"t1": [0.5], "t2": [0.9], "t1+t2": [0.8]}, name="v")
        (row,) = self.found(cases_of(BEST), [row for row in rows if row[COLUMNS.index(key)] != value])
        assert (row[1], row[-1]) == ("t1", "evaluated")

    def test_only_cases_with_all_subsets_count(self):
        more = {"t2": [0.0] * 3 + [1.0, 1.0], "t1+t2": [0.0] * 3 + [np.nan]}
        rows = cases_of(BEST) + [row for row in cases_of(more) if row[0] in ("c3", "c4")]
        assert self.found(rows) == self.found(cases_of(BEST))

    def test_the_mean_is_of_the_means_of_regions(self):
        """ET is defined in only two cases; averaging over cases first would give t2 (0.5 + 0.5 + 0.6) / 3."""
        et = {"t1": [0.2, 0.4], "t2": [0.9, 0.8], "t1+t2": [0.3, 0.3]}
        rows = self.found(cases_of(BEST) + cases_of(et, "ET"), regions=("WT", "ET"))
        assert [row[:2] for row in rows] == [("WT", "t1"), ("ET", "t2"), ("mean", "t2")]
        assert rows[2][2:5] == pytest.approx(((0.3 + 0.85) / 2, (0.6 + 0.3) / 2, (-0.3 + 0.55) / 2))
        assert rows[2][5] <= rows[2][4] <= rows[2][6]
        assert [row[7] for row in rows] == [3, 2, 3]

    @pytest.mark.parametrize(
        ("dice", "best"),
        [
            ({"t1": [0.1], "t1+t2": [0.5], "t2": [0.5]}, "t2"),  # of equal ones the fewest modalities
            ({"t1": [0.1, 0.2], "t1+t2": [0.5, 0.9]}, "t1+t2"),
        ],
    )
    def test_nothing_to_gain(self, dice, best):
        (row,) = self.found(cases_of(dice))
        assert row[1] == best
        assert row[2] == row[3] == np.mean(dice["t1+t2"])
        assert row[4] == 0

    @pytest.mark.parametrize("only", [["t1+t2"], ["t1", "t2"]])
    def test_nothing_to_choose(self, only):
        assert self.found(cases_of({subset: BEST[subset] for subset in only})) == []


def test_table_in_the_cohorts_order():
    table = advice_table(evaluation([], random_rows()))
    assert list(table.columns) == ["modalities", "modality", *REGIONS, "mean"]
    steps = [(subset_name(s), name) for s in subsets(MODALITIES) for name in MODALITIES if name not in s]
    assert list(zip(table["modalities"], table["modality"], strict=True)) == steps
    np.testing.assert_allclose(table["mean"], table[list(REGIONS)].mean(axis=1))


def test_gains_by_hand():
    gains = [("t1", "t2", "WT", 2, pytest.approx(0.4)), ("t2", "t1", "WT", 2, pytest.approx(0.1))]
    found = expected_gains(long(CALIBRATION), TWO)
    assert list(found.columns) == ["modalities", "modality", "region", "n", "average"]
    assert list(found.itertuples(index=False, name=None)) == gains
    table = advice_table(evaluation(CALIBRATION, CALIBRATION, TWO, ("WT",)))
    expected = {"modalities": ["t1", "t2"], "modality": ["t2", "t1"], "WT": [0.4, 0.1], "mean": [0.4, 0.1]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected))


def test_undefined_gains_do_not_count():
    undefined = dice_rows("z", {"t1": np.nan, "t2": 0.5, "t1+t2": 0.9})
    found = expected_gains(long(CALIBRATION + undefined), TWO)
    assert found["n"].tolist() == [2, 3]
    assert found["average"].tolist() == pytest.approx([0.4, 0.2])


def test_no_gains():
    """There are no gains without calibration cases, nor for subsets that do not contain each other."""
    for calibration in ([], [row for row in CALIBRATION if row[1] != "t1+t2"]):
        found = evaluation(random_rows(modalities=TWO, regions=("WT",)), calibration, TWO, ("WT",))
        assert expected_gains(found.calibration, TWO).empty
        assert advice_table(found).empty
        assert advice_quality(found).empty


@pytest.mark.parametrize(
    ("advised", "gained", "expected"),
    [
        # pairs: 0.3 > 0.1 is right, 0.3 > 0.2 is wrong, 0.1 < 0.2 is wrong; the best is 0.2, the chosen one 0.1
        ([5.0, 2.0, 1.0], [0.1, 0.0, 0.2], (0, 1 / 3, 0.1)),
        ([5.0, 5.0, 1.0], [0.2, 0.1, 0.2], (0.5, 0.25, 0.05)),
        ([5.0, 2.0], [0.1, 0.1], (1, np.nan, 0)),
        ([0.0, 0.0, 0.0], [0.2, 0.1, 0.2], (2 / 3, 0.5, 0.1 / 3)),  # chance
    ],
)
def test_ranking_by_hand(advised, gained, expected):
    found = ranking_quality(np.array(advised), np.array(gained))
    assert tuple(found) == ("first_choice", "concordance", "regret")
    assert tuple(found.values()) == pytest.approx(expected, nan_ok=True)


def test_quality_by_hand():
    """In calibration t2 is best with t1, and t1 with t2 or t1c. In case p this holds with t1 and t2, not with t1c."""
    three = ("t1", "t1c", "t2")
    pairs = {"t1+t1c": 0.5, "t1+t2": 0.7, "t1c+t2": 0.4, "t1+t1c+t2": 0.9}
    calibration = dice_rows("x", {"t1": 0.3, "t1c": 0.3, "t2": 0.2, **pairs})
    test = dice_rows("p", {"t1": 0.3, "t1c": 0.3, "t2": 0.2, **pairs, "t1c+t2": 0.6})
    lacks_t1 = dice_rows("q", {"t1c": 0.3, "t2": 0.2, "t1c+t2": 0.4})
    quality = advice_quality(evaluation(test + lacks_t1, calibration, three, ("WT",)))
    assert list(quality.columns) == ["estimate", "measure", "mean", "low", "high", "n"]
    means = quality.set_index(["estimate", "measure"])["mean"]
    assert means["average"].to_dict() == pytest.approx({"first_choice": 2 / 3, "concordance": 2 / 3, "regret": 0.1 / 3})
    assert means["chance"].to_dict() == pytest.approx({"first_choice": 0.5, "concordance": 0.5, "regret": 0.2 / 3})
    assert set(quality["estimate"]) == {"average", "chance"}
    assert set(quality["n"]) == {1}


def test_regions_that_a_case_has_not():
    """The mean over regions covers those that a case has, whether the others are NaN or left out."""
    rows, calibration = random_rows(), random_rows(seed=1)
    absent = [row[0] == "case1" and row[2] == "ET" for row in rows]
    nan = [(*row[:4], np.nan) if gone else row for row, gone in zip(rows, absent, strict=True)]
    left_out = [row for row, gone in zip(rows, absent, strict=True) if not gone]
    first, second = (advice_quality(evaluation(results, calibration)) for results in (nan, left_out))
    assert first["mean"].notna().all()
    assert set(first["n"]) == {8}
    average = first["estimate"] == "average"
    pd.testing.assert_frame_equal(first[average], second[average])


def test_two_modalities_leave_no_choice():
    assert advice_quality(evaluation(CALIBRATION, CALIBRATION, TWO, ("WT",))).empty
