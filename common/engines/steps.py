"""Steps that join the configs of a bundle: an evaluation after a training, a series of trainings."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import run
from monai.engines import Trainer

from common.evaluation.metrics.results import read_evaluation
from common.evaluation.report.tables import comparison_table
from common.io.files import replacing
from common.methods.pmkl import note_teacher

logger = logging.getLogger(__name__)


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
    output_dir: str,
) -> None:
    """Train and evaluate a bundle once per variant, and write ``ablation.md`` with their mean Dice.

    A variant whose ``evaluation/evaluation.json`` is there is not run again; one that was cut off is resumed.

    Args:
        bundle_root: folder of the bundle.
        configs: file names below its ``configs``, e.g. ``train.json`` and a recipe.
        shared: config keys to set for all variants.
        variants: name -> config keys to set.
        output_dir: each variant gets a numbered folder in it.

    Raises:
        ValueError: a folder holds another variant than the one that it would now be used for.
    """
    results = []
    for number, (name, overrides) in enumerate(variants.items()):
        folder = Path(output_dir) / f"{number:02d}"
        claim_folder(folder, {"variant": name, "configs": list(configs), **shared, **overrides})
        finished = folder / "evaluation" / "evaluation.json"
        if not finished.is_file():
            logger.info(f"variant {number + 1} of {len(variants)}: {name} {dict(overrides)}")
            run_bundle(bundle_root, configs, {**shared, **overrides, "output_dir": str(folder), "resume": True})
        results.append(read_evaluation(finished.parent, name))
    table = comparison_table(results, "dice").to_markdown()
    with replacing(Path(output_dir) / "ablation.md") as temporary:
        temporary.write_text(table)
    print(f"\n{table}", flush=True)


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
