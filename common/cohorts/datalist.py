"""Datalists: JSON files, readable by MONAI too, that say which cases are for training, validation and test."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from common.cohorts.registry import cohort_of, get_cohort
from common.cohorts.scan import Item
from common.cohorts.splits import PARTS, Parts
from common.io.documents import read_json
from common.io.files import replacing
from common.modalities import canonical

CASE = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}")
"""Pattern of case names, which become names of files and folders."""


def _case(name: str) -> str:
    if not CASE.fullmatch(name):
        raise ValueError(
            f"{name!r}; expected a valid folder name: text of up to 200 characters, without slashes or control "
            "characters, that does not begin with a dot"
        )
    return name


def _modality(name: str, info: ValidationInfo) -> str:
    """Return the canonical name; the context are the cohort's modalities."""
    return canonical(name, info.context or ())


class _Case(BaseModel):
    """An item of a datalist; keys of the user's own begin with an underscore."""

    model_config = ConfigDict(extra="allow")

    case: Annotated[str, AfterValidator(_case)]
    image: list[str]
    modalities: list[Annotated[str, AfterValidator(_modality)]]
    label: str = ""
    channels: list[int] = []
    patient: str = ""
    source: str = ""
    label_values: dict[str, int] = {}
    weight: float = 1.0

    @model_validator(mode="after")
    def _refuse_unread_keys(self) -> Self:
        if unread := [key for key in self.model_extra or () if not key.startswith("_")]:
            raise ValueError(
                f"key {unread[0]!r} is not read; expected {', '.join(type(self).model_fields)}, or a key of your own "
                "that begins with an underscore. Folds of Auto3DSeg are splits here: one datalist each"
            )
        return self

    @model_validator(mode="after")
    def _require_one_file_per_modality(self) -> Self:
        given = [getattr(self, key) for key in ("modalities", "channels") if key in self.model_fields_set]
        if not self.image or any(len(values) != len(self.image) for values in given):
            raise ValueError(
                f"{len(self.image)} images for modalities {self.modalities}; expected at least one image, and one for "
                "each modality; likewise channels, if they are given"
            )
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"lists a modality twice: {self.modalities}; list each once, and leave absent ones out")
        return self


class _Datalist(BaseModel):
    """A datalist. ``testing`` is MONAI's other word for ``test``; further lists of cases would be read by nobody."""

    model_config = ConfigDict(extra="allow", validate_by_name=True)
    cohort: str | None = None
    labels: Any = None
    training: list[_Case] = []
    validation: list[_Case] = []
    test: list[_Case] = Field(default=[], validation_alias=AliasChoices("test", "testing"))

    @model_validator(mode="after")
    def _refuse_unread_parts(self) -> Self:
        for key, value in (self.model_extra or {}).items():
            is_part = isinstance(value, list) and any(isinstance(item, dict) for item in value)
            if key == "testing" or (is_part and key[0] != "_"):
                raise ValueError(f"part {key!r} is not read; expected {', '.join(PARTS)}, each once")
        return self


def write_datalist(datalist: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a datalist as JSON atomically: the file appears complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(datalist, indent=2) + "\n")


def load_datalist(path: str | os.PathLike, dataset_dir: str | os.PathLike, cohort: str | None = None) -> Parts:
    """Return the parts of a datalist file with absolute paths.

    MONAI's ``load_decathlon_datalist`` can read the file, too, but turns any text that names an existing folder, such
    as a ``case``, into a path, and refuses an empty test list; so it is not used here.

    The paths in it are relative to ``dataset_dir``. If it names a cohort, this has to be ``cohort``; None accepts any.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such datalist. Make it with `mmb datalist`.")
    remedy, definition = "Make the datalist with `mmb datalist`.", get_cohort(cohort) if cohort else None
    datalist = read_json(path, _Datalist, remedy, definition.modalities if definition else ())
    if definition and datalist.cohort not in (None, definition.name):
        raise ValueError(
            f"{path}: a datalist of cohort {datalist.cohort}, but {definition.name} was requested. Its label "
            "values may have other meanings. Choose the cohort (key `cohort`) that the files belong to."
        )
    values = isinstance(datalist.labels, dict) and all(isinstance(value, int) for value in datalist.labels.values())
    if definition and values and datalist.labels != dict(definition.labels.values):
        raise ValueError(
            f"{path}: labels {datalist.labels}, but {definition.name} has {dict(definition.labels.values)}. Choose the "
            "cohort (key `cohort`) that the label maps belong to, or leave `labels` out."
        )
    parts = {part: [item.model_dump(exclude_unset=True) for item in getattr(datalist, part)] for part in PARTS}
    count = Counter(item["case"] for items in parts.values() for item in items)
    if twice := [case for case in count if count[case] > 1]:
        raise ValueError(f"{path}: case {twice[0]} is listed more than once; list each case once.")
    base = os.path.abspath(dataset_dir)
    parts = with_paths(parts, lambda p: os.path.normpath(os.path.join(base, p)))
    for item in [item for items in parts.values() for item in items]:
        if item.get("label_values") and (name := cohort or datalist.cohort):
            definition = get_cohort(name)
            try:
                definition.labels.require_counterparts(cohort_of(item, definition).labels)
            except ValueError as error:
                raise ValueError(f"{path}: label_values of case {item['case']}: {error}") from None
        for file in [*item["image"], *([item["label"]] if "label" in item else [])]:
            if not os.path.isfile(file):
                raise FileNotFoundError(
                    f"{path}: case {item['case']} lists {file}, but there is no such file. Leave absent modalities out "
                    f"of the list, or pass the dataset_dir to which the paths are relative (now {base})."
                )
    return parts


def with_paths(parts: Parts, change: Callable[[str], str]) -> Parts:
    """Return the parts with ``change`` applied to every path."""

    def changed(item: Item) -> Item:
        label = {"label": change(item["label"])} if "label" in item else {}
        return {**item, "image": [change(path) for path in item["image"]], **label}

    return {part: [changed(item) for item in items] for part, items in parts.items()}
