"""Decisions: the threshold as in the papers, and the mask of highest expected Dice."""

import pytest
import torch
from monai.data import MetaTensor

from common.transforms.decision import DecideLabelsd, most_expected_dice


def expected(probability: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the expected Dice of a mask."""
    return float(2 * probability[mask].double().sum() / (mask.sum() + probability.double().sum()))


def test_hand_computed_mask():
    # Expected Dice of the k largest: 2 * 0.4 / (1 + 1.1), 2 * 0.7 / (2 + 1.1), 2 * 1.0 / (3 + 1.1), 2 * 1.1 / (4 + 1.1)
    mask = most_expected_dice(torch.tensor([0.3, 0.1, 0.4, 0.3]))
    assert mask.tolist() == [True, False, True, True]


@pytest.mark.parametrize("seed", range(8))
def test_no_mask_of_the_largest_probabilities_is_better(seed):
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(6, 7, 8, generator=generator) ** (1 + 0.7 * seed) * (1 if seed % 2 else 0.3)
    ranked = probability.flatten().double().sort(descending=True).values
    best = (2 * ranked.cumsum(0) / (torch.arange(1, len(ranked) + 1) + ranked.sum())).max()
    assert expected(probability, most_expected_dice(probability)) == pytest.approx(float(best), abs=1e-9)


def test_certain_probabilities_are_kept():
    certain = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert most_expected_dice(certain).tolist() == certain.bool().tolist()


def test_a_region_that_is_probably_absent_is_left_out():
    faint = torch.full((1000,), 0.04)
    assert not most_expected_dice(faint).any()  # marking all would have an expected Dice of 0.077
    assert most_expected_dice(2 * faint).all()
    lesion = torch.cat([faint, torch.full((100,), 0.9)])
    assert most_expected_dice(lesion).tolist() == [False] * 1000 + [True] * 100


def decided(probabilities: list[list[float]], subset: str = "t1c", **options: object) -> list[int]:
    """Return the label map of voxels in a row, given the probabilities of each channel."""
    volume = MetaTensor(torch.tensor(probabilities)[:, :, None, None], meta={"filename_or_obj": "case.nii"})
    label = DecideLabelsd("pred", "brats2021", **options)({"pred": volume, "subset": subset})["pred"]
    assert label.meta["filename_or_obj"] == "case.nii"
    return label[0, :, 0, 0].tolist()


@pytest.mark.parametrize(("decision", "labels"), [("threshold", [2, 0, 4, 0]), ("expected_dice", [2, 2, 4, 0])])
def test_regions_are_decided_and_painted(decision, labels):
    wt, tc, et = [0.9, 0.45, 0.9, 0.0], [0.0, 0.0, 0.9, 0.0], [0.0, 0.0, 0.8, 0.0]
    assert decided([wt, tc, et], decision=decision) == labels


def test_a_probability_of_one_half_is_marked_by_the_threshold():
    half, less = [0.5, 0.5], [0.4999, 0.5]
    assert decided([half, less, [0.0, 0.0]]) == [2, 1]
    assert decided([half, half, less]) == [1, 4]


@pytest.mark.parametrize(("p", "labels"), [(0.0526, [0, 0]), (0.0527, [2, 2])])
def test_a_region_is_absent_below_an_expected_dice_of_a_tenth(p, labels):
    """Two voxels of p have an expected Dice of 2 p / (1 + p): 0.09994 and 0.10012."""
    assert decided([[p, p], [0.0, 0.0], [0.0, 0.0]], decision="expected_dice") == labels


def test_regions_stay_nested():
    """Enhancing tumour is decided where the core is not; it then belongs to the core and the whole tumour."""
    assert decided([[0.1, 0.9], [0.1, 0.9], [0.45, 0.5]], decision="expected_dice") == [4, 4]


@pytest.mark.parametrize(("decision", "labels"), [("threshold", [0, 4]), ("expected_dice", [2, 4])])
def test_classes_of_a_softmax_are_summed_to_regions(decision, labels):
    background, ncr, ed, et = [0.55, 0.1], [0.15, 0.2], [0.3, 0.2], [0.0, 0.5]
    assert decided([background, ncr, ed, et], decision=decision, softmax=True) == labels


def test_unknown_decision_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"decision.*best.*threshold.*expected_dice"):
        DecideLabelsd("pred", "brats2021", decision="best")


@pytest.mark.parametrize(("subset", "labels"), [("t1c+t2", [2, 2, 4]), ("t1+t2", [2, 4, 4]), ("t1", [2, 4, 4])])
def test_by_sequences_takes_what_t1c_shows_by_the_threshold(subset, labels):
    wt, tc, et = [0.45, 0.9, 0.9], [0.0, 0.45, 0.9], [0.0, 0.45, 0.8]
    assert decided([wt, tc, et], subset, decision="by_sequences") == labels


@pytest.mark.parametrize(("p", "labels"), [(0.2499, [0, 0, 0]), (0.2501, [2, 2, 2])])
def test_by_sequences_marks_nothing_where_the_whole_tumour_is_not_found(p, labels):
    """Three voxels of p have an expected Dice of 2 p / (1 + p): 0.3999 and 0.4001, below and above the limit."""
    regions = [[p] * 3, [0.0] * 3, [0.0] * 3]
    assert decided(regions, "t1c", decision="by_sequences") == labels
    assert decided(regions, decision="expected_dice") == [2, 2, 2]


def test_only_the_whole_tumour_has_to_be_found():
    """The core, of an expected Dice of 0.33, is marked where T1c does not show it."""
    assert decided([[0.9] * 3, [0.2] * 3, [0.0] * 3], "t1+t2", decision="by_sequences") == [1, 1, 1]


def test_where_the_whole_tumour_is_not_found_its_core_is_not_marked_either():
    wt, tc = [0.6, *[0.1] * 40], [0.6, *[0.0] * 40]
    assert decided([wt, tc, tc], "t1c", decision="by_sequences") == [0] * 41
    assert decided([wt, tc, tc], "t1c", decision="expected_dice")[0] == 4
