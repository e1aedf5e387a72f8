import pytest
import torch
from monai.transforms import Compose, Lambdad, RandScaleIntensityd

from common.transforms import CachedDataset, StagedDataset


def dataset(factor, cases=2):
    steps = [Lambdad("image", lambda x: x * factor), RandScaleIntensityd("image", factors=0.5, prob=1.0)]
    return CachedDataset([{"image": torch.full((1, 2, 2, 2), 1.0 + case)} for case in range(cases)], Compose(steps))


def test_each_dataset_serves_from_its_epoch_on_and_all_are_reseeded():
    staged, seen = StagedDataset([dataset(1), dataset(100)], [0, 3]), []
    for staged.epoch in range(5):
        staged.transform.set_random_state(seed=0)
        seen.append(staged[1]["image"].mean().item())
    assert seen[0] == seen[1] == seen[2]
    assert 1 <= seen[0] <= 3
    assert seen[3] == seen[4]
    assert 100 <= seen[3] <= 300
    assert len(staged) == 2


@pytest.mark.parametrize(
    ("cases", "from_epoch", "fact"),
    [(2, [0], "expected"), (2, [1, 3], "expected"), (2, [0, 0], "expected"), (3, [0, 3], "same length")],
)
def test_stages_that_do_not_follow_each_other_or_differ_are_refused(cases, from_epoch, fact):
    with pytest.raises(ValueError, match=fact):
        StagedDataset([dataset(1), dataset(2, cases)], from_epoch)
