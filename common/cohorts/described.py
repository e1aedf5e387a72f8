"""A data set of one's own as a cohort: a JSON file says how its sequences, labels and files are called."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from common.cohorts.cohort import Cohort
from common.cohorts.names import LABEL
from common.io.documents import Document, parse_json
from common.modalities import ALIASES, IGNORED, LabelSet

LARGEST = 32767
"""Largest label value: files may hold 16 bits."""
REMEDY = 'See "Other organs, other sequences" in docs/own_data.md.'


def _sequence(name: str) -> str:
    if ALIASES.get(name, name) != name:
        raise ValueError(f"{name!r} is called {ALIASES[name]} here; files may have either name")
    if not re.fullmatch("[a-z][a-z0-9]*", name):
        raise ValueError(f"{name!r}; expected small letters and digits, such as adc or dwi800")
    if LABEL.fullmatch(name) or name == "channels":
        raise ValueError(f"{name!r} is what label files are called, or files of all sequences; choose another name")
    return name


Name = Annotated[str, Field(pattern=r"^\w[\w .-]*$")]
"""Name of a class or region: tables, figures and MLflow's metrics bear it."""


class OwnData(Document):
    """The JSON file of a data set; `docs/own_data.md` explains its keys.

    ``case_names``, ``image_files``, ``label_files`` and ``channels`` are those of `Cohort`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
    sequences: Annotated[list[Annotated[str, AfterValidator(_sequence)]], Field(min_length=1)]
    labels: Annotated[dict[Name, Annotated[int, Field(ge=1, le=LARGEST)]], Field(min_length=1)]
    regions: dict[Name, list[str]] = Field(default={})
    skull_stripped: bool = False
    case_names: str = "[^/]+?"
    image_files: str = "{case}[_-]{modality}"
    label_files: list[str] = Field(default=["{case}[_-](seg|label)"])
    channels: list[str] = Field(default=[])

    @model_validator(mode="after")
    def _require_sense(self) -> Self:
        for key, names in (("sequences", self.sequences), ("labels", [*self.labels.values()])):
            if len({*names}) < len(names):
                raise ValueError(f"{key} {names}; expected each once")
        if IGNORED in self.labels.values():
            raise ValueError(f"labels: {IGNORED} stands for voxels that do not count; expected another value")
        if self.channels and sorted(self.channels) != sorted(self.sequences):
            raise ValueError(f"channels {self.channels}; expected {', '.join(self.sequences)}, as the file has them")
        if not self.channels and "{modality}" not in self.image_files:
            raise ValueError(f"image_files {self.image_files!r}; expected {{modality}} in it, or the key channels")
        for region, classes in self.regions.items():
            if not classes or not {*classes} <= {*self.labels}:
                raise ValueError(f"regions.{region} {classes}; expected some of {', '.join(self.labels)}")
        try:
            _ = self.cohort.file_patterns
        except re.error as error:
            raise ValueError(f"names of files: {error} in a regular expression") from None
        return self

    @property
    def cohort(self) -> Cohort:
        """The cohort; its regions are sorted by their number of classes, so that none is painted over by a larger."""
        regions = self.regions or {name: [name] for name in self.labels}
        ordered = sorted(regions.items(), key=lambda region: -len({*region[1]}))
        return Cohort(
            name=self.name,
            modalities=tuple(self.sequences),
            labels=LabelSet(self.labels, {name: tuple(classes) for name, classes in ordered}),
            skull_stripped=self.skull_stripped,
            case_names=self.case_names,
            image_files=self.image_files,
            label_files=tuple(self.label_files),
            channels=tuple(self.channels),
        )


def is_description(cohort: str) -> bool:
    """Return whether the key ``cohort`` is no name, but a JSON file, or the text of one."""
    return str(cohort).startswith("{") or str(cohort).lower().endswith(".json")


def own_cohort(cohort: str) -> Cohort:
    """Return the cohort that a JSON file, or the text of one, describes; raises ValueError if it cannot be used."""
    text = _text(cohort)
    return parse_json(text, OwnData, "the data set's description" if text == cohort else cohort, REMEDY).cohort


def recorded(cohort: str) -> str:
    """Return the key ``cohort`` as it is recorded in weights, which go where a JSON file does not: the file's text."""
    return json.dumps(json.loads(_text(cohort))) if is_description(cohort) else cohort


def _text(cohort: str) -> str | bytes:
    if cohort.startswith("{"):
        return cohort
    if not os.path.isfile(cohort):
        raise FileNotFoundError(f"{cohort}: no such file; expected one that describes a data set. {REMEDY}")
    return Path(cohort).read_bytes()
