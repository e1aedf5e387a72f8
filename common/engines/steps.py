"""Steps that connect configs of a bundle: an evaluation after a training, a teacher before it, and its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.engines import Trainer

from common.engines.precision import uses_float16
from common.io import unlock_folder
from common.io.files import replacing
from common.io.settings import refuse_texts_for_numbers
from common.methods.pmkl import note_teacher

VARIANT = "variant.json"
"""File in a training's folder that says which configs and settings the folder belongs to."""


def run_bundle(bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Run configs of a bundle on rank 0, e.g. ``inference.json`` with ``evaluate.json`` as an overlay.

    Args:
        bundle_root: folder of the bundle.
        configs: names of files in its ``configs``; later ones override earlier ones.
        overrides: config keys to set, e.g. ``ckpt_path`` and ``output_dir``.
    """
    overrides = {key: "$None" if value is None else value for key, value in overrides.items()}  # MONAI leaves None out
    if idist.get_rank() == 0:
        files = [str(Path(bundle_root) / "configs" / name) for name in configs]
        run(config_file=files, bundle_root=bundle_root, **overrides)


def prepare_training(files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Prepare a training on the CPU up to its first step, so that it fails here if it would fail at its start.

    Args:
        files: config files; later ones override earlier ones.
        settings: config keys to set, including ``output_dir``.

    Raises:
        ValueError: if a setting is not a key of the files, or is text where they have a number.
        Exception: any error of the config's parts, without the errors that MONAI wraps around it.
    """
    read = {key.lstrip("+~"): value for file in files for key, value in ConfigParser.load_config_file(file).items()}
    known = {key.split("#")[0] for key in read}
    if unknown := [key for key in settings if key.split("#")[0] not in known]:
        raise ValueError(f"{unknown[0]!r} is not a key of {', '.join(files)}.")
    refuse_texts_for_numbers(read, settings)
    try:
        settings = {**settings, "device": "$torch.device('cpu')", "resume": False}
        workflow = ConfigWorkflow(config_file=list(files), workflow_type="train", logging_file=False, **settings)
        if uses_float16(workflow.parser["precision"]):  # needs the GPU of the training itself
            workflow.parser["precision"] = "float32"
        workflow.initialize()
        workflow.parser.get_parsed_content("train#trainer")
    except Exception as error:
        while error.__cause__ is not None:  # MONAI's errors name the failed expression, the first one the reason
            error = error.__cause__
        raise error from None
    finally:
        unlock_folder(settings["output_dir"])  # so that the training itself can lock it


def finished(folder: Path) -> bool:
    """Return whether a training's folder has its evaluation."""
    return (folder / "evaluation" / "evaluation.json").is_file()


def train_teacher(trainer: Trainer, given: str | None, weights: str, cohort: str) -> None:
    """Train a teacher unless one is given, and note beside its weights which cohort it was trained on.

    Args:
        trainer: trainer of the teacher; its handlers write the weights.
        given: path of an existing teacher's weights, or None.
        weights: path of the weights that the trainer writes.
        cohort: cohort that the teacher is trained on.
    """
    if given is not None:
        return
    trainer.run()
    if idist.get_rank() == 0:
        note_teacher(weights, cohort)


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
    """Write a note into a folder that says which variant it belongs to.

    Raises:
        ValueError: if it belongs to another variant, or a training without such a note is in it.
    """
    note, text = folder / VARIANT, json.dumps(settings, indent=4, default=str)
    if not note.is_file() and (folder / "evaluation").is_dir():
        raise ValueError(f"{folder}: holds a training that was not started from here; choose another output_dir.")
    if note.is_file() and (found := first_difference(json.loads(note.read_text()), json.loads(text))):
        raise ValueError(
            f"{note}: the folder was used with {found}; choose another output_dir, or delete the folder to train again."
        )
    with replacing(note) as temporary:
        temporary.write_text(text)
