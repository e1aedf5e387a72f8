"""Every method and baseline learns: trained on a crop of one phantom case until it overfits, it segments that crop.

Networks that reproduce the published numbers and losses with the right values may still not learn together.
"""

import json
from typing import Any

import pytest
import torch
from bundles.running import ROOT, Bundle, configurations
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import Trainer

from common.cohorts.datalist import load_datalist, write_datalist
from common.cohorts.registry import PHANTOM

BUNDLES = ROOT / "bundles"
LEARNT = 0.8
"""Mean Dice of WT, TC and ET."""
CROP = [16, 16, 16]
SLICE = [32, 32]
SETTINGS = {"spacing": [6.0, 6.0, 6.0], "batch_size": 1, "epochs": 120, "val_subsets": [], "quiet": True}
SETTINGS |= {"checkpoint_interval": 1000, "val_interval": 1000, "evaluate": [], "run": ["@fit"]}
LONGER = {"epochs": 160}
FAST = {"learning_rate": 0.03}
"""Three times the learning rate of the bundles, also used for MAG-MS: half the steps are then enough."""
M3AE = {**LONGER, "width": 8, "grid": [40, 40, 26], "patch_size": 4, "pretrain_batch_size": 1, "pretrain_epochs": 1}
M3AE_STAGES = {**M3AE, "run": ["@pretrain", "@finetune"]}
UNETR = {"width": 4, "hidden": 32, "mlp_dim": 32, "heads": 2}
FUSION = {"width": 4, "embed_dim": 16, "mlp_dim": 32, "heads": 2, "crop": SLICE}
PLAIN = {"feature_encoder": None, "anchor": None}
PAIR = {"dedicated": [["t1c", "flair"]]}
BOTTLENECK = {"feature_encoder": None, "align_at": "bottleneck"}
PMKL = {**PAIR, "width": 4, "teacher_epochs": 120, "run": ["@instruct", "@fit"]}

OWN: dict[str, dict[str, Any]] = {
    "m3ae": M3AE_STAGES,
    "m3ae/baselines/zero_filled": {**M3AE, "run": ["@finetune"]},
    "m3ae/baselines/moddrop": {**M3AE, "run": ["@finetune"]},
    "mag_ms": {**UNETR, "learning_rate": 0.006},
    "mag_ms/baselines/unetr_zero": UNETR,
    "mag_ms/baselines/unetr_mean": UNETR,
    "mag_ms/baselines/unetr_dedicated": {**UNETR, "dedicated": [[*PHANTOM.modalities]]},
    "mag_ms/baselines/hemis": {"width": 8},
    "medmap": FUSION,
    "medmap/backbones/pmkl": PMKL,
    "medmap/backbones/acn": PAIR,
    "passion": {**FUSION, "missing_rates": None, "perfect_data": True, **LONGER, **FAST},
    "gss": {**FUSION, **LONGER, **FAST},
    "gss/baselines/backbone": {**FUSION, **LONGER, **FAST},
    "gss/baselines/moddrop": LONGER,
    "gss/baselines/zero_filled": LONGER,
    "gss/baselines/uhved": {**LONGER, "width": 8},
    "gss/baselines/robustseg": {"width": 4, "epochs": 240},
}
"""Settings of configurations that learn with others than `SETTINGS`."""
VARIANTS = {
    "m3ae/recipes/full_view": {**M3AE_STAGES, "modality_transforms": []},
    "mag_ms, MAG": {**UNETR, "learning_rate": 0.006, "lambda_kl": 0, "gamma": 0},
    "medmap, mmFormer": {**FUSION, **PLAIN},
    "medmap/backbones/pmkl, PMKL": {**PLAIN, **PMKL},
    "medmap/backbones/acn, at the bottleneck": {**PAIR, **BOTTLENECK},
    "medmap/backbones/acn, ACN": PLAIN,
    "gss/baselines/backbone, M2FTrans": {**FUSION, **LONGER, **FAST, "backbone": "M2FTrans"},
}
LEARNERS = {name: OWN.get(name, {}) for name in configurations()} | VARIANTS
"""Configuration, and which one of it -> settings. ACN and SMU-Net have all 14 missing paths: while each of them has
hardly been trained, it must not hold the full path back."""


@pytest.fixture(scope="module")
def one_case(coarse_dir, tmp_path_factory):
    """A datalist of one training case, with a tumour of 379 voxels of 6 mm, 29 of which are necrosis."""
    parts = load_datalist(coarse_dir / "datalist.json", coarse_dir)
    path = tmp_path_factory.mktemp("one") / "datalist.json"
    write_datalist({"training": parts["training"][1:2], "validation": [], "test": []}, path)
    return path


def fixed_crop(bundle: Bundle, crop: list[int]) -> dict[str, list]:
    """Return a bundle's transforms without the random ones: the crop is centred on the tumour, in 2D it is a slice."""
    train = json.loads((bundle.folder / "configs" / "train.json").read_text())
    (to_target,) = (one for one in train["random_transforms"] if "LabelsTo" in str(one))
    of = {"keys": ["image", "label"]}
    return {
        "deterministic_transforms": [one for one in train["deterministic_transforms"] if "SpatialPad" not in str(one)],
        "random_transforms": [
            {"_target_": "CropForegroundd", **of, "source_key": "label", "margin": crop[0], "allow_smaller": False},
            {"_target_": "CenterSpatialCropd", **of, "roi_size": [*crop, 1][:3]},
            to_target,
            *([{"_target_": "SqueezeDimd", **of, "dim": -1}] if len(crop) == 2 else []),
            {"_target_": "SelectItemsd", **of},
        ],
    }


def without(image: torch.Tensor, *absent: str) -> torch.Tensor:
    """Return an image ``(B, 4, ...)`` of the phantom with some of its modalities missing."""
    seen = image.clone()
    seen[:, [PHANTOM.modalities.index(name) for name in absent]] = torch.nan
    return seen


def regions(label: torch.Tensor) -> torch.Tensor:
    """Return WT, TC and ET ``(B, 3, ...)`` from the classes background, NCR, ED and ET ``(B, 1, ...)``."""
    return torch.cat([label > 0, (label == 1) | (label == 3), label == 3], dim=1)


def dice(network: torch.nn.Module, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the Dice of WT, TC and ET ``(3,)`` for a sample, using all its modalities that are not NaN."""
    with torch.no_grad():
        logits = network.eval()(image).as_subclass(torch.Tensor)
    label = label.as_subclass(torch.Tensor)
    if label.shape[1] == 3:
        predicted, truth = logits > 0, label > 0
    else:
        predicted, truth = regions(logits.argmax(dim=1, keepdim=True)), regions(label)
    both = (predicted & truth).flatten(2).sum(dim=2)
    return (2 * both / (predicted.flatten(2).sum(dim=2) + truth.flatten(2).sum(dim=2)))[0]


def until_learnt(trainer: Trainer, network: torch.nn.Module, image: torch.Tensor, label: torch.Tensor) -> None:
    """Stop a training, which has one step per epoch, at the first tenth epoch at which the network has learned."""

    @trainer.on(Events.ITERATION_COMPLETED(every=10))
    def end(trainer: Trainer) -> None:
        if dice(network, image, label).mean() >= LEARNT:
            trainer.state.max_epochs = trainer.state.epoch  # keeps the weights of the final epoch


def test_every_method_of_the_leaderboard_is_among_them():
    listed = json.loads((BUNDLES / "leaderboard.json").read_text())["methods"].values()
    of = {"/".join([each["bundle"], *each.get("configs", [])]).removesuffix(".json") for each in listed}
    assert of <= {name.split(",")[0] for name in LEARNERS}


@pytest.mark.slow  # each is a training
@pytest.mark.parametrize("name", LEARNERS)
def test_a_training_case_is_learnt_by_heart(name, coarse_dir, one_case, tmp_path):
    """The network learns to segment from all modalities; PMKL's student of a pair does so from its pair."""
    folder, *overlay = name.split(",")[0].split("/")
    bundle = Bundle(folder)
    settings = {"crop": CROP, **SETTINGS, **LEARNERS[name]}
    configs = ["train", *["/".join(overlay)] * bool(overlay)]
    files = [str(bundle.folder / "configs" / f"{config}.json") for config in configs]
    settings |= fixed_crop(bundle, settings["crop"])
    settings |= {"dataset_dir": str(coarse_dir), "datalist": str(one_case), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(files, logging_file=False, bundle_root=str(bundle.folder), **settings)
    workflow.initialize()
    get = workflow.parser.get_parsed_content
    network, batch = get("network"), next(iter(get("train#dataloader")))
    image, label = batch["image"], batch["label"]
    stages = {"train": image}
    if "pmkl" in name:
        stages = {"teach": image, "train": without(image, "t1", "t2")}
    for stage, seen in stages.items():
        until_learnt(get(f"{stage}#trainer"), network, seen, label)
    workflow.run()
    workflow.finalize()
    for stage, seen in stages.items():
        found = dice(network, seen, label)
        assert found.mean() >= LEARNT, (stage, found)
