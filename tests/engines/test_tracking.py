"""Evaluations are tracked in MLflow: in a store that is named, in the run of the training, else in a local store."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from monai.utils import path_to_sqlite_uri

from common.engines import EvaluationLog
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation, write_evaluation
from common.evaluation.report.report import write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The output folder of an evaluation of two cases and one subset."""
    folder = tmp_path_factory.mktemp("evaluation")
    values = {"dice": (0.25, 0.75), "hd95": (2.0, np.nan), "reference_volume": (1.0, 1.0), "assd": (np.nan, np.nan)}
    rows = [(f"c{i}", "t1+t2", "WT", metric, pair[i]) for metric, pair in values.items() for i in range(2)]
    results = pd.DataFrame(rows, columns=COLUMNS)
    evaluation = Evaluation("M", "phantom", ("t1", "t2"), ("WT",), Conventions(), results)
    write_evaluation(evaluation, folder)
    write_report([evaluation], folder)
    return folder


def logged(client: MlflowClient) -> object:
    """Return the only run, after checking what it holds."""
    (run,) = client.search_runs([client.get_experiment_by_name("monai_experiment").experiment_id])
    means = {"dice/t1_t2/WT": 0.5, "hd95/t1_t2/WT": 2.0, "reference_volume/t1_t2/WT": 1.0}
    assert {key: value for key, value in run.data.metrics.items() if key.startswith("test/")} == {
        f"test/{key}": value for key, value in means.items()
    }

    def names(where: str) -> set[str]:
        return {Path(artifact.path).name for artifact in client.list_artifacts(run.info.run_id, f"test{where}")}

    assert {"results.csv", "report.md", "evaluation.json"} <= names("")
    assert {"dice.md", "dice.tex"} <= names("/tables")
    assert {"heatmap.png", "heatmap.pdf"} <= names("/figures")
    assert run.info.status == "FINISHED"
    return run


@pytest.mark.slow  # a store of MLflow
def test_a_run_of_its_own_in_another_store(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of such a store
    uri = path_to_sqlite_uri(tmp_path / "store.db")
    EvaluationLog(str(folder), str(tmp_path / "model.pt"), uri, "test").write()
    assert logged(MlflowClient(uri)).info.run_name == "M"


@pytest.mark.slow  # a store of MLflow
def test_the_training_s_run_where_it_is_known(folder, tmp_path):
    client = MlflowClient(path_to_sqlite_uri(tmp_path / "mlruns.db"))
    experiment = client.create_experiment("monai_experiment", (tmp_path / "mlruns").as_uri())
    training = client.create_run(experiment)
    client.log_metric(training.info.run_id, "train_loss", 0.5)
    for part in ("test", ["training", "validation"]):
        EvaluationLog(str(folder), str(tmp_path / "model.pt"), "local", part).write()
    metrics = logged(client).data.metrics
    assert (metrics["train_loss"], metrics["training_validation/dice/t1_t2/WT"]) == (0.5, 0.5)


@pytest.mark.slow  # a store of MLflow
def test_a_local_store_by_default(folder, tmp_path):
    EvaluationLog(str(folder), str(tmp_path / "model.pt"), "local", "test").write()
    logged(MlflowClient(path_to_sqlite_uri(folder / "mlruns.db")))
    assert (folder / "mlruns").is_dir()


def test_none_logs_nothing(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    EvaluationLog(str(folder), str(tmp_path / "model.pt"), "none", "test").write()
    assert sorted(folder.rglob("*")) == before


def test_a_store_that_mlflow_cannot_use_is_refused_before_the_evaluation(folder, tmp_path):
    with pytest.raises(ValueError, match="mlflow 'locally': not a server or store"):
        EvaluationLog(str(folder), str(tmp_path / "model.pt"), "locally", "test")


@pytest.mark.slow  # a process of its own
def test_an_import_does_not_need_mlflow():
    code = "import sys; sys.modules['mlflow'] = None; import common.engines"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
