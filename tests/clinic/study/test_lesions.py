"""Lesions of known shapes."""

import numpy as np
import pytest

from mmb.clinic.study.lesions import centre, lesions

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


@pytest.mark.parametrize(("right", "side"), [(2, "left"), (3, "both sides"), (22, "both sides"), (23, "right")])
def test_a_lesion_is_on_both_sides_from_a_tenth_of_it_on(right, side):
    """Of 25 planes from left to right, 2, 3, 22 or 23 (8, 12, 88 or 92 %) lie to the right of x = 24.5."""
    brain, mask = np.ones((50, 30, 6), bool), np.zeros((50, 30, 6), bool)
    mask[right:, 14:16, 2:4][:25] = True
    (found,), specks = lesions({"WT": mask}, (1, 1, 1), brain, 0.1)
    assert (found.side, specks) == (side, 0)  # of 0.1 ml, so it is no speck
    mask[right, 14, 2] = False
    assert lesions({"WT": mask}, (1, 1, 1), brain, 0.1) == ([], 1)  # 99 voxels are one


@pytest.mark.parametrize(("degrees", "side"), [(25, "left"), (35, "right")])
def test_the_midline_of_a_brain_turned_by_up_to_30_degrees_turns_with_it(degrees, side):
    """A lesion 4 mm right of the middle and 20 mm in front: at 25 degrees the midline lies 9 mm right there."""
    x, y = np.mgrid[-40:41, -40:41].astype(float)
    turn = np.radians(degrees)
    across, along = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    brain = ((across / 24) ** 2 + (along / 34) ** 2 <= 1)[..., None] & np.ones(3, bool)
    mask = ((x - 4) ** 2 + (y - 20) ** 2 <= 9)[..., None] & np.ones((1, 1, 3), bool)
    (found,), _ = lesions({"WT": mask}, (2, 2, 2), brain, 1.0)
    assert found.side == side


def test_the_middle_of_the_image_parts_a_brain_of_which_nothing_is_known():
    mask = np.zeros((10, 10, 10), bool)
    mask[5:8, 3:7, 3:7] = True
    (found,), _ = lesions({"WT": mask}, (2, 2, 2), np.zeros((10, 10, 10), bool), 1.0)
    assert found.side == "right"  # of 4.5


def test_the_centre_is_the_voxel_nearest_to_the_centre_of_mass_in_mm():
    """Of three voxels, the centre of mass is (4 / 3, 3): 2.7 voxels from the third, and 3.3 from the others."""
    mask = np.zeros((5, 7, 1), bool)
    mask[0, 0], mask[0, 6], mask[4, 3] = True, True, True
    assert centre(mask, (1, 1, 1)) == (4, 3, 0)
    assert centre(mask, (3, 1, 1)) == (0, 0, 0)  # 5 mm away, and the third one 8 mm
