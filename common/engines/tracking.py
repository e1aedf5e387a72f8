"""MLflow beyond what ``monai.bundle run --tracking mlflow`` attaches by itself.

MONAI adds its MLFlowHandler to ``train#trainer``, ``validate#evaluator`` and ``evaluator``. Without tracking these
functions do nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pandas as pd
from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler


def track(handlers: Sequence, trainer: Trainer, tag_name: str) -> None:
    """Log a trainer, with the config's top-level scalars as parameters, into the run of the MLFlowHandler in
    ``handlers``.

    Args:
        handlers: the handlers that MONAI's tracking was added to (``train#handlers``).
        trainer: the one that they belong to, or another one that shall share its run, e.g. the pretraining's.
        tag_name: name of its iteration loss.
    """
    for handler in _mlflow(handlers):
        # the trainers do not decollate, and MONAI's own transform makes a tuple of a dict's loss
        handler.output_transform = _iteration_loss
        handler.experiment_param = _scalars(handler)
        if trainer.has_event_handler(handler.start, Events.STARTED):
            handler.tag_name = tag_name
            if trainer.has_event_handler(handler.close, Events.COMPLETED):  # results are still to come
                trainer.remove_event_handler(handler.close, Events.COMPLETED)
            continue
        twin = copy(handler)
        twin.tag_name, twin.default_tracking_params, twin.close_on_complete = tag_name, [], False
        twin.attach(trainer)
        trainer.add_event_handler(Events.COMPLETED, _share_run, twin, handler)


def log_results(handlers: Sequence, engine: Engine, folder: str) -> None:
    """Log ``results.csv`` of an evaluation as metrics ``<metric>/<subset>/<region>``; its tables and figures as
    artifacts.

    Args:
        handlers: the handlers that MONAI's tracking was added to.
        engine: the one that they belong to; a run is opened if it has not run.
        folder: where `SubsetResults` wrote.
    """
    for handler in _mlflow(handlers):
        if handler.cur_run is None:
            handler.start(engine)
        run = handler.cur_run.info.run_id
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in (".csv", ".md", ".png"):
                handler.client.log_artifact(run, str(path))
        results = pd.read_csv(Path(folder) / "results.csv")
        for keys, value in results.groupby(["metric", "modalities", "region"])["value"].mean().items():
            handler.client.log_metric(run, "/".join(keys).replace("+", "_"), value)


def log_file(handlers: Sequence, path: str) -> None:
    """Log a file, e.g. the picture of x_sub, as an artifact of the run that is open."""
    for handler in _mlflow(handlers):
        handler.client.log_artifact(handler.cur_run.info.run_id, path)


def close_tracking(handlers: Sequence) -> None:
    """Mark a run that is still open as finished, so that the next one is its own."""
    for handler in _mlflow(handlers):
        if handler.cur_run is not None:
            handler.close()


def _mlflow(handlers: Sequence) -> list[MLFlowHandler]:
    return [handler for handler in handlers if isinstance(handler, MLFlowHandler)][:1]


def _iteration_loss(output: dict[str, Any]) -> float:
    return output["loss"].item()


def _scalars(handler: MLFlowHandler) -> dict[str, Any]:
    """Return the top-level scalars of the config that MONAI saved to be logged."""
    # MONAI 1.6.1 appends " + '/config_....json'" to output_dir, which is no expression where it was given as plain text
    handler.artifacts = tuple(str(path).replace(" + '", "").rstrip("'") for path in handler.artifacts if path)
    configs = [json.loads(Path(path).read_text()) for path in handler.artifacts]
    return {k: v for config in configs for k, v in config.items() if isinstance(v, bool | int | float | str)}


def _share_run(_: Engine, source: MLFlowHandler, target: MLFlowHandler) -> None:
    target.cur_run = source.cur_run
