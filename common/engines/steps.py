"""Steps that join the configs of a bundle: an evaluation after a training, a series of trainings."""

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
"""Keys of an ablation's recipe, which are not the trainings'."""


def run_bundle(bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Run a bundle's own configs, e.g. ``inference.json`` with ``evaluate.json`` over it, on rank 0.

    Args:
        bundle_root: folder of the bundle.
        configs: file names below its ``configs``, later ones over earlier ones.
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
    """Train and evaluate a bundle once per variant, and write ``ablation.md``: mean Dice and HD95, and paired tests.

    A variant whose ``evaluation/evaluation.json`` is there is not run again; one that was cut off is resumed. All of
    them are prepared before the first one is trained, so that a mistake costs no training. What the command line sets
    (``--epochs``, ``--backbone`` ...), it sets for every variant.

    Args:
        bundle_root: folder of the bundle.
        configs: file names below its ``configs``, e.g. ``train.json`` and a recipe.
        shared: config keys to set for all variants.
        variants: name -> config keys to set.
        reference: name of the variant that the others are tested against; it becomes the first row.
        output_dir: each variant gets a numbered folder in it.

    Raises:
        ValueError: there is no variant of the reference's name; the command line sets what variants set; a variant
            cannot be trained with its keys; a folder holds another variant than the one that it would now be used for.
    """
    if reference not in variants:
        raise ValueError(f"reference {reference!r}: expected the name of a variant, one of {', '.join(variants)}.")
    settings = {name: {**shared, **keys, **_given_to(variants)} for name, keys in variants.items()}
    folders = {name: Path(output_dir) / f"{number:02d}" for number, name in enumerate(variants)}
    files = [str(Path(bundle_root, "configs", name)) for name in configs]
    for name, folder in folders.items():
        if not _finished(folder):
            with _naming(name):
                prepare_training(files, {**settings[name], "bundle_root": bundle_root, "output_dir": str(folder)})
        claim_folder(folder, {"variant": name, "configs": list(configs), **settings[name]})
    for number, (name, folder) in enumerate(folders.items(), start=1):
        if not _finished(folder):
            logger.info(f"variant {number} of {len(variants)}: {name} {dict(variants[name])}")
            run_bundle(bundle_root, configs, {**settings[name], "output_dir": str(folder), "resume": True})
    order = [reference, *(name for name in variants if name != reference)]
    tables = ablation_tables([read_evaluation(folders[name] / "evaluation", name) for name in order])
    text = "\n\n".join(table.to_markdown() for table in tables)
    with replacing(Path(output_dir) / "ablation.md") as temporary:
        temporary.write_text(text)
    print(f"\n{text}", flush=True)


def ablation_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Return the tables of an ablation: mean Dice and HD95 over the subsets and, of two or more variants, their tests.

    Args:
        evaluations: of the variants, the first one being what the others are tested against.
    """
    if len(evaluations) < 2:
        return [comparison_table(evaluations, metric) for metric in ABLATION_METRICS]
    tests = compare_to_first(evaluations)
    shown = tests[tests["metric"].isin(ABLATION_METRICS) & (tests["modalities"] == MEAN)]
    return [*(comparison_table(evaluations, metric, tests) for metric in ABLATION_METRICS), statistics_table(shown)]


def prepare_training(files: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Prepare a training up to its first step, on the CPU, and refuse it as its own start would.

    Args:
        files: config files, later ones over earlier ones.
        settings: config keys to set, with the ``output_dir``.

    Raises:
        ValueError: a setting is no key of the files, or a text where these have a number.
        Exception: what the config's parts raise, without what MONAI puts around it.
    """
    read = {key.lstrip("+~"): value for file in files for key, value in ConfigParser.load_config_file(file).items()}
    known = {key.split("#")[0] for key in read}
    if unknown := [key for key in settings if key.split("#")[0] not in known]:
        raise ValueError(f"{unknown[0]!r} is no key of {', '.join(files)}.")
    refuse_texts_for_numbers(read, settings)
    try:
        settings = {**settings, "device": "$torch.device('cpu')", "resume": False}
        workflow = ConfigWorkflow(config_file=list(files), workflow_type="train", logging_file=False, **settings)
        if uses_float16(workflow.parser["precision"]):  # which is for the GPU that it will be trained on
            workflow.parser["precision"] = "float32"
        workflow.initialize()
        workflow.parser.get_parsed_content("train#trainer")
    except Exception as error:
        while error.__cause__ is not None:  # MONAI's own say which expression failed, the first one says why
            error = error.__cause__
        raise error from None
    finally:
        unlock_folder(settings["output_dir"])  # for the training itself


def _given_to(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the config keys of the command line that are meant for the trainings, not for the ablation itself.

    Raises:
        ValueError: a variant sets the same one, or it would not act.
    """
    given = {key: value for key, value in given_options().items() if key.split("#")[0] not in OF_ABLATION}
    if "resume" in given:
        raise ValueError("--resume: an ablation resumes what was cut off by itself; leave the option out.")
    for key in given:
        for name, keys in variants.items():
            if any(f"{one}#".startswith(f"{other}#") for own in keys for one, other in ((key, own), (own, key))):
                raise ValueError(
                    f"--{key}: the variant {name!r} sets it; leave the option out, or give other --variants."
                )
    return given


def _finished(folder: Path) -> bool:
    return (folder / "evaluation" / "evaluation.json").is_file()


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """Say of what is wrong with a variant which one it is."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"variant {variant!r}: {error}") from error


def train_teacher(trainer: Trainer, given: str | None, weights: str, cohort: str) -> None:
    """Train a teacher, unless one is given, and note beside its weights which cohort it is of.

    Args:
        trainer: of the teacher; its handlers write the weights.
        given: weights of a teacher that there is already, or None.
        weights: where the trained one's are.
        cohort: what it is trained on.
    """
    if given is not None:
        return
    trainer.run()
    if idist.get_rank() == 0:
        note_teacher(weights, cohort)


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Note in a folder what it holds.

    Raises:
        ValueError: it holds something else.
    """
    note, text = folder / "variant.json", json.dumps(settings, indent=4, default=str)
    if note.is_file() and note.read_text() != text:
        raise ValueError(f"{note}: the folder holds another variant than {settings}; choose another output_dir.")
    with replacing(note) as temporary:
        temporary.write_text(text)
