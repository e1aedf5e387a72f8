"""MLflow tracking of evaluations, and additions to what ``monai.bundle run --tracking mlflow`` tracks of trainings.

With this option MONAI adds its MLFlowHandler to ``train#trainer``, ``validate#evaluator`` and ``evaluator``. Without
it, the functions for trainings do nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Trainer
from monai.handlers import MLFlowHandler, ValidationHandler
from monai.utils import path_to_sqlite_uri

from common.evaluation.analysis.statistics import subset_statistics
from common.evaluation.metrics.results import Evaluation, read_evaluation
from common.io.files import replacing

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "monai_experiment"
ARTIFACTS = (".csv", ".json", ".md", ".tex", ".html", ".png", ".svg", ".pdf")
RUN_NOTE = "mlflow.json"
"""File beside a training's checkpoints that names its run, so that evaluations are logged into the same run."""


def track(handlers: Sequence, trainer: Trainer, tag_name: str, folder: str) -> None:
    """Log a trainer into the run of the MLFlowHandler in ``handlers``, with the config's scalars as parameters.

    Rank 0 logs for all; on other ranks the handlers are removed from the trainer and its validator. ``handlers`` are
    those to which MONAI added its tracking (``train#handlers`` and ``validate#handlers``). ``trainer`` is the one of
    ``train#handlers``, or another one that shares its run, such as that of the pretraining. ``tag_name`` is the name of
    its iteration loss, ``folder`` that of its checkpoints.
    """
    if idist.get_rank() > 0:
        engines = [trainer, *(each.validator for each in handlers if isinstance(each, ValidationHandler))]
        for handler in handlers:
            if isinstance(handler, MLFlowHandler):
                _detach(handler, engines)
        return
    note = Path(folder, RUN_NOTE)
    note.unlink(missing_ok=True)
    for handler in _mlflow(handlers):
        disable_telemetry()
        # The trainers do not decollate, and MONAI's own transform would return a tuple for a dict's loss.
        handler.output_transform = lambda output: output["loss"].item()
        handler.experiment_param = _scalars(handler)
        if trainer.has_event_handler(handler.start, Events.STARTED):
            handler.tag_name = tag_name
            if trainer.has_event_handler(handler.close, Events.COMPLETED):  # more results will be logged later
                trainer.remove_event_handler(handler.close, Events.COMPLETED)
            trainer.add_event_handler(Events.STARTED, _write_note, handler, note)
            continue
        twin = copy(handler)
        twin.tag_name, twin.default_tracking_params, twin.close_on_complete = tag_name, [], False
        twin.attach(trainer)
        trainer.add_event_handler(Events.STARTED, _write_note, twin, note)
        trainer.add_event_handler(Events.COMPLETED, _share_run, twin, handler)


def log_evaluation(folder: str, ckpt_path: str, tracking: str, part: str | Sequence[str]) -> None:
    """Log an evaluation: settings as parameters, means as metrics, files as artifacts.

    Metrics are named ``<part>/<metric>/<subset>/<region>``, e.g. ``test/dice/t1c_flair/ET``; artifacts lie in a folder
    named after the part. If the run already has an evaluation of the part, differing settings are logged as tags.

    Args:
        folder: folder that `write_report` wrote.
        ckpt_path: path of the weights; if a tracked training left its note beside them, its run is used.
        tracking: ``local`` for the training's store, or one in the folder; ``none`` to log nothing; else the URI of an
            MLflow server or store.
        part: part of the split.
    """
    if tracking == "none":
        return
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    disable_telemetry()
    note = Path(ckpt_path).parent / RUN_NOTE
    known = json.loads(note.read_text()) if note.is_file() else {}
    if tracking == "local":
        tracking = known.get("tracking_uri", path_to_sqlite_uri(Path(folder, "mlruns.db")))
    client, evaluation = MlflowClient(tracking), read_evaluation(folder)
    ours = known.get("tracking_uri") == tracking
    run = known["run_id"] if ours else _new_run(client, evaluation.name, Path(folder, "mlruns"))
    part = part if isinstance(part, str) else "_".join(part)
    _log_settings(client, run, part, evaluation, ckpt_path)
    now, means = int(1000 * time.time()), dict(_means(evaluation))
    for start in range(0, len(means), 500):
        batch = list(means.items())[start : start + 500]
        client.log_batch(run, metrics=[Metric(f"{part}/{key}", value, now, 0) for key, value in batch])
    for path in sorted(Path(folder).rglob("*")):
        where = path.relative_to(folder).parent
        if path.suffix in ARTIFACTS and where.parts[:1] in ((), ("tables",), ("figures",)):
            client.log_artifact(run, str(path), str(Path(part, where)))
    if not ours:
        client.set_terminated(run)


def disable_telemetry() -> None:
    """Switch off MLflow's reports to its developers in this process; MONAI may have imported mlflow before."""
    from mlflow.telemetry import set_telemetry_client

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    set_telemetry_client()


def require_store(tracking: str) -> None:
    """Refuse a tracking server that does not answer, and switch off MLflow's telemetry for the evaluation that follows.

    Raises ConnectionError if no server answers at the URI.
    """
    disable_telemetry()
    if tracking.startswith("http"):
        try:
            urlopen(f"{tracking}/health", timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"tracking {tracking}: no MLflow server answers at this URI ({error}).") from error


def log_file(handlers: Sequence, path: str) -> None:
    """Log a file, e.g. the picture of x_sub, as an artifact of the open run, on rank 0."""
    for handler in _mlflow(handlers) if idist.get_rank() == 0 else ():
        handler.client.log_artifact(handler.cur_run.info.run_id, path)


def close_tracking(handlers: Sequence) -> None:
    """Mark an open run as finished, so that the next training gets its own run."""
    for handler in _mlflow(handlers):
        if handler.cur_run is not None:
            handler.close()


def _log_settings(client: MlflowClient, run: str, part: str, evaluation: Evaluation, ckpt_path: str) -> None:
    settings = {"method": evaluation.name, "cohort": evaluation.cohort, "ckpt_path": ckpt_path}
    settings |= vars(evaluation.conventions) | dict(evaluation.facts)
    logged = client.get_run(run).data.params
    for key, value in settings.items():
        name = f"{part}/{key}"
        if logged.get(name, str(value)) == str(value):
            client.log_param(run, name, value)
        else:  # a parameter cannot be changed
            client.set_tag(run, name, value)


def _means(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    """Yield ``<metric>/<subset>/<region>`` and the mean, as in the tables."""
    for metric in evaluation.results["metric"].unique():
        means = subset_statistics(evaluation, metric)["mean"]
        for subset, row in means.iterrows():
            yield from ((f"{metric}/{subset.replace('+', '_')}/{r}", value) for r, value in row.dropna().items())


def _new_run(client: MlflowClient, name: str, artifacts: Path) -> str:
    """Create a run in the experiment of MONAI's trainings."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        where = artifacts.resolve().as_uri() if client.tracking_uri.startswith("sqlite") else None
        return client.create_run(client.create_experiment(EXPERIMENT, where), run_name=name).info.run_id
    return client.create_run(experiment.experiment_id, run_name=name).info.run_id


def _write_note(_: Engine, handler: MLFlowHandler, note: Path) -> None:
    run = {"tracking_uri": handler.client.tracking_uri, "run_id": handler.cur_run.info.run_id}
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(run, indent=4) + "\n")


def _detach(handler: MLFlowHandler, engines: Sequence[Engine]) -> None:
    """Undo `MLFlowHandler.attach`."""
    registered = {
        Events.STARTED: [handler.start],
        Events.ITERATION_COMPLETED: [handler.iteration_completed],
        Events.EPOCH_COMPLETED: [handler.epoch_completed],
        Events.COMPLETED: [handler.complete, handler.close],
    }
    for engine, (event, functions) in product(engines, registered.items()):
        for function in functions:
            if engine.has_event_handler(function, event):
                engine.remove_event_handler(function, event)


def _mlflow(handlers: Sequence) -> list[MLFlowHandler]:
    return [handler for handler in handlers if isinstance(handler, MLFlowHandler)][:1]


def _scalars(handler: MLFlowHandler) -> dict[str, Any]:
    """Return the top-level scalars of the config that MONAI saved for logging."""
    # MONAI 1.6.1 appends " + '/config_....json'" to output_dir, which is wrong if that was given as plain text.
    handler.artifacts = tuple(str(path).replace(" + '", "").rstrip("'") for path in handler.artifacts if path)
    configs = [json.loads(Path(path).read_text()) for path in handler.artifacts]
    return {k: v for config in configs for k, v in config.items() if isinstance(v, bool | int | float | str)}


def _share_run(_: Engine, source: MLFlowHandler, target: MLFlowHandler) -> None:
    target.cur_run = source.cur_run
