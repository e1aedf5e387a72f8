"""Steps that connect configs of a bundle: an evaluation after a training, and a series of trainings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.engines import Trainer

from common.engines.precision import uses_float16
from common.evaluation.analysis.statistics import MEAN, compare_to_first
from common.evaluation.metrics.results import Evaluation, read_evaluation
from common.evaluation.report.layout import Table
from common.evaluation.report.tables import comparison_table, statistics_table
from common.io import given_options, unlock_folder
from common.io.files import replacing
from common.io.settings import refuse_texts_for_numbers
from common.methods.pmkl import note_teacher

logger = logging.getLogger(__name__)

ABLATION_METRICS = ("dice", "hd95")
OF_ABLATION = ("bundle_root", "configs", "shared", "variants", "reference", "output_dir")
"""Keys of an ablation's recipe itself, which are not passed to the trainings."""


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


def run_variants(
    bundle_root: str,
    configs: Sequence[str],
    shared: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    reference: str,
    output_dir: str,
) -> None:
    """Train and evaluate a bundle once per variant, and write ``ablation.md`` with mean Dice, HD95 and paired tests.

    A variant that has an ``evaluation/evaluation.json`` is not run again; an interrupted one is resumed. All variants
    are prepared before the first one is trained, so that a mistake is found at once. Options of the command line
    (``--epochs``, ``--backbone`` ...) apply to every variant.

    Args:
        bundle_root: folder of the bundle.
        configs: names of files in its ``configs``, e.g. ``train.json`` and a recipe.
        shared: config keys to set for all variants.
        variants: name -> config keys to set.
        reference: name of the variant that the others are tested against; it becomes the first row.
        output_dir: output folder, in which each variant gets a numbered subfolder.

    Raises:
        ValueError: if no variant has the reference's name, the command line sets a key that a variant sets, a variant
            cannot be trained with its keys, or a subfolder belongs to another variant.
    """
    if reference not in variants:
        raise ValueError(f"reference {reference!r}: expected the name of a variant, one of {', '.join(variants)}.")
    settings = {name: {**shared, **keys, **_given_to(variants)} for name, keys in variants.items()}
    folders = {name: Path(output_dir) / f"{number:02d}" for number, name in enumerate(variants)}
    files = [str(Path(bundle_root, "configs", name)) for name in configs]
    for name, folder in folders.items():
        if not finished(folder):
            with _naming(name):
                prepare_training(files, {**settings[name], "bundle_root": bundle_root, "output_dir": str(folder)})
        claim_folder(folder, {"variant": name, "configs": list(configs), **settings[name]})
    for number, (name, folder) in enumerate(folders.items(), start=1):
        if not finished(folder):
            logger.info(f"variant {number} of {len(variants)}: {name} {dict(variants[name])}")
            run_bundle(bundle_root, configs, {**settings[name], "output_dir": str(folder), "resume": True})
    order = [reference, *(name for name in variants if name != reference)]
    tables = ablation_tables([read_evaluation(folders[name] / "evaluation", name) for name in order])
    text = "\n\n".join(table.to_markdown() for table in tables)
    with replacing(Path(output_dir) / "ablation.md") as temporary:
        temporary.write_text(text)
    print(f"\n{text}", flush=True)


def ablation_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Return the tables of an ablation: mean Dice and HD95 over the subsets and, for several variants, paired tests.

    Args:
        evaluations: evaluations of the variants; the others are tested against the first one.
    """
    if len(evaluations) < 2:
        return [comparison_table(evaluations, metric) for metric in ABLATION_METRICS]
    tests = compare_to_first(evaluations)
    shown = tests[tests["metric"].isin(ABLATION_METRICS) & (tests["modalities"] == MEAN)]
    return [*(comparison_table(evaluations, metric, tests) for metric in ABLATION_METRICS), statistics_table(shown)]


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


def _given_to(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the config keys of the command line that are meant for the trainings, not for the ablation itself.

    Raises:
        ValueError: if a variant sets the same key, or the key would have no effect.
    """
    given = {key: value for key, value in given_options().items() if key.split("#")[0] not in OF_ABLATION}
    if "resume" in given:
        raise ValueError("--resume: an ablation always resumes interrupted trainings; leave the option out.")
    for key in given:
        for name, keys in variants.items():
            if any(f"{one}#".startswith(f"{other}#") for own in keys for one, other in ((key, own), (own, key))):
                raise ValueError(
                    f"--{key}: the variant {name!r} sets it; leave the option out, or give other --variants."
                )
    return given


def finished(folder: Path) -> bool:
    """Return whether a training's folder has its evaluation."""
    return (folder / "evaluation" / "evaluation.json").is_file()


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """Add the variant's name to an error."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"variant {variant!r}: {error}") from error


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


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a note into a folder that says which variant it belongs to.

    Raises:
        ValueError: if it belongs to another variant, or a training without such a note is in it.
    """
    note, text = folder / "variant.json", json.dumps(settings, indent=4, default=str)
    if not note.is_file() and (folder / "evaluation").is_dir():
        raise ValueError(f"{folder}: holds a training that was not started from here; choose another output_dir.")
    if note.is_file() and note.read_text() != text:
        before, now = (dict(_leaves(json.loads(said))) for said in (note.read_text(), text))
        key = next(key for key in [*now, *before] if before.get(key) != now.get(key))
        raise ValueError(
            f"{note}: the folder was used with {key} {before.get(key)!r}, now {now.get(key)!r}; choose another "
            "output_dir, or delete the folder to train again."
        )
    with replacing(note) as temporary:
        temporary.write_text(text)
