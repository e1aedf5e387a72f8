"""Shapley values, compared with numbers worked out by hand."""

from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest

from common.evaluation.analysis.attribution import (
    dice_of_empty_prediction,
    shapley,
    shapley_summary,
    shapley_values,
)
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
