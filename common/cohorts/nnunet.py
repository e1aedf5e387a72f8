"""nnU-Net's ``dataset.json``, of version 2: what its channels and label values mean.

It describes a folder of raw data (``imagesTr/case_0000.nii.gz``, ``labelsTr/case.nii.gz``), of predictions, or of a
trained model. Sequences and classes are told by their names, never by their numbers: nnU-Net's own
conversion of BraTS has 1 for oedema and 2 for necrosis, BraTS itself the opposite.
"""

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from common.cohorts.cohort import Cohort
from common.cohorts.registry import NNUNET_IGNORED, cohort_of
from common.io.documents import read_json
from common.modalities import ALIASES, LabelSet, display_name, tumour_labels

DESCRIPTION = "dataset.json"
IMAGES, LABELS, UNREAD = ("imagesTr", "imagesTs"), ("labelsTr",), ("labelsTs",)
"""Folders of raw data. Labels of test cases are not read, so that a split never trains on these cases."""
CLASS_NAMES = {
    "ED": r"ed|(peri ?tumou?r\w* )?o?edema|snfh|surrounding non ?enhanc\w* flair hyperintens\w*",
    "NCR": r"ncr( (and )?net)?|net ncr|netc|non ?enhanc\w* tumou?r core|"
           r"necro\w+( (tumou?r\w*|core|and|non|enhanc\w*))*",
    "NET": r"net|non ?enhanc\w*( tumou?r)?",
    "CC": r"cc|cyst\w*( component)?",
    "ET": r"et|(gd )?enhanc\w*( tumou?r)?",
    "RC": r"rc|resection cavity|cavity",
}  # fmt: skip
"""Class of a tumour -> its names in nnU-Net's ``dataset.json``, as words in lower case."""
REGION_NAMES = {"WT": r"wt|whole( tumou?r)?", "TC": r"tc|(tumou?r )?core"}
"""Region of several classes -> its names, likewise."""


class Described(BaseModel):
    """A ``dataset.json`` of nnU-Net, as far as it is used here."""

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
        """Return the modality of each channel; ``known`` are names beside the usual ones."""
        roles = [
            name.lower() if name.lower() in known else ALIASES.get(re.sub("[^a-z0-9]", "", name.lower()), "")
            for name in self.channels
        ]
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
        core.
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
        regions = {**own, **(tumour_labels(**classes).regions if {"ED", "ET"} <= classes.keys() else {})}
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
        text, own = re.sub(r"[\W_]+", " ", name.lower()).strip(), {each.lower(): each for each in known}
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

    The Medical Segmentation Decathlon has a file of the same name and another form.
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
    return description(read_json(path, Described, "Expected that of nnU-Net v2."), path)


def description(file: Described, path: Path) -> Description:
    """Return what a ``dataset.json`` says; ``path`` is it, or the file with a copy of it. ValueError if it is wrong."""
    numbers = sorted(file.channel_names, key=lambda number: int(number) if number.isdecimal() else -1)
    if numbers != [str(number) for number in range(len(numbers))]:
        raise ValueError(f"{path}: channel_names {', '.join(numbers)}; expected the numbers from 0.")
    labels = {name: (value,) if isinstance(value, int) else tuple(value) for name, value in file.labels.items()}
    return Description(path, tuple(file.channel_names[n] for n in numbers), labels, file.file_ending)


def label_values(told: Description, cohort: Cohort) -> dict[str, int] | None:
    """Return class -> value of a data set's labels; None if these are the cohort's own values."""
    values = told.values(cohort.labels)
    labels = cohort_of({"label_values": values}, cohort).labels
    try:
        cohort.labels.require_counterparts(labels)
    except ValueError as error:
        raise ValueError(f"{told.path}: {error} Choose another cohort (key `cohort`).") from None
    return None if values.items() <= cohort.labels.meanings.items() else values
