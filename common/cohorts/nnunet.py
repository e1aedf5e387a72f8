"""nnU-Net's ``dataset.json``, of version 2: what its channels and label values mean.

It describes a folder of raw data (``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``), of predictions, or of a
trained model. Sequences and classes are told by the words of `common.words`, never by their numbers: nnU-Net's own
conversion of BraTS has 1 for oedema and 2 for necrosis, BraTS itself the opposite.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from common.cohorts.cohort import Cohort
from common.cohorts.names import split_name
from common.cohorts.registry import NNUNET_IGNORED, cohort_of
from common.io.atomic import written_whole
from common.io.documents import read_json
from common.io.images import read_image, read_volume
from common.modalities import ALIASES, IGNORED, LabelSet, display_name, tumour_labels
from common.words import CLASS_NAMES, REGION_NAMES, plain

DESCRIPTION = "dataset.json"
IMAGES, LABELS, UNREAD = ("imagesTr", "imagesTs"), ("labelsTr",), ("labelsTs",)
"""Folders of raw data. Labels of test cases are not read, so that a split never trains on these cases."""
Item = dict[str, Any]
Parts = Mapping[str, Sequence[Item]]
SPLITS = "splits_final.json"
"""File that nnU-Net reads its folds from, if it lies in its folder of preprocessed data."""


class _File(BaseModel):
    model_config = ConfigDict(extra="allow")
    channel_names: Annotated[dict[str, str], Field(min_length=1)]
    labels: dict[str, int | list[int]]
    file_ending: str = ".nii.gz"


@dataclass(frozen=True)
class Description:
    """The content of a ``dataset.json``.

    Attributes:
        path: the file.
        channels: names of the channels, in order.
        labels: name of a class, or of a region if it has several values -> its values, 0 being the background.
        ending: how image files end.
    """

    path: Path
    channels: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]
    ending: str

    def modalities(self, known: Collection[str] = ()) -> tuple[str, ...]:
        """Return the modality of each channel; ``known`` are names beside the usual ones.

        Raises ValueError if a name does not tell it, or two tell the same.
        """
        roles = [name.lower() if name.lower() in known else split_name(name).role for name in self.channels]
        for name, role in zip(self.channels, roles, strict=True):
            if role not in {*ALIASES.values(), *known}:
                raise ValueError(
                    f"{self.path}: channel {name!r} is no known sequence. Give each channel in `channel_names` a name "
                    f"such as {', '.join(map(display_name, ('t1', 't1c', 't2', 'flair')))}."
                )
        if len(set(roles)) < len(roles):
            raise ValueError(f"{self.path}: channels {', '.join(self.channels)} name a sequence twice; name each once.")
        return tuple(roles)

    def values(self, labels: LabelSet | None = None) -> dict[str, int]:
        """Return class -> its value in label files; ``labels`` name classes and regions beside those of tumours.

        Where only nested regions are named, classes are what they do not share: oedema is the whole tumour without its
        core. Raises ValueError if a name is unknown, or values do not tell the classes.
        """
        known = labels.meanings if labels else {}
        own = {name: each for name, each in labels.regions.items() if name not in known} if labels else {}
        own = {name: each for name, each in own.items() if name not in REGION_NAMES}
        names = (*known, *own)
        named = {self._meaning(name, names): {*values} for name, values in self.labels.items() if {*values} - {0}}
        values = {name: each for name, each in named.items() if name not in {*REGION_NAMES, *own}}
        if "TC" in named and {"NCR", "NET", "CC"}.isdisjoint(values):
            values["NCR"] = named["TC"] - values.get("ET", set())
        if "WT" in named and "ED" not in values:
            values["ED"] = named["WT"].difference(named.get("TC", ()), *values.values())
        for name in [name for name in known if name not in values]:
            around = [named[region] for region, classes in own.items() if region in named and name in classes]
            beside = [named[region] for region, classes in own.items() if region in named and name not in classes]
            if around:
                values[name] = set.intersection(*around).difference(*beside, *values.values())
        if unclear := [name for name, each in values.items() if len(each) != 1]:
            raise ValueError(
                f"{self.path}: `labels` leave open which value is {unclear[0]}. Name every class with its value, e.g. "
                "oedema, necrosis and enhancing tumour, beside the regions."
            )
        numbers = {name: next(iter(each)) for name, each in values.items()}
        every = {value for each in self.labels.values() for value in each} - {0}
        classes = {name: number for name, number in numbers.items() if name in CLASS_NAMES}
        regions = own | (tumour_labels(**classes).regions if {"ED", "ET"} <= classes.keys() else {})
        wrong = [r for r in named.keys() & regions if named[r] != {numbers.get(part) for part in regions[r]}]
        if len({*numbers.values()}) < len(numbers) or every != {*numbers.values()} or wrong:
            raise ValueError(
                f"{self.path}: `labels` {json.dumps(self.labels)} do not give each value one class, and each region "
                "all values of its classes; name every class with its value."
            )
        return numbers

    def _meaning(self, name: str, known: Collection[str]) -> str:
        """Return the class or region that a name means; `NNUNET_IGNORED` for itself."""
        if name == NNUNET_IGNORED:
            return NNUNET_IGNORED
        text, own = plain(name), {each.lower(): each for each in known}
        words = {**REGION_NAMES, **CLASS_NAMES}
        meaning = own.get(name.lower()) or next((n for n, p in words.items() if re.fullmatch(p, text)), None)
        if meaning is None:
            raise ValueError(
                f"{self.path}: label {name!r} is no known class or region. Name it in `labels` as one of "
                f"{', '.join([*(known or CLASS_NAMES), *REGION_NAMES])}, or in words, such as oedema, necrosis, "
                "enhancing tumour, tumour core, whole tumour."
            )
        return meaning


def described(folder: str | os.PathLike) -> Description | None:
    """Return what a folder's ``dataset.json`` says, or that above imagesTr and the like; None without.

    The Medical Segmentation Decathlon has a file of the same name and another form. Raises ValueError if it is of
    version 1 of nnU-Net, which had yet another form, or damaged.
    """
    folder = Path(folder).parent if Path(folder).name in (*IMAGES, *LABELS, *UNREAD) else Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = {"channel_names": None}  # to be refused below
    if not isinstance(content, dict):
        return None
    if "channel_names" not in content:
        if "modality" in content and any(folder.glob("images*/*_0000.*")):
            raise ValueError(f"{path}: of nnU-Net v1; convert it by nnUNetv2_convert_old_nnUNet_dataset.")
        return None
    file = read_json(path, _File, "Expected that of nnU-Net v2.")
    numbers = sorted(file.channel_names, key=lambda number: int(number) if number.isdecimal() else -1)
    if numbers != [str(number) for number in range(len(numbers))]:
        raise ValueError(f"{path}: channel_names {', '.join(numbers)}; expected the numbers from 0.")
    labels = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in file.labels.items()}
    return Description(path, tuple(file.channel_names[n] for n in numbers), labels, file.file_ending)


def label_values(told: Description, cohort: Cohort) -> dict[str, int] | None:
    """Return class -> value of a data set's labels; None if these are the cohort's own values.

    Raises ValueError if a class has no counterpart in the cohort.
    """
    values = told.values(cohort.labels)
    labels = cohort_of({"label_values": values}, cohort).labels
    try:
        cohort.labels.require_counterparts(labels)
    except ValueError as error:
        raise ValueError(f"{told.path}: {error} Choose another cohort (key `cohort`).") from None
    return None if values.items() <= cohort.labels.meanings.items() else values


def write_raw(parts: Parts, cohort: Cohort, folder: str | os.PathLike) -> None:
    """Write the parts of a datalist as raw data of nnU-Net v2, with the regions and their order.

    Cases to train and validate on become ``imagesTr``, those to test on ``imagesTs`` and, where they have labels,
    ``labelsTs``; ``splits_final.json`` holds the division as nnU-Net's fold 0. Label values are consecutive, in the
    order in which regions are painted: 1 oedema, 2 necrosis, 3 enhancing tumour. Raises ValueError if a case lacks a
    modality, which nnU-Net cannot do without; FileExistsError if the folder is not empty.
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
            nib.save(read_image(path, channel)[0], target)


def _write_label(item: Item, cohort: Cohort, numbers: Mapping[str, int], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    volume, source = read_volume(item["label"]), cohort_of(item, cohort)
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
