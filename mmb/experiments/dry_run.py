"""Dry runs: a list of methods made so small that all of it runs in minutes, on phantoms in place of its cohort.

The phantoms have the cohort's modalities and label values, so that every config of the list runs as it is. The images
of a glioma cohort are those of its sequences; another cohort's first modalities and classes are drawn as these are. The
numbers that come out mean nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.cohorts import COHORTS
from common.cohorts.cohort import Cohort
from common.cohorts.datalist import write_datalist
from common.cohorts.phantom.simulation import LABELS, simulate
from common.modalities import GLIOMA
from mmb.experiments.training import Entry

ONCE = dict.fromkeys(
    ("epochs", "rounds", "pretrain_epochs", "teacher_epochs", "val_interval", "checkpoint_interval"), 1
)
SMALL = {
    "spacing": [12.0, 12.0, 12.0],
    "crop": [16, 16, 16],
    "grid": [20, 20, 16],
    "overlap": 0.25,
    "num_workers": 0,
}
LARGER: dict[str, dict[str, Any]] = {
    "mmFormer": {"crop": [32, 32, 32]},
    "M2FTrans": {"crop": [32, 32, 32]},
    "monai.networks.nets.SwinUNETR": {"crop": [64, 64, 64], "width": 12},
}
"""Backbone -> the smallest values that it supports, which replace those of `SMALL`."""
PLANES = {"spacing": [6.0, 6.0, -1.0], "crop": [32, 32]}
"""Values that replace those of `SMALL` for two-dimensional networks."""
DEMO = ("width", "embed_dim", "mlp_dim", "heads", "hidden", "patch_size", "style_discriminator", "init_from", "fit")
"""Keys of a network's size, dependent on the crop, or of weights to start from, which have another size, and the stages
that these replace; a dry run uses their values from the configs without recipes."""
SHAPE, SPACING = (40, 40, 26), 6.0  # size of a phantom in voxels, and its voxel size in mm
CASES = (4, 1, 2)
"""Number of cases to train, validate and test on; a fold trains on all that it neither validates nor tests on."""
MISSING_RATE = 0.4
"""Rate at which every modality is missing in place of published masks, which name a cohort's cases."""


def made_small(entries: Sequence[Entry], cohort: Cohort, folder: str | Path) -> list[Entry]:
    """Return the trainings with one epoch each, small networks and crops, on phantoms in ``folder``.

    The order of the trainings, their losses, the evaluation and the comparison remain those of the list.
    """
    return [_small(entry) for entry in on_phantoms(entries, cohort, folder)]


def on_phantoms(entries: Sequence[Entry], cohort: Cohort, folder: str | Path) -> list[Entry]:
    """Return the trainings on phantoms of the cohort, which are written to ``folder``, with the sizes that they have.

    If the trainings have several splits, these become the folds of a cross-validation.
    """
    configs = [entry.config() for entry in entries]
    splits = list(dict.fromkeys(config["split"] for config in configs))
    data = Path(folder).resolve() / cohort.name
    if not (data / f"{len(splits) - 1}.json").is_file():  # the last file to be written
        _write(data, cohort, folds=len(splits))
    made = []
    for entry, config in zip(entries, configs, strict=True):
        datalist = data / f"{splits.index(config['split'])}.json"
        settings: dict[str, Any] = {"dataset_dir": str(data), "datalist": str(datalist)}
        if config.get("masks") is not None:
            settings |= {"masks": None, "missing_rates": [MISSING_RATE] * len(cohort.modalities)}
        made.append(replace(entry, settings={**entry.settings, **settings}))
    return made


def _write(folder: Path, cohort: Cohort, folds: int) -> None:
    """Write phantoms of a cohort, and a datalist for each fold, which tests on other cases than the others do."""
    training, validation, test = CASES
    folder.mkdir(parents=True, exist_ok=True)
    first = 100 * [*COHORTS, cohort.name].index(cohort.name)  # no two cohorts share an image
    numbers = range(first, first + (training + validation + test if folds == 1 else folds * test))
    items = [_write_case(folder, cohort, number) for number in numbers]
    for fold in range(folds):
        tested = items[fold * test : (fold + 1) * test]
        others = [item for item in items if item not in tested]
        parts = {"training": others[validation:], "validation": others[:validation], "test": tested}
        note = "phantoms for a dry run: numbers computed from them mean nothing"
        write_datalist({"description": note, "cohort": cohort.name, **parts}, folder / f"{fold}.json")


def _write_case(folder: Path, cohort: Cohort, number: int) -> dict[str, Any]:
    """Write a phantom with the cohort's modalities and label values; return its item of the datalist."""
    images, drawn = simulate(number, SHAPE, SPACING)
    values, case = cohort.labels.meanings, f"phantom_{number}"
    names = LABELS if set(LABELS) <= set(values) else list(values)[: len(LABELS)]
    label = np.zeros(SHAPE, np.int16)
    for own, name in zip(LABELS.values(), names, strict=False):  # a cohort may have fewer classes
        label[drawn == own] = values[name]
    shown = cohort.modalities if set(cohort.modalities) <= set(GLIOMA) else GLIOMA
    volumes = {name: images[image] for name, image in zip(cohort.modalities, shown, strict=False)}
    for name, voxels in (volumes | {"seg": label}).items():
        image = nib.Nifti1Image(voxels, np.diag([-SPACING, -SPACING, SPACING, 1]))
        nib.save(image, folder / f"{case}_{name}.nii.gz")
    paths = [f"{case}_{name}.nii.gz" for name in volumes]
    return {"case": case, "image": paths, "modalities": list(volumes), "label": f"{case}_seg.nii.gz"}


def _small(entry: Entry) -> Entry:
    config = entry.config()
    other = PLANES if len(config["crop"]) == 2 else LARGER.get(config.get("backbone") or "", {})
    settings: dict[str, Any] = {**ONCE, **SMALL, **_demo(entry), **other}
    settings = {key: value for key, value in settings.items() if key in config}
    return replace(entry, settings={**entry.settings, **settings})


def _demo(entry: Entry) -> dict[str, Any]:
    """Return the values that the configs without the recipes have for the keys in `DEMO`."""
    sizes: dict[str, Any] = {}
    for file in entry.files:
        if Path(file).parent.name != "recipes":
            read = json.loads(Path(file).read_text())
            sizes |= {key: read[key] for key in DEMO if key in read}
    return sizes
