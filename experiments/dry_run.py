"""Dry runs: a list of methods made so small that all of it runs in minutes, on a stand-in for its cohort."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.cohorts.cohort import Cohort
from common.cohorts.phantom.stand_in import write_stand_in
from common.io.training import Entry

# The precision is float32: in bfloat16 on a CPU, PyTorch 2.13 computes wrong gradients for the weights of MONAI's 3x3x3
# convolutions (those of MAG-MS) if the image has two voxels along its first axis, as at the lowest levels of so small a
# crop.
ONCE = dict.fromkeys(
    ("epochs", "rounds", "pretrain_epochs", "teacher_epochs", "val_interval", "checkpoint_interval"), 1
)
SMALL = {
    "spacing": [12.0, 12.0, 12.0],
    "crop": [16, 16, 16],
    "grid": [20, 20, 16],
    "overlap": 0.25,
    "num_workers": 0,
    "precision": "float32",
}
LARGER: dict[str, dict[str, Any]] = {
    "mmFormer": {"crop": [32, 32, 32]},
    "M2FTrans": {"crop": [32, 32, 32]},
    "monai.networks.nets.SwinUNETR": {"crop": [64, 64, 64], "width": 12},
}
"""Backbone -> the smallest values that it supports, which replace those of `SMALL`."""
PLANES = {"spacing": [3.0, 3.0, -1.0], "crop": [32, 32]}
"""Values that replace those of `SMALL` for two-dimensional networks."""
DEMO = ("width", "embed_dim", "mlp_dim", "heads", "hidden", "patch_size", "style_discriminator")
"""Keys of a network's size or dependent on the crop; a dry run uses their values from the configs without recipes."""


def made_small(entries: Sequence[Entry], cohort: Cohort, folder: str | Path) -> list[Entry]:
    """Return the methods with one epoch each, small networks and crops, and a stand-in for the cohort to train on.

    The order of the trainings, their losses, the evaluation and the comparison remain those of the list. The stand-ins
    (`common.cohorts.phantom.stand_in`; not every cohort has one) are written to ``folder``.
    """
    return [_small(entry, cohort, folder) for entry in entries]


def on_stand_in(entry: Entry, cohort: Cohort, folder: str | Path) -> Entry:
    """Return the training on a stand-in for its cohort, which is written to ``folder``, with the sizes that it has."""
    config = entry.config()
    data = write_stand_in(cohort, Path(folder).resolve(), config["split"])
    settings = {"dataset_dir": str(data), "datalist": str(data / "datalist.json")}
    masks = data / f"{config.get('masks')}.csv"
    if masks.is_file():
        settings["masks"] = str(masks)
    return replace(entry, settings={**entry.settings, **settings})


def _small(entry: Entry, cohort: Cohort, folder: str | Path) -> Entry:
    entry = on_stand_in(entry, cohort, folder)
    config = entry.config()
    other = PLANES if len(config["crop"]) == 2 else LARGER.get(config.get("backbone"), {})
    settings: dict[str, Any] = {**ONCE, **SMALL, **_demo(entry), **other}
    settings = {key: value for key, value in settings.items() if key in config}
    settings["evaluation#overrides#mlflow"] = "none"
    return replace(entry, settings={**entry.settings, **settings})


def _demo(entry: Entry) -> dict[str, Any]:
    """Return the values that the configs without the recipes have for the keys in `DEMO`."""
    sizes: dict[str, Any] = {}
    for file in entry.files:
        if Path(file).parent.name != "recipes":
            read = json.loads(Path(file).read_text())
            sizes |= {key: read[key] for key in DEMO if key in read}
    return sizes
