"""A cohort is repeated once for each subset of its modalities."""

import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, Orientationd

from common.modalities import presence, subset_name, subsets
from common.transforms import LoadSubjectd, ScaleBrainIntensityd, SubsetDataset

MODALITIES = ("t1", "t1c", "t2", "flair")
KEYS = ["image", "label"]
TRANSFORM = Compose(
    [LoadSubjectd("brats2020"), Orientationd(KEYS, axcodes="RAS", labels=None), ScaleBrainIntensityd("image")]
)


def test_order_and_content(write_subject):
    items = [write_subject("a", seed=1), write_subject("b", seed=2)]
    chosen = [("flair",), ("T1ce", "t1"), MODALITIES]
    dataset = SubsetDataset(items, TRANSFORM, chosen, MODALITIES)
    names = ["flair", "t1+t1c", "t1+t1c+t2+flair"]
    assert [(s["case"], s["subset"]) for s in dataset] == [(case, name) for case in "ab" for name in names]
    full = TRANSFORM(items[1])["image"]
    sample = dataset[4]["image"]
    assert presence(sample[None]).tolist() == [[True, True, False, False]]
    assert torch.equal(sample[:2].as_tensor(), full[:2].as_tensor())
    assert torch.equal(sample.affine, full.affine)
    assert torch.equal(dataset[5]["image"].as_tensor(), full.as_tensor())  # earlier subsets have not changed it


def test_each_case_is_loaded_once_by_a_loader(write_subject, opened):
    dataset = SubsetDataset([write_subject()], TRANSFORM, subsets(MODALITIES), MODALITIES)
    batches = list(DataLoader(dataset, batch_size=1))
    assert [batch["subset"] for batch in batches] == [[subset_name(s)] for s in subsets(MODALITIES)]
    assert len(opened) == 5


def test_subsets_beyond_what_a_case_has_are_left_out(write_subject):
    items = [write_subject("a", modalities=("t1", "flair")), write_subject("b", modalities=("t2",))]
    dataset = SubsetDataset(items, TRANSFORM, subsets(MODALITIES), MODALITIES)
    found = [(sample["case"], sample["subset"]) for sample in dataset]
    assert found == [("a", "t1"), ("a", "flair"), ("a", "t1+flair"), ("b", "t2")]


def test_cached_on_disk(write_subject, tmp_path, opened):
    items = [write_subject()]
    arguments = (items, TRANSFORM, subsets(MODALITIES), MODALITIES, tmp_path / "cache")
    first = [sample["image"] for sample in SubsetDataset(*arguments)]
    again = [sample["image"] for sample in SubsetDataset(*arguments)]
    assert len(opened) == 5
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.as_tensor(), other.as_tensor(), rtol=0, atol=0, equal_nan=True)


def test_unknown_modality(subject):
    with pytest.raises(ValueError, match="Unknown modality 'pet'"):
        SubsetDataset([subject], TRANSFORM, [("pet",)], MODALITIES)
