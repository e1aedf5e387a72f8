"""Evaluations are tracked in MLflow: on a server, in the run of the training if it is known, else in a local store."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ignite.engine import Engine, Events
from mlflow import MlflowClient
from mlflow.telemetry.client import get_telemetry_client
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler, ValidationHandler
from monai.utils import path_to_sqlite_uri
from processes import free_port, serving

from common.engines import check_settings, log_evaluation, track
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation, read_evaluation, write_evaluation
from common.evaluation.report.report import write_report


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URI of a separate MLflow server."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += [f"--backend-store-uri=sqlite:///{folder}/store.db", f"--artifacts-destination={folder}/artifacts"]
    uri = f"http://127.0.0.1:{port}"
    with serving([sys.executable, "-m", "mlflow", *words], f"{uri}/health", folder / "log"):
        yield uri


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The output folder of an evaluation of two cases and one modality."""
    folder = tmp_path_factory.mktemp("evaluation")
    values = {"dice": (0.25, 0.75), "hd95": (2.0, np.nan), "reference_volume": (1.0, 1.0)}
    rows = [(f"c{i}", "t1+t2", "WT", metric, pair[i]) for metric, pair in values.items() for i in range(2)]
    evaluation = Evaluation(
        "M", "phantom", ("t1", "t2"), ("WT",), Conventions(), pd.DataFrame(rows, columns=COLUMNS), facts={"gflops": 2.5}
    )
    write_evaluation(evaluation, folder)
    write_report([evaluation], folder, coverage=0.9)
    return folder


def check(client: MlflowClient, run_id: str) -> None:
    run = client.get_run(run_id)
    means = {"dice/t1_t2/WT": 0.5, "hd95/t1_t2/WT": 2.0, "reference_volume/t1_t2/WT": 1.0}
    assert {key: value for key, value in run.data.metrics.items() if key.startswith("test/")} == {
        f"test/{key}": value for key, value in means.items()
    }
    assert run.data.params["test/empty"] == "brats"
    assert run.data.params["test/gflops"] == "2.5"

    def names(where: str) -> set[str]:
        return {Path(artifact.path).name for artifact in client.list_artifacts(run_id, f"test{where}")}

    assert {"results.csv", "report.html", "evaluation.json"} <= names("")
    assert {"dice.md", "dice.tex"} <= names("/tables")
    assert {"heatmap.png", "heatmap.pdf"} <= names("/figures")


@pytest.mark.slow  # a server of its own
def test_a_run_of_its_own_on_a_server(server, folder, tmp_path):
    log_evaluation(str(folder), str(tmp_path / "model.pt"), server, "test")
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("monai_experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "M"
    check(client, run.info.run_id)


@pytest.mark.slow  # a server of its own
def test_the_training_s_run_where_it_is_known(server, folder, tmp_path):
    client = MlflowClient(server)
    training = client.create_run(client.create_experiment("training"))
    note = {"tracking_uri": server, "run_id": training.info.run_id}
    (tmp_path / "mlflow.json").write_text(json.dumps(note))
    log_evaluation(str(folder), str(tmp_path / "model.pt"), "local", "test")
    check(client, training.info.run_id)
    assert client.get_run(training.info.run_id).info.status == "RUNNING"  # it is ended by whoever started it
    other = replace(read_evaluation(folder), facts={"gflops": 3.0})  # once more, with another part
    again = tmp_path / "again"
    write_evaluation(other, again)
    log_evaluation(str(again), str(tmp_path / "model.pt"), "local", "test")
    log_evaluation(str(again), str(tmp_path / "model.pt"), "local", "validation")
    check(client, training.info.run_id)
    run = client.get_run(training.info.run_id)
    assert run.data.tags["test/gflops"] == "3.0"
    assert run.data.params["validation/gflops"] == "3.0"
    assert run.data.metrics["validation/dice/t1_t2/WT"] == 0.5


def test_a_server_that_does_not_answer(tmp_path):
    with pytest.raises(ConnectionError, match="no MLflow server answers"):
        check_settings("M3AE", 0.9, None, {}, "threshold", "http://127.0.0.1:9")


def test_a_local_store_by_default(folder, tmp_path):
    log_evaluation(str(folder), str(tmp_path / "model.pt"), "local", "test")
    client = MlflowClient(path_to_sqlite_uri(folder / "mlruns.db"))
    experiment = client.get_experiment_by_name("monai_experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    check(client, run.info.run_id)
    assert (folder / "mlruns").is_dir()


def test_none_logs_nothing(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    log_evaluation(str(folder), str(tmp_path / "model.pt"), "none", "test")
    assert sorted(folder.rglob("*")) == before


IMPORT = """
import os, sys
sys.modules["mlflow"] = None
import common.engines
assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ
"""


@pytest.mark.slow  # a process of its own
def test_an_import_neither_needs_nor_changes_mlflow():
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_tracked_is_not_reported_to_the_developers_of_mlflow(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    check_settings("M3AE", 0.9, None, {}, "threshold", "local")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert get_telemetry_client() is None


def test_a_method_that_is_no_text_is_refused_before_the_evaluation():
    with pytest.raises(ValueError, match="two pairs of quotes"):
        check_settings(("U-Net", "ModDrop"), 0.9, None, {}, "threshold", "")


def test_only_rank_0_logs_trainer_and_validator(tmp_path, monkeypatch):
    """Every rank has its own handlers, which MONAI's tracking adds to the trainer and to its validator."""
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    trainer, validator = Engine(lambda *_: {"loss": 0.0}), Evaluator("cpu", [0], iteration_update=lambda *_: None)
    handlers = [MLFlowHandler(path_to_sqlite_uri(tmp_path / "mlruns.db"), close_on_complete=True) for _ in range(2)]
    for engine, handler in zip((trainer, validator), handlers, strict=True):
        handler.attach(engine)
    called = []
    trainer.add_event_handler(Events.COMPLETED, lambda _: called.append(True))
    track([*handlers, ValidationHandler(1, validator)], trainer, "train_loss", str(tmp_path))
    trainer.run([0])
    validator.run()
    assert called
    assert [handler.cur_run for handler in handlers] == [None, None]
    assert not (tmp_path / "mlflow.json").exists()
