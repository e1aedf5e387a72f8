"""Dice by hand, empty regions included."""

import pytest
import torch

from common.evaluation import region_dice


def masks(*regions: list[int]) -> torch.Tensor:
    return torch.tensor(regions, dtype=torch.uint8)[:, :, None, None]


def test_by_hand():
    prediction = masks([1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 1])
    reference = masks([0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1])
    assert region_dice(prediction, reference).tolist() == pytest.approx([2 / 5, 1, 0, 4 / 5])


def test_empty_regions():
    """Empty in both: 1; in the reference alone: 0; in the prediction alone: 0."""
    prediction = masks([0, 0], [0, 1], [0, 0])
    reference = masks([0, 0], [0, 0], [1, 1])
    assert region_dice(prediction, reference).tolist() == [1, 0, 0]


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="shape"):
        region_dice(masks([0, 1]), masks([0, 1, 1]))
