"""Bins of probabilities and calibration error, worked out by hand and simulated."""

import numpy as np
import pandas as pd
import pytest
import torch

from common.evaluation.analysis.reliability import calibration_error
from common.evaluation.metrics.calibration import bin_probabilities
from common.evaluation.metrics.results import BIN_COLUMNS

EVERYWHERE = np.ones(6, bool)


def test_bins_by_hand():
    """There are 15 bins; an edge belongs to the bin above it, and 1 to the last bin."""
    probability = np.array([0, 0.05, 0.5, 0.52, 0.6, 1], np.float32)  # 0.6 begins the tenth bin
    found = bin_probabilities(probability, np.array([0, 1, 0, 1, 1, 1]), EVERYWHERE)
    assert list(found.columns) == ["bin", "voxels", "probability", "positives"]
    assert found["bin"].tolist() == list(range(15))
    there = found[found["voxels"] > 0].set_index("bin")
    assert there["voxels"].to_dict() == {0: 2, 7: 2, 9: 1, 14: 1}
    assert there["positives"].tolist() == [1, 1, 1, 1]
    assert there["probability"].tolist() == pytest.approx([0.05, 1.02, 0.6, 1])


def test_only_the_mask_counts():
    probability, truth = torch.rand(4, 5, 6), torch.rand(4, 5, 6) < 0.5
    mask = torch.zeros(4, 5, 6, dtype=torch.uint8)
    mask[1:3, 2:4] = 1
    found = bin_probabilities(probability, truth, mask)
    assert len(found) == 15
    assert found["voxels"].sum() == 2 * 2 * 6
    assert found["positives"].sum() == truth[1:3, 2:4].sum()
    assert found["probability"].sum() == pytest.approx(probability[1:3, 2:4].double().sum().item())
    elsewhere = torch.where(mask > 0, probability, 7.0)
    pd.testing.assert_frame_equal(bin_probabilities(elsewhere, truth | (mask == 0), mask), found)
    assert bin_probabilities(probability, truth, torch.zeros_like(mask))["voxels"].sum() == 0


def test_sums_are_of_64_bit():
    """In 32 bits, the sum of four million times 0.3 would be off by more than one part in a billion."""
    size = 2**22
    found = bin_probabilities(torch.full((size,), 0.3), torch.zeros(size), torch.ones(size))
    assert found["probability"].sum() == pytest.approx(size * float(np.float32(0.3)), rel=1e-9)
    assert bin_probabilities(np.array([1.0009, 0.5]), np.zeros(2), np.ones(2))["voxels"].iloc[14] == 1


@pytest.mark.parametrize("value", [-0.5, -0.0001, 1.0011, 1.5, np.nan])
def test_what_is_no_probability(value):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        bin_probabilities(np.array([value, 0.5]), np.zeros(2), np.ones(2))


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
