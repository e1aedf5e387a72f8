"""The folder of a training: whether the training can start in it, which one owns it, and whether it is finished."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from common.engines.settings import check_run
from common.io import unlock_folder
from common.io.command import unwrapped_errors
from common.io.files import replacing

VARIANT = "variant.json"
"""File in a training's folder that says which configs and settings the folder belongs to."""


def prepare_training(files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Prepare a training on the CPU up to its first step, so that it fails here if it would fail at its start.

    Later ``files`` override earlier ones; ``settings`` are config keys to set, including ``output_dir``. Any error in a
    part of the config is raised as it is, without the errors that MONAI wraps around it.
    """
    try:
        with unwrapped_errors():
            check_run(files, settings)
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


def _leaves(settings: Any, outer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full key of each value in nested settings, with the value."""
    if not isinstance(settings, dict) or not settings:
        yield outer, settings
        return
    for key, value in settings.items():
        yield from _leaves(value, f"{outer}#{key}" if outer else key)


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first value that differs between nested settings, in words; None if all are the same."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    different = [key for key in [*new, *old] if old.get(key) != new.get(key)]
    return f"{different[0]} {old.get(different[0])!r}, now {new.get(different[0])!r}" if different else None


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a note that a folder belongs to this training; refuse the folder of another one."""
    note, text = folder / VARIANT, _anywhere(json.dumps(settings, indent=4, default=str))
    if not note.is_file() and (folder / "evaluation").is_dir():
        raise ValueError(f"{folder}: holds a training that was not started from here; choose another output_dir.")
    if note.is_file() and (found := first_difference(json.loads(_anywhere(note.read_text())), json.loads(text))):
        raise ValueError(
            f"{note}: the folder was used with {found}; choose another output_dir, or delete the folder to train again."
        )
    with replacing(note) as temporary:
        temporary.write_text(text)


def _anywhere(note: str) -> str:
    """Return a note's text with the paths of configs relative to the bundles, wherever the repository lies."""
    return re.sub(r'"/[^"\n]*/(\w+/configs/[^"\n]*": ")', r'"\1', note)
