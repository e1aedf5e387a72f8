"""The folder of a training: whether the training can start in it, which one owns it, and whether it is finished."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from common.io.errors import unwrapped_errors
from common.io.lock import unlock_folder
from mmb.experiments.training import Entry

VARIANT = "variant.json"
"""File in a training's folder that says which configs and settings the folder belongs to."""


def prepare_training(files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Prepare a training on the CPU up to its first step, so that it fails here if it would fail at its start.

    Later ``files`` override earlier ones; ``settings`` are config keys to set, including ``output_dir``. Any error in a
    part of the config is raised as it is, without the errors that MONAI wraps around it.
    """
    settings = deepcopy(dict(settings))  # MONAI writes into lists of it
    try:
        with unwrapped_errors():
            settings = {**settings, "device": "$torch.device('cpu')", "resume": False}
            workflow = ConfigWorkflow(config_file=list(files), workflow_type="train", logging_file=False, **settings)
            if workflow.parser["precision"] == "float16":  # needs the GPU of the training itself
                workflow.parser["precision"] = "float32"
            workflow.initialize()
            workflow.parser.get_parsed_content("train#trainer")
    finally:
        unlock_folder(settings["output_dir"])  # so that the training itself can lock it


def finished(folder: Path) -> bool:
    """Return whether a training's folder has its evaluation."""
    return (folder / "evaluation" / "evaluation.json").is_file()


def note_of(entry: Entry, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `VARIANT` says of a training: its config files, and its settings with those of all methods."""
    return {"configs": entry.files, "settings": {**entry.settings, **shared}}


def require_own_folder(folder: Path, entry: Entry, shared: Mapping[str, Any]) -> None:
    """Refuse a folder whose note is of other configs or settings; where configs and data lie does not matter."""
    note = folder / VARIANT
    if not note.is_file():
        return
    before, now = json.loads(note.read_text()), json.loads(json.dumps(note_of(entry, shared), default=str))
    old, new = (
        {"configs": [Path(file).name for file in each["configs"]], **each["settings"], "dataset_dir": None}
        for each in (before, now)
    )
    if changed := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
        key = changed[0]
        raise ValueError(
            f"{note}: the folder was used with {key} {old.get(key)!r}, now {new.get(key)!r}; give the list that it was "
            "trained with, choose another output_dir, or delete the folder to train again."
        )
