"""MLflow beyond what ``monai.bundle run --tracking mlflow`` attaches by itself.

MONAI adds its MLFlowHandler to ``train#trainer``, ``validate#evaluator`` and ``evaluator``. Without tracking these
functions do nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import pandas as pd
from ignite.engine import Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler


def track_also(handlers: Sequence, trainer: Trainer, tag_name: str) -> None:
    """Log another trainer into the run of the MLFlowHandler among ``handlers``, if there is one.

    Args:
        handlers: the handlers that MONAI's tracking was added to (``train#handlers``).
        trainer: the engine to be tracked too, e.g. the pretraining's.
        tag_name: name of its iteration loss.
    """
    for handler in _mlflow(handlers):
        twin = copy(handler)
        twin.tag_name = tag_name
        twin.default_tracking_params = []
        twin.attach(trainer)
        trainer.add_event_handler(Events.COMPLETED, _share_run, twin, handler)


def log_results(handlers: Sequence, folder: str) -> None:
    """Log ``results.csv`` of an evaluation as metrics ``<metric>/<subset>/<region>``, and its table and figures as
    artifacts.

    Args:
        handlers: the handlers that MONAI's tracking was added to.
        folder: where `SubsetResults` wrote.
    """
    for handler in _mlflow(handlers):
        run = handler.cur_run.info.run_id
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in (".csv", ".md", ".png"):
                handler.client.log_artifact(run, str(path))
        results = pd.read_csv(Path(folder) / "results.csv")
        for keys, value in results.groupby(["metric", "modalities", "region"])["value"].mean().items():
            handler.client.log_metric(run, "/".join(keys).replace("+", "_"), value)


def close_tracking(handlers: Sequence) -> None:
    """Log the config's top-level scalars as parameters and mark the run as finished, so that the next one is its
    own.
    """
    for handler in _mlflow(handlers):
        if handler.cur_run is None:
            continue
        for path in filter(None, handler.artifacts):
            scalars = {k: v for k, v in json.loads(Path(path).read_text()).items() if isinstance(v, int | float | str)}
            for name, value in scalars.items():
                handler.client.log_param(handler.cur_run.info.run_id, name, value)
        handler.close()


def _share_run(_: Trainer, source: MLFlowHandler, target: MLFlowHandler) -> None:
    target.cur_run = source.cur_run


def _mlflow(handlers: Sequence) -> list[MLFlowHandler]:
    return [handler for handler in handlers if isinstance(handler, MLFlowHandler)][:1]
