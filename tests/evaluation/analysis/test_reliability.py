"""Calibration error, worked out by hand and simulated."""

import pandas as pd
import pytest
import torch

from common.evaluation.analysis.reliability import calibration_error
from common.evaluation.metrics.calibration import bin_probabilities
from common.evaluation.metrics.results import BIN_COLUMNS

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
