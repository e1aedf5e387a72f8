"""Which subsets and patches are drawn, a cohort repeated for each subset, and data sets in stages."""

from collections import Counter

import pytest
import torch
from draws import follow
from monai.data import DataLoader
from monai.transforms import Compose, Lambdad, Orientationd, RandScaleIntensityd

from common import transforms
from common.modalities import presence, subset_name, subsets


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def chi_square(counts: Counter, probabilities: dict[tuple, float]) -> float:
    draws = sum(counts.values())
    return sum((counts[key] - draws * p) ** 2 / (draws * p) for key, p in probabilities.items())


def test_subset_frequencies():
    counts = Counter(map(tuple, transforms.random_subsets(torch.ones(20_000, 4, dtype=torch.bool)).tolist()))
    of_size = {1: 1 / 16, 2: 1 / 24, 3: 1 / 16, 4: 1 / 4}
    expected = {key: of_size[sum(key)] for key in counts}
    assert (len(counts), sum(expected.values())) == (15, pytest.approx(1))
    assert chi_square(counts, expected) < 36.1  # 14 degrees of freedom, p = 0.001
    present = torch.tensor([True, False, True, True]).expand(20_000, 4)
    counts = Counter(map(tuple, transforms.random_subsets(present).tolist()))
    expected = {key: 1 / 3 if sum(key) == 3 else 1 / 9 for key in counts}
    assert len(counts) == 7
    assert chi_square(counts, expected) < 22.5  # 6 degrees of freedom, p = 0.001


def test_how_many_modalities_are_kept_can_be_told():
    present = torch.tensor([[True] * 4, [True, False, True, False]]).repeat_interleave(20_000, 0)
    drawn = transforms.random_subsets(present, kept=[0.30, 0.35, 0.20, 0.15])
    assert not (drawn & ~present).any()
    assert follow(drawn[:20_000].sum(dim=1).tolist(), {1: 0.30, 2: 0.35, 3: 0.20, 4: 0.15})
    assert follow(drawn[20_000:].sum(dim=1).tolist(), {1: 30 / 65, 2: 35 / 65})
    pairs = [tuple(row) for row in drawn[:20_000].tolist() if sum(row) == 2]
    assert follow(pairs, dict.fromkeys(set(pairs), 1 / 6))
    for kept in ([0.5, 0.5], [0, 0.5, 0.3, 0.2]):
        with pytest.raises(ValueError, match=r"kept .*: expected 4 numbers"):
            transforms.random_subsets(present, kept=kept)


def test_incomplete_subsets_lack_one_to_three_alike():
    counts = Counter(map(tuple, transforms.incomplete_subsets(torch.ones(20_000, 4, dtype=torch.bool)).tolist()))
    of_size = {1: 1 / 12, 2: 1 / 18, 3: 1 / 12}
    assert len(counts) == 14
    assert chi_square(counts, {key: of_size[sum(key)] for key in counts}) < 34.5  # 13 degrees of freedom, p = 0.001
    single = torch.tensor([[False, True, False, False]])
    assert torch.equal(transforms.incomplete_subsets(single), single)


def test_subsets_are_never_empty_nor_beyond_what_is_present():
    present = torch.rand(5000, 4) < 0.5
    present[torch.arange(5000), torch.arange(5000) % 4] = True
    drawn = transforms.random_subsets(present)
    assert drawn.any(dim=1).all()
    assert not (drawn & ~present).any()
    single = present.sum(dim=1) == 1
    assert torch.equal(drawn[single], present[single])


KEEP = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)


def test_visible_patches_are_256_of_2048_whatever_is_dropped():
    visible = transforms.random_patches(KEEP, [8, 8, 8], 0.875)
    assert visible.shape == (4, 4, 8, 8, 8)
    each = visible.flatten(2).sum(dim=2)
    assert each.sum(dim=1).tolist() == [256] * 4
    assert (each[~KEEP] == 0).all()
    assert each[3].tolist() == [0, 0, 256, 0]


def test_patches_are_shared_out_alike_over_modalities_and_positions():
    visible = transforms.random_patches(KEEP[1:2].expand(600, 4), [4, 4, 4], 0.875).flatten(2)
    rate = 32 / (3 * 64)
    assert visible.float().mean(dim=(0, 2)).tolist() == pytest.approx([rate, 0, rate, rate], abs=0.01)
    assert visible[:, KEEP[1]].float().mean(dim=(0, 1)).std() < 2 * (rate * (1 - rate) / 1800) ** 0.5
    both = (visible[:, 0] & visible[:, 2]).float().mean()  # independent of each other's position
    assert both == pytest.approx(rate**2, abs=0.005)


@pytest.mark.parametrize(("ratio", "visible"), [(0.7, 10), (0.9, 3), (0.875, 4)])
def test_the_number_of_visible_patches_is_rounded(ratio, visible):
    """Of 32 patches 9.6, 3.2 and 4 would stay."""
    shown = transforms.random_patches(torch.ones(3, 4, dtype=torch.bool), [2, 2, 2], ratio)
    assert shown.flatten(1).sum(dim=1).tolist() == [visible] * 3


@pytest.mark.parametrize(("ratio", "visible"), [(0.5, 1024), (1.0, 0)])
def test_mask_ratio_that_cannot_be_met(ratio, visible):
    with pytest.raises(ValueError, match=f"mask_ratio {ratio} leaves {visible} of 2048 .*; expected 1 to 512"):
        transforms.random_patches(KEEP, [8, 8, 8], ratio)


def test_every_non_empty_subset_of_what_is_present_is_as_likely():
    for present, chosen in ((torch.ones(30_000, 4, dtype=torch.bool), 15), (KEEP[1].expand(30_000, 4), 7)):
        drawn = transforms.uniform_subsets(present)
        assert not bool((drawn & ~present).any())
        counts = Counter(map(tuple, drawn.tolist()))
        assert len(counts) == chosen
        assert (False,) * 4 not in counts
        assert all(abs(count / 30_000 - 1 / chosen) < 0.01 for count in counts.values())


MODALITIES = ("t1", "t1c", "t2", "flair")
KEYS = ["image", "label"]
TURN = Orientationd(KEYS, axcodes="RAS", labels=None)
TRANSFORM = Compose([transforms.LoadSubjectd("brats2020"), TURN, transforms.ScaleBrainIntensityd("image")])


def test_order_and_content_and_an_unknown_modality(write_subject, subject):
    items = [write_subject("a", seed=1), write_subject("b", seed=2)]
    dataset = transforms.SubsetDataset(items, TRANSFORM, [("flair",), ("T1ce", "t1"), MODALITIES], MODALITIES)
    names = ["flair", "t1+t1c", "t1+t1c+t2+flair"]
    assert [(s["case"], s["subset"]) for s in dataset] == [(case, name) for case in "ab" for name in names]
    full = TRANSFORM(items[1])["image"]
    sample = dataset[4]["image"]
    assert presence(sample[None]).tolist() == [[True, True, False, False]]
    assert torch.equal(sample[:2].as_tensor(), full[:2].as_tensor())
    assert torch.equal(sample.affine, full.affine)
    assert torch.equal(dataset[5]["image"].as_tensor(), full.as_tensor())  # earlier subsets have not changed it
    with pytest.raises(ValueError, match="Unknown modality 'pet'"):
        transforms.SubsetDataset([subject], TRANSFORM, [("pet",)], MODALITIES)


def test_each_case_is_loaded_once_by_a_loader(write_subject, opened):
    dataset = transforms.SubsetDataset([write_subject()], TRANSFORM, subsets(MODALITIES), MODALITIES)
    batches = list(DataLoader(dataset, batch_size=1))
    assert [batch["subset"] for batch in batches] == [[subset_name(s)] for s in subsets(MODALITIES)]
    assert len(opened) == 5


def test_subsets_beyond_what_a_case_has_are_left_out(write_subject):
    items = [write_subject("a", modalities=("t1", "flair")), write_subject("b", modalities=("t2",))]
    dataset = transforms.SubsetDataset(items, TRANSFORM, subsets(MODALITIES), MODALITIES)
    found = [(sample["case"], sample["subset"]) for sample in dataset]
    assert found == [("a", "t1"), ("a", "flair"), ("a", "t1+flair"), ("b", "t2")]


def test_cached_on_disk(write_subject, tmp_path, opened):
    arguments = ([write_subject()], TRANSFORM, subsets(MODALITIES), MODALITIES, tmp_path / "cache")
    first = [sample["image"] for sample in transforms.SubsetDataset(*arguments)]
    again = [sample["image"] for sample in transforms.SubsetDataset(*arguments)]
    assert len(opened) == 5
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.as_tensor(), other.as_tensor(), rtol=0, atol=0, equal_nan=True)


def dataset(factor, cases=2):
    steps = [Lambdad("image", lambda x: x * factor), RandScaleIntensityd("image", factors=0.5, prob=1.0)]
    return transforms.CachedDataset(
        [{"image": torch.full((1, 2, 2, 2), 1.0 + case)} for case in range(cases)], Compose(steps)
    )


def test_each_dataset_serves_from_its_epoch_on_and_all_are_reseeded():
    staged, seen = transforms.StagedDataset([dataset(1), dataset(100)], [0, 3]), []
    for staged.epoch in range(5):
        staged.transform.set_random_state(seed=0)
        seen.append(staged[1]["image"].mean().item())
    assert seen[0] == seen[1] == seen[2]
    assert 1 <= seen[0] <= 3
    assert seen[3] == seen[4]
    assert 100 <= seen[3] <= 300
    assert len(staged) == 2


def test_a_stage_of_no_epochs_is_left_out():
    staged = transforms.StagedDataset([dataset(1), dataset(100), dataset(10_000)], [0, 0, 3])
    assert 100 <= staged[1]["image"].mean() <= 300


@pytest.mark.parametrize(
    ("cases", "from_epoch", "fact"),
    [
        (2, [0], "expected"),
        (2, [1, 3], "expected"),
        (2, [0, -1], "never fall"),
        (3, [0, 3], "same length"),
    ],
)
def test_stages_that_do_not_follow_each_other_or_differ_are_refused(cases, from_epoch, fact):
    with pytest.raises(ValueError, match=fact):
        transforms.StagedDataset([dataset(1), dataset(2, cases)], from_epoch)
