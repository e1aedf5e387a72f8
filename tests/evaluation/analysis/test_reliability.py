"""Calibration error and conformal intervals, worked out by hand and simulated."""

from math import inf, log

import numpy as np
import pandas as pd
import pytest
import torch

from common.evaluation.analysis.reliability import (
    calibrate_intervals,
    calibration_error,
    conformal_quantile,
    coverage_table,
    volume_intervals,
)
from common.evaluation.metrics.calibration import bin_probabilities
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import BIN_COLUMNS, COLUMNS, Evaluation
from common.transforms.decision import DECISIONS


def evaluation(results: pd.DataFrame, calibration: pd.DataFrame, coverage: float, regions=("WT",)) -> Evaluation:
    facts = {"coverage": coverage}
    return Evaluation("a", "b", ("t1", "t2"), regions, Conventions(), results, calibration, facts=facts)


def volumes(predicted, reference, subset="t1", region="WT", name="c") -> pd.DataFrame:
    rows = [
        (f"{name}{case}", subset, region, metric, values[case])
        for case in range(len(predicted))
        for metric, values in (("volume", predicted), ("reference_volume", reference))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


BINS = pd.DataFrame(
    [
        ("x", "t1", "WT", 0, 60, 6.0, 10),
        ("x", "t1", "WT", 1, 0, 0.0, 0),
        ("x", "t1", "WT", 2, 20, 18.0, 10),
        ("x", "t1+t2", "WT", 0, 10, 0.0, 10),
        ("y", "t1", "WT", 0, 20, 2.0, 10),
        ("y", "t2", "WT", 0, 100, 25.0, 5),
    ],
    columns=BIN_COLUMNS,
)


def test_calibration_error_by_hand():
    """t1: bin 0 has 80 voxels, 0.1 predicted, 0.25 observed; bin 2 has 20, 0.9, 0.5: (80 * 0.15 + 20 * 0.4) / 100."""
    found = calibration_error(BINS)
    assert list(found.columns) == ["modalities", "region", "voxels", "ece"]
    assert found["modalities"].tolist() == ["t1", "t1+t2", "t2"]
    assert found["voxels"].tolist() == [100, 10, 100]
    assert found["ece"].tolist() == pytest.approx([0.2, 1.0, 0.2])


def test_probabilities_that_are_right_have_no_error():
    probability = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < probability
    keys = {"case": "x", "modalities": "t1", "region": "WT"}
    right = calibration_error(bin_probabilities(probability, truth, torch.ones(200_000)).assign(**keys))
    sure = calibration_error(bin_probabilities(probability**0.5, truth, torch.ones(200_000)).assign(**keys))
    assert right["ece"].item() < 0.005
    assert sure["ece"].item() == pytest.approx(2 / 3 - 1 / 2, abs=0.005)  # the means of sqrt(p) and of p


@pytest.mark.parametrize(
    ("n", "coverage", "expected"),
    [(4, 0.8, 4), (3, 0.8, inf), (4, 0.9, inf), (9, 0.8, 8), (9, 0.9, 9), (8, 0.9, inf), (99, 0.9, 90), (99, 0.55, 55)],
)
def test_quantile_by_hand(n, coverage, expected):
    assert conformal_quantile(np.random.default_rng(0).permutation(n) + 1.0, coverage) == expected


def interval(calibrated: pd.DataFrame, volume: float, subset: str = "t1") -> tuple[float, float]:
    """Return the interval for one predicted volume."""
    return tuple(volume_intervals(calibrated, volumes([volume], [np.nan], subset)).loc[0, ["low", "high"]])


def test_interval_by_hand():
    """Scores are log 2/1, log 30/10, log 3/2 and 0; for 0.8 the quantile is the largest of four."""
    calibration = volumes([0.0, 29.0, 2.0, 5.0], [1.0, 9.0, 1.0, 5.0])
    calibrated = calibrate_intervals(calibration, 0.8)
    assert calibrated.to_dict("records") == [
        {"modalities": "t1", "region": "WT", "coverage": 0.8, "n": 4, "quantile": pytest.approx(log(3))}
        | {"decision": "threshold"}
    ]
    assert interval(calibrated, 11.0) == pytest.approx((3.0, 35.0))
    assert interval(calibrated, 0.5) == pytest.approx((0.0, 3.5))  # not below 0
    assert interval(calibrate_intervals(calibration, 0.9), 11.0) == (0.0, inf)


@pytest.mark.parametrize("decision", DECISIONS[1:])
def test_intervals_of_expected_volumes(decision):
    """The decision says which metric is calibrated; that of the other one is not used."""
    rows = volumes([0.0, 29.0, 2.0, 5.0], [1.0, 9.0, 1.0, 5.0])
    rows["metric"] = rows["metric"].replace("volume", "expected_volume")
    others = volumes([100.0] * 4, [1.0, 9.0, 1.0, 5.0])
    calibrated = calibrate_intervals(pd.concat([rows, others[others["metric"] == "volume"]]), 0.8, decision)
    assert calibrated["quantile"].item() == pytest.approx(log(3))
    found = volume_intervals(calibrated, pd.DataFrame([("c", "t1", "WT", "expected_volume", 11.0)], columns=COLUMNS))
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx([3.0, 35.0])


def test_no_level_and_no_volumes_are_refused():
    assert calibrate_intervals(volumes([1.0, np.nan, 2.0], [1.0, 1.0, np.nan]), 0.9)["n"].item() == 1
    calibration = volumes([1.0] * 9, [2.0] * 9)
    with pytest.raises(ValueError, match="coverage 90: "):
        calibrate_intervals(calibration, 90)
    with pytest.raises(ValueError, match="calibration: no case has both volume"):
        coverage_table(evaluation(calibration, pd.DataFrame(columns=COLUMNS), 0.9))


def test_coverage_by_hand():
    """With quantile log 2, a predicted 3 gives [1, 7] and 7 gives [3, 15]. Infinite intervals do not count."""
    calibration = volumes([1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 1.0])
    known = volumes([3.0, 3.0, 3.0, 7.0], [0.9, 1.1, 6.9, 15.1])
    results = pd.concat([volumes([3.0], [500.0], "t1+t2"), known])
    table = coverage_table(evaluation(results, calibration, 0.8, ("WT", "ET")))
    assert table.iloc[0].to_dict() == {"region": "WT", "cases": 4, "covered": 0.5, "width": pytest.approx(6)}
    none = coverage_table(evaluation(results, calibration, 0.9)).iloc[0]
    for row in (table.iloc[1], none):
        assert row["cases"] == 0
        assert row[["covered", "width"]].isna().all()


@pytest.mark.parametrize(("n", "coverage"), [(4, 0.8), (12, 0.8), (30, 0.9)])
def test_coverage_of_exchangeable_cases(n, coverage):
    """Over many draws the level is reached, and exceeded by at most 1 / (n + 1), as the theory predicts.

    Each draw of calibration and test cases is treated as a separate region.
    """
    rng, draws = np.random.default_rng(0), [f"draw{i}" for i in range(400)]

    def draw(region: str, cases: int) -> pd.DataFrame:
        reference = rng.lognormal(3, 1, cases) * (rng.uniform(size=cases) > 0.1)
        predicted = reference * rng.lognormal(0.1, 0.4, cases) + rng.exponential(0.5, cases)
        return volumes(predicted, reference, region=region)

    test, calibration = (pd.concat([draw(region, cases) for region in draws]) for cases in (10, n))
    found = coverage_table(evaluation(test, calibration, coverage, tuple(draws)))
    covered = found["covered"].astype(float)
    assert len(covered) == 400
    assert coverage - 3 * covered.sem() < covered.mean() < coverage + 1 / (n + 1) + 3 * covered.sem()
