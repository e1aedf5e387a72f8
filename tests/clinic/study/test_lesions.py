"""Lesions of known shapes."""

import numpy as np
import pytest

from mmb.clinic.study.lesions import lesions

GRID = np.mgrid[:70, :60, :20].astype(float)
BRAIN = (
    sum(((axis - middle) / half) ** 2 for axis, middle, half in zip(GRID, (35, 30, 10), (34, 29, 9), strict=True)) <= 1
)


def ellipse(centre, half) -> np.ndarray:
    """Return a disc of three slices."""
    x, y, z = (axis - middle for axis, middle in zip(GRID, centre, strict=True))
    return ((x / half[0]) ** 2 + (y / half[1]) ** 2 <= 1) & (np.abs(z) <= 1)


def test_lesions_by_size_with_side_and_volume():
    small, large = ellipse((16, 30, 10), (7, 5)), ellipse((52, 30, 10), (10, 8))
    whole = small | large
    whole[35, 5, 10] = True
    found, specks = lesions({"WT": whole, "ET": ellipse((52, 30, 10), (5, 3))}, (1, 1, 1), BRAIN, 50.0)
    assert [lesion.side for lesion in found] == ["right", "left"]
    assert specks == 1
    assert found[0].volume / found[1].volume == pytest.approx(large.sum() / small.sum())
    assert sum(lesion.volume for lesion in found) == pytest.approx(50, rel=0.01)
    assert [lesion.centre for lesion in found] == [(52, 30, 10), (16, 30, 10)]
    assert lesions({"WT": np.zeros_like(whole)}, (1, 1, 1), BRAIN, 0.0) == ([], 0)


def test_the_side_is_that_of_the_brains_own_midline():
    x, y, _ = GRID - np.array([35, 30, 10])[:, None, None, None]
    turned = ((x * 0.94 + y * 0.34) / 24) ** 2 + ((y * 0.94 - x * 0.34) / 29) ** 2 <= 1  # by 20 degrees
    (left,), _ = lesions({"WT": ellipse((36, 14, 10), (4, 4))}, (1, 1, 1), turned, 1.0)
    (both,), _ = lesions({"WT": ellipse((40, 14, 10), (4, 4))}, (1, 1, 1), turned, 1.0)
    assert (left.side, both.side) == ("left", "both sides")
