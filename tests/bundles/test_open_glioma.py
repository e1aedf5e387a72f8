"""The recipe open_glioma sets the same data settings in every bundle, and works in a short training."""

import json
from pathlib import Path

import pytest
import torch
from bundles.running import ROOT, Bundle

from mmb.experiments.lists import read_list

BUNDLES = ("m3ae", "passion", "gss", "mag_ms", "medmap")
SHARED = ("cohort", "split", "spacing", "crop", "overlap", "warmup", "val_subsets")
SHARED += ("crop_ratios", "affine_prob", "rotation", "zoom", "scale", "shift", "flip_prob", "lr_scheduler")
TINY = {"spacing": [8, 8, 8], "crop": [16, 16, 16], "overlap": 0, "epochs": 2, "val_interval": 1}
TINY |= {"width": 8, "batch_size": 2, "split": "seeded", "val_subsets": [["t1c"]]}


def recipe(name: str) -> dict:
    return json.loads((ROOT / "bundles" / name / "configs" / "recipes" / "open_glioma.json").read_text())


def augmentation(made: dict) -> list[dict]:
    """Return a recipe's random transforms except that of the label, which differs for a head of regions."""
    return [step for step in made["random_transforms"] if not step["_target_"].startswith("common.transforms.LabelsTo")]


def test_data_settings_are_the_same_in_all_bundles_and_all_methods_train_by_the_recipe():
    first, *others = map(recipe, BUNDLES)
    assert len(augmentation(first)) == 8
    for other in others:
        assert {key: other[key] for key in SHARED} == {key: first[key] for key in SHARED}
        assert augmentation(other) == augmentation(first)
    entries = read_list(ROOT / "bundles" / "open_glioma.json").entries
    assert ({entry.bundle for entry in entries}, len(entries)) == (set(BUNDLES), 8)
    assert all(Path(entry.files[-1]).name == "open_glioma.json" for entry in entries)


@pytest.mark.parametrize("name", BUNDLES[:2])
def test_a_short_training_leaves_the_average_of_the_weights(name, coarse_dir, tmp_path):
    """The phantom has the file names of BraTS 2021 and its label value of ET."""
    settings = {**TINY, "dataset_dir": coarse_dir, "output_dir": tmp_path, "device": "cpu"}
    own = {"m3ae": {"grid": [30, 30, 20], "pretrain_epochs": 1}, "mag_ms": {"hidden": 16, "mlp_dim": 16, "heads": 2}}
    # oneDNN of torch 2.13 reads beyond an image for the gradient of a padded 3x3x3 convolution in bfloat16 whose first
    # axis has 2 voxels (seen with AVX512-BF16), as the coarsest level of a crop of 16 has.
    own["m3ae"]["crop"] = [24, 16, 16]
    settings |= own.get(name, {})
    stages = ["pretrain", "finetune"] if name == "m3ae" else ["fit"]
    for stage in stages:
        Bundle(name).run_here(["train.json", "recipes/open_glioma.json"], stage, **settings)
    weights = "finetuned" if name == "m3ae" else "trained"
    last = torch.load(tmp_path / f"{weights}_last.pt", weights_only=True)
    written = torch.load(tmp_path / f"{weights}.pt", weights_only=True)
    assert last["best"]["best_metric_epoch"] in (1, 2)
    assert written.keys() == last["network"].keys()
    if last["best"]["best_metric_epoch"] == 2:
        assert all(torch.equal(value, last["average"][key]) for key, value in written.items())
    assert not all(torch.equal(value, last["network"][key]) for key, value in written.items())
    stage, settings = stages[-1], {**settings, "resume": True}
    Bundle(name).run_here(["train.json", "recipes/open_glioma.json"], stage, **settings)
    again = torch.load(tmp_path / f"{weights}_last.pt", weights_only=True)
    assert again["lr_scheduler"]["last_epoch"] == last["lr_scheduler"]["last_epoch"] == 2


@pytest.mark.parametrize("name", [name for name in BUNDLES if name != "mag_ms"])  # whose windows have one size
def test_coarse_images_come_first_and_fine_ones_later(name, coarse_dir, tmp_path):
    files = ["train.json", "recipes/open_glioma.json", "recipes/coarse_to_fine.json"]
    sizes = {"epochs": 50, "coarse_spacing": [16, 16, 16], "coarse_crop": [8, 16, 8], "affine_prob": 0.0}
    get = Bundle(name).get(*files, **{**TINY, **sizes}, dataset_dir=coarse_dir, output_dir=tmp_path)
    dataset = get("train#dataset")
    for epoch, size, spacing in ((0, [8, 16, 8], 16), (31, [8, 16, 8], 16), (32, [16, 16, 16], 8)):
        dataset.epoch = epoch
        (item,) = dataset[0]
        assert list(item["image"].shape[1:]) == list(item["label"].shape[1:]) == size
        assert item["image"].pixdim.tolist() == pytest.approx([spacing] * 3)
    assert any(type(handler).__name__ == "SetEpoch" and handler.target is dataset for handler in get("train#handlers"))
