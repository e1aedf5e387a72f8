"""Rows of a list that are only evaluated: trained models of nnU-Net."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.evaluation.metrics.conventions import Conventions
from mmb.experiments.training import Entry

KEYS: dict[str, Any] = {"split": None, "datalist": None, "part": "test", "calibrate_on": "validation"}
"""Settings beside those of ``conventions``, as of a bundle's evaluation, with their defaults."""


@dataclass(frozen=True)
class Evaluated(Entry):
    """A trained nnU-Net, whose folder stands in place of a bundle; nothing is trained."""

    @property
    def files(self) -> list[str]:
        """The folder of the model, which is what there is of configs."""
        return [self.bundle]

    def config(self) -> dict[str, Any]:
        """Return the settings of the evaluation, under the names that they have in a training's config."""
        own = {key: self.settings.get(key, value) for key, value in KEYS.items()}
        conventions = {key: self.settings.get(f"conventions#{key}", v) for key, v in asdict(Conventions()).items()}
        return {**own, "cohort": None, "conventions": conventions}

    def command(self, folder: Path, shared: Mapping[str, Any]) -> list[str]:
        """Return the command that evaluates it into a method's folder."""
        config = self.config()
        options = {"method": self.name, "cohort": shared["cohort"], **{key: config[key] for key in KEYS}}
        options |= {"dataset_dir": self.settings.get("dataset_dir", shared.get("dataset_dir"))}
        options["calibrate_on"] = options["calibrate_on"] or "none"
        words = [f"--{key}={value}" for key, value in options.items() if value is not None]
        words += ["--conventions", *(f"{key}={value}" for key, value in config["conventions"].items())]
        return [sys.executable, "-m", "mmb", "evaluate", self.bundle, str(folder / "evaluation"), *words]


def evaluated(name: str, folder: Path, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Evaluated:
    """Return a row for the model in a folder; of the settings for all methods, those for trainings do not matter."""
    known = [*KEYS, *(f"conventions#{key}" for key in asdict(Conventions()))]
    if unknown := [key for key in own if key not in known]:
        raise ValueError(f"{unknown[0]!r} has no effect on a trained nnU-Net; expected some of {', '.join(known)}.")
    if not any(folder.rglob("plans.json")):
        raise FileNotFoundError(f"{folder}: no trained nnU-Net (plans.json, fold_*).")
    settings = {key: value for key, value in {**shared, **own}.items() if key in known}
    return Evaluated(name, str(folder.resolve()), (), settings)
