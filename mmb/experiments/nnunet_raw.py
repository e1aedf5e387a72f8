"""A cohort's cases as raw data of nnU-Net v2, to train it on the same split."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from common.cohorts.cohort import Cohort
from common.cohorts.nnunet import DESCRIPTION
from common.cohorts.registry import NNUNET_IGNORED, cohort_of
from common.cohorts.scan import Item
from common.io.atomic import written_whole
from common.io.images import label_map, read_volume
from common.modalities import IGNORED, display_name

Parts = Mapping[str, Sequence[Item]]
SPLITS = "splits_final.json"
"""File that nnU-Net reads its folds from, if it lies in its folder of preprocessed data."""


def write_raw(parts: Parts, cohort: Cohort, folder: str | os.PathLike) -> None:
    """Write the parts of a datalist as raw data of nnU-Net v2, with the regions and their order.

    Cases to train and validate on become ``imagesTr``, those to test on ``imagesTs`` and, where they have labels,
    ``labelsTs``; ``splits_final.json`` holds the division as nnU-Net's fold 0. Label values are consecutive, in the
    order in which regions are painted: 1 oedema, 2 necrosis, 3 enhancing tumour.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: not empty; give a folder that does not exist yet, e.g. Dataset137_BraTS.")
    for item in (item for part in parts.values() for item in part):
        if lacking := [name for name in cohort.modalities if name not in item["modalities"]]:
            raise ValueError(
                f"{item['case']}: lacks {', '.join(map(display_name, lacking))}; nnU-Net needs every channel of every "
                "case. Leave such cases out of the folder."
            )
    names = dict.fromkeys([*cohort.labels.painted(), *cohort.labels.values])
    numbers = {name: number for number, name in enumerate(names, start=1)}
    with written_whole(folder, last=DESCRIPTION) as draft:
        for part, items in parts.items():
            end = "Ts" if part == "test" else "Tr"
            for item in items:
                _write_images(item, cohort, draft / f"images{end}")
                if "label" in item:
                    _write_label(item, cohort, numbers, draft / f"labels{end}")
        (draft / DESCRIPTION).write_text(json.dumps(_content(parts, cohort, numbers), indent=4) + "\n")
        split = {"train": parts["training"], "val": parts["validation"]}
        fold = {part: [item["case"] for item in items] for part, items in split.items()}
        (draft / SPLITS).write_text(json.dumps([fold], indent=4) + "\n")


def _write_images(item: Item, cohort: Cohort, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    channels = item.get("channels", [None] * len(item["image"]))
    for name, path, channel in zip(item["modalities"], item["image"], channels, strict=True):
        target = folder / f"{item['case']}_{cohort.modalities.index(name):04d}.nii.gz"
        if channel is None and path.endswith(".nii.gz"):
            shutil.copyfile(path, target)
        else:
            volume = read_volume(path)
            voxels = volume if channel is None else volume[..., channel]
            nib.save(nib.Nifti1Image(voxels.numpy(), volume.affine.numpy()), target)


def _write_label(item: Item, cohort: Cohort, numbers: Mapping[str, int], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    volume, source = label_map(read_volume(item["label"]), item["label"]), cohort_of(item, cohort)
    label = source.labels.read(volume.as_tensor(), item["label"])
    label = label if source is cohort else cohort.labels.adopt(label, source.labels)
    written = torch.zeros_like(label)
    for name, number in numbers.items():
        written[label == cohort.labels.values[name]] = number
    written[label == IGNORED] = len(numbers) + 1
    image = nib.Nifti1Image(written.numpy().astype(np.uint8), volume.affine.numpy())
    nib.save(image, folder / f"{item['case']}.nii.gz")


def _content(parts: Parts, cohort: Cohort, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of ``dataset.json``: classes if no region has several of them, else regions."""
    labels, nested = cohort.labels, any(len(classes) > 1 for classes in cohort.labels.regions.values())
    regions = {name: [numbers[part] for part in classes] for name, classes in labels.regions.items()}
    return {
        "channel_names": {str(number): display_name(name) for number, name in enumerate(cohort.modalities)},
        "labels": {
            "background": 0,
            **(regions if nested else numbers),
            **({NNUNET_IGNORED: len(numbers) + 1} if labels.ignored else {}),
        },
        **({"regions_class_order": [numbers[name] for name in labels.painted()]} if nested else {}),
        "numTraining": len(parts["training"]) + len(parts["validation"]),
        "file_ending": ".nii.gz",
    }
