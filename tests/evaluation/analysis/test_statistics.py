"""Means, intervals, paired tests and Shapley values against numbers worked out by hand."""

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import evaluation_of

from common.evaluation.analysis.attribution import dice_of_empty_prediction, shapley, shapley_summary, shapley_values
from common.evaluation.analysis.statistics import (
    bootstrap_mean,
    mean_over_subsets,
    shared_cells,
    subset_statistics,
    with_shared_cells,
)
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.modalities import subset_name, subsets

NAN = float("nan")


def evaluation(rows, name="a", modalities=("t1", "t2"), regions=("WT", "ET"), **conventions) -> Evaluation:
    results = pd.DataFrame(rows, columns=COLUMNS)
    return Evaluation(name, "toy", modalities, regions, Conventions(**conventions), results)


def overlap(case: str, hits: float, predicted: float, reference: float) -> list[tuple]:
    """Return the rows of a case from its numbers of voxels; two empty masks are scored as perfect."""
    values = {
        "dice": 2 * hits / (predicted + reference) if predicted + reference else 1,
        "sensitivity": hits / reference if reference else 1,
        "precision": hits / predicted if predicted else 1,
        "volume": predicted / 1000,
        "reference_volume": reference / 1000,
        "hd95": hits,
    }
    return [(case, "t1", "WT", metric, value) for metric, value in values.items()]


class TestSummary:
    def test_over_cases_without_nan(self):
        values = {("t1+t2", "WT"): [1, 1, 1], ("t1", "WT"): [0.25, 0.5, NAN], ("t1", "ET"): [NAN] * 3}
        table = subset_statistics(evaluation_of(values), "dice")
        assert (list(table.index), table["mean"].loc["t1", "WT"]) == (["t1", "t1+t2"], 0.375)
        assert table["std"].loc["t1", "WT"] == pytest.approx(0.125 * 2**0.5)
        assert table["n"].loc["t1", "WT"] == 2
        assert np.isnan(table["mean"].loc["t1", "ET"])
        assert (table["n"].loc["t1", "ET"], table["std"].loc["t1+t2", "WT"]) == (0, 0)

    def test_voxels_of_all_cases_together(self):
        rows = [*overlap("a", 30, 40, 60), *overlap("b", 5, 20, 10), *overlap("c", 0, 0, 0)]
        pooled = evaluation(rows, regions=("WT",), average="voxel")
        for metric, expected in (("dice", 2 * 35 / 130), ("sensitivity", 35 / 70), ("precision", 35 / 60)):
            mean, std, count = subset_statistics(pooled, metric).loc["t1"]
            assert mean == pytest.approx(expected)
            assert np.isnan(std)
            assert count == 2
        hd95 = subset_statistics(pooled, "hd95").loc["t1"].tolist()
        assert hd95 == pytest.approx([35 / 3, np.std([30, 5, 0], ddof=1), 3])
        per_case = evaluation(rows, regions=("WT",))
        assert subset_statistics(per_case, "dice").loc["t1", ("mean", "WT")] == pytest.approx((0.6 + 1 / 3 + 1) / 3)

    @pytest.mark.parametrize(
        ("metric", "more", "said"),
        [
            ("dice", {"average": "voxel"}, "lack their rows of volume and reference_volume"),
            ("dise", {}, "'dise'; expected one of dice, hd95"),
        ],
    )
    def test_refuses(self, metric, more, said):
        with pytest.raises(ValueError, match=said):
            subset_statistics(evaluation_of({("t1", "WT"): [1, 0]}, **more), metric)


class TestOverall:
    def test_mean_of_subset_means(self):
        values = {("t1", "WT"): [0.2, 0.4, 0.6], ("t1+t2", "WT"): [0.5, 0.7, 0.9]}
        values |= {("t1", "ET"): [0.1, 0.1, NAN], ("t1+t2", "ET"): [0.3, 0.3, 0.3]}
        table = mean_over_subsets(evaluation_of(values), "dice")
        assert list(table.index) == ["WT", "ET", "mean"]
        assert table["mean"].tolist() == pytest.approx([0.55, 0.2, 0.375])
        # whole cases are drawn: WT of every draw lies between its worst and best case, and ET is always the same
        assert table.loc["WT", ["low", "high"]].tolist() == pytest.approx([0.35, 0.75], abs=0.01)
        assert table.loc["ET", "low"] == pytest.approx(0.2)

    def test_pooled(self):
        rows = [*overlap("a", 30, 40, 60), *overlap("b", 5, 20, 10)]
        table = mean_over_subsets(evaluation(rows, regions=("WT",), average="voxel"), "dice")
        assert table.loc["WT"].tolist() == pytest.approx([70 / 130, 1 / 3, 0.6])


class TestInCommon:
    FULL = evaluation_of({(subset, region): [0.5] for subset in ("t1", "t2", "t1+t2") for region in ("WT", "ET")})
    SOME = evaluation_of({("t1", "WT"): [0.5], ("t1", "ET"): [NAN], ("t1+t2", "WT"): [0.1], ("t1+t2", "ET"): [0.2]})

    def test_subsets_and_regions_of_which_all_have_a_mean(self):
        both = {("t1", "WT"), ("t1+t2", "WT"), ("t1+t2", "ET")}
        assert shared_cells([self.FULL, self.SOME], "dice") == shared_cells([self.SOME, self.FULL], "dice") == both
        one, other = with_shared_cells([self.FULL, self.SOME], "dice")
        assert (one.subsets, one.name, len(one.results), len(other.results)) == (["t1", "t1+t2"], "base", 3, 3)
        assert other.results["value"].tolist() == [0.5, 0.1, 0.2]

    def test_nothing(self):
        for nothing in with_shared_cells([self.SOME, evaluation_of({("t2", "WT"): [0.5]})], "dice"):
            assert nothing.subsets == []
            assert subset_statistics(nothing, "dice").empty
            assert mean_over_subsets(nothing, "dice").isna().all(axis=None)
        assert shared_cells([self.FULL], "hd95") == frozenset()


class TestBootstrap:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([1, 2], (1.5, 1, 2)),  # two cases span their values
            ([0.5] * 9, (0.5, 0.5, 0.5)),
            ([3], (3, NAN, NAN)),
            ([NAN, 3, NAN], (3, NAN, NAN)),
            ([], (NAN, NAN, NAN)),
        ],
    )
    def test_few_cases(self, values, expected):
        assert bootstrap_mean(values) == pytest.approx(expected, nan_ok=True)

    def test_width_weights_and_axes(self):
        values = np.random.default_rng(0).normal(size=200)
        mean, low, high = bootstrap_mean(values)
        assert mean == values.mean()
        assert high - low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.1)
        assert bootstrap_mean([*values, NAN, NAN]) == (mean, low, high)
        assert bootstrap_mean([0, 1], [1, 3])[0] == 0.75
        assert bootstrap_mean([[0, 1], [1, NAN]])[0] == 0.75
        assert bootstrap_mean([[[0, 0], [NAN, NAN]], [[1, 1], [0, 0]]])[0] == 0.25


MODALITIES = ("t1", "t1c", "t2", "flair")
REGIONS = ("WT", "TC", "ET")


def long(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def evaluated(results, calibration=(), modalities=MODALITIES, regions=REGIONS, **conventions) -> Evaluation:
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

    np.testing.assert_allclose(shapley({s: value[s - {"a"}] for s in every}, modalities)["a"], 0, atol=1e-12)


@pytest.mark.parametrize(("empty", "absent"), [("brats", 1), ("released", 1), ("nan", np.nan), ("skip", np.nan)])
def test_nothing_predicts_nothing(empty, absent):
    found = dice_of_empty_prediction(np.array([0.0, 0.001, 30.0]), Conventions(empty=empty))
    np.testing.assert_array_equal(found, [absent, 0, 0])


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
    values = shapley_values(evaluated(rows, (), ("t1", "t1c", "t2"), ("WT",)))
    assert list(values.columns) == ["case", "region", "modality", "value"]
    found = values.pivot(index="case", columns="modality", values="value")[["t1", "t1c", "t2"]]
    assert list(found.index) == ["x", "y"]
    np.testing.assert_allclose(found.loc["x"], [0.6, 0.3, 0.1], atol=1e-12)
    np.testing.assert_allclose(found.loc["y"], np.array([0.6, 0.3, 0.1]) - 1 / 3, atol=1e-12)
    assert set(shapley_values(evaluated(rows, (), ("t1", "t1c", "t2"), ("WT",), empty="nan"))["case"]) == {"x"}


def test_summary():
    values = shapley_values(evaluated(random_rows()))
    summary = shapley_summary(values)
    assert list(summary.columns) == ["region", "modality", "mean", "low", "high", "n"]
    assert {*zip(summary["region"], summary["modality"], strict=True)} == {(r, m) for r in REGIONS for m in MODALITIES}
    means = values.groupby(["region", "modality"])["value"].mean()
    for row in summary.itertuples():
        assert row.mean == pytest.approx(means[row.region, row.modality])
        assert row.low < row.mean < row.high
    assert set(summary["n"]) == {8}
    pd.testing.assert_frame_equal(summary, shapley_summary(values))
