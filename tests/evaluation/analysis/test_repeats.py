"""Trainings with several seeds become one evaluation, in which cases remain the units."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.analysis.repeats import average_repeats, spread


def shifted(evaluation, by):
    change = by * (evaluation.results["metric"] == "dice")
    return replace(evaluation, results=evaluation.results.assign(value=evaluation.results["value"] + change))


def test_each_case_gets_its_mean_over_repeats():
    one = random_evaluation()
    mean = average_repeats("method", [shifted(one, 0.0), shifted(one, 0.1), shifted(one, -0.4)])
    expected = one.values("dice") - 0.1
    np.testing.assert_allclose(mean.values("dice").loc[expected.index], expected, atol=1e-12)
    assert mean.name == "method"
    assert mean.facts["repeats"] == 3
    assert len(mean.results) == len(one.results)
    assert mean.bins.empty


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
    with pytest.raises(ValueError, match="1 evaluations given; expected those of two or more"):
        average_repeats("method", [one])
    fewer = replace(one, results=one.results[one.results["case"] != one.results["case"].iloc[0]])
    with pytest.raises(ValueError, match="lacks"):
        average_repeats("method", [one, fewer])
