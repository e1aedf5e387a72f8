"""Label maps whose values mean other classes than the cohort's are doubted; those of a poor method are not."""

import numpy as np
import pytest
from scipy import ndimage

from common.cohorts import get_cohort
from common.modalities import IGNORED
from mmb.experiments.comparison.class_order import ClassOrder

BRATS = get_cohort("brats2023").labels  # 1 NCR, 2 ED, 3 ET


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 24, 24)), 3)
    return np.digitize(noise / noise.max(), [0.1, 0.4, 0.7])


def doubt(prediction: np.ndarray, reference: np.ndarray, labels=BRATS) -> str | None:
    order = ClassOrder(labels)
    order.add(prediction, reference)
    return order.doubt()


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        ([0, 2, 1, 3], "1 meant ED and 2 meant NCR: "),  # nnU-Net's conversion of BraTS
        ([0, 3, 2, 1], "1 meant ET and 3 meant NCR: "),
        ([0, 2, 3, 1], "1 meant ET and 2 meant NCR and 3 meant ED: "),
    ],
)
def test_another_order(truth, meant, words):
    said = doubt(np.array(meant)[truth], truth)
    assert words in said
    assert "to 100.0. The cohort has 1 NCR, 2 ED, 3 ET" in said


def test_the_overlap_is_that_of_each_region(truth):
    regions = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    prediction = np.roll(np.array([0, 2, 1, 3])[truth], 1, axis=0)
    said = doubt(prediction, truth)
    for name, classes in regions.items():
        dice = []
        for values in (prediction, np.array([0, 2, 1, 3])[prediction]):
            masks = np.isin(values, classes), np.isin(truth, classes)
            dice.append(200 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
        assert f"{name} {dice[0]:.1f} to {dice[1]:.1f}" in said


def test_right_and_poor_maps(truth):
    noise = np.random.default_rng(1).integers(1, 4, truth.shape)
    confused = np.where(np.isin(truth, (1, 2)), (noise > 1) + 1, truth)  # NCR and ED by chance
    for prediction in (
        truth,
        np.roll(truth, 3, axis=1),
        confused,
        np.where(truth == 1, 0, truth),
        np.zeros_like(truth),
    ):
        assert doubt(prediction, truth) is None


def test_voxels_without_a_reference_do_not_count(truth):
    reference = np.where(truth == 3, IGNORED, truth)
    assert doubt(np.where(truth == 3, 1, truth), reference) is None
