"""Steps that connect configs of a bundle: an evaluation after a training, and a teacher before it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import run
from monai.engines import Trainer

from common.methods.pmkl import note_teacher


def run_bundle(bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """Run configs of a bundle on rank 0, e.g. ``inference.json`` with ``evaluate.json`` as an overlay.

    The configs are names of files in its folder ``configs``; later ones override earlier ones.
    """
    overrides = {key: "$None" if value is None else value for key, value in overrides.items()}  # MONAI leaves None out
    if idist.get_rank() == 0:
        files = [str(Path(bundle_root) / "configs" / name) for name in configs]
        run(config_file=files, bundle_root=bundle_root, **overrides)


def train_teacher(trainer: Trainer, given: str | None, weights: str, cohort: str) -> None:
    """Train a teacher unless the weights of one are given, and note beside its weights its cohort.

    The trainer's handlers write them to the path ``weights``.
    """
    if given is not None:
        return
    trainer.run()
    if idist.get_rank() == 0:
        note_teacher(weights, cohort)
