"""MLflow: what ``monai.bundle run --tracking mlflow`` needs of our trainers, and an evaluation in the same run."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from monai.handlers import MLFlowHandler
from monai.utils import path_to_uri

from common.evaluation.analysis.statistics import subset_statistics
from common.evaluation.metrics.results import read_evaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "monai_experiment"
"""Name of the experiment of MONAI's trainings."""


def track(handlers: Sequence) -> None:
    """Let MONAI's MLFlowHandlers log the loss of a trainer that does not decollate its output."""
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.output_transform = itemgetter("loss")


def store_uri(path: str | os.PathLike) -> str:
    """Return the URI of a store of MLflow in a file.

    Only what has a meaning in a URI is encoded. MONAI's `path_to_sqlite_uri` encodes more, such as spaces, and MLflow
    makes an empty folder whose name is the encoded one.
    """
    place = Path(path).absolute().as_posix()
    return "sqlite:///" + place.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def require_server(key: str, uri: str) -> None:
    """Refuse the URI of an MLflow server or store that cannot be used; ``key`` is for messages."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        if uri.startswith(("http://", "https://")):  # MLflow itself would try for four minutes
            urlopen(f"{uri}/health", timeout=10).close()
        MlflowClient(uri).search_experiments(max_results=1)
    except (OSError, MlflowException) as error:
        raise ValueError(f"{key} {uri!r}: not a server or store that can be used ({error}).") from None


class EvaluationLog:
    """An evaluation in MLflow: means ``<part>/<metric>/<subset>/<region>``, and files in a folder named after the part.

    It goes into the latest run of a store ``mlruns.db`` beside the weights, which is that of a tracked training, or
    into a new run. MLflow tells its developers of its use unless ``MLFLOW_DISABLE_TELEMETRY`` is set.

    Args:
        output_dir: folder of the `Report`.
        ckpt_path: path of the weights.
        tracking: ``local`` for the store beside the weights or, without one, in the folder; ``none`` to log nothing;
            else the URI of an MLflow server or store. The constructor tries it, and raises ValueError if it fails.
        part: part of the split.
    """

    def __init__(self, output_dir: str, ckpt_path: str, tracking: str, part: str | Sequence[str]) -> None:
        self.folder, self.tracking = Path(output_dir), tracking
        self.training = Path(ckpt_path).parent / "mlruns.db"
        self.part = part if isinstance(part, str) else "_".join(part)
        if tracking not in ("local", "none"):
            require_server("mlflow", tracking)

    def write(self) -> None:
        """Log the means and the files of the folder."""
        if self.tracking == "none":
            return
        from mlflow.entities import Metric

        client, evaluation, now = self._client(), read_evaluation(self.folder), int(1000 * time.time())
        experiment = client.get_experiment_by_name(EXPERIMENT)
        location = path_to_uri(self.folder / "mlruns") if self.tracking == "local" else None
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT, location)
        trained = self.tracking == "local" and self.training.is_file()
        runs = client.search_runs([number], max_results=1) if trained else []
        run = (runs[0] if runs else client.create_run(number, run_name=evaluation.name)).info.run_id
        for metric in evaluation.results["metric"].unique():
            means = subset_statistics(evaluation, metric)["mean"].stack().dropna().items()
            names = {f"{self.part}/{metric}/{s.replace('+', '_')}/{region}": mean for (s, region), mean in means}
            client.log_batch(run, metrics=[Metric(name, mean, now, 0) for name, mean in names.items()])
        for pattern in ("*.csv", "*.json", "*.md", "*.html", "tables/*", "figures/*"):
            for path in sorted(self.folder.glob(pattern)):
                client.log_artifact(run, str(path), str(Path(self.part, path.relative_to(self.folder).parent)))
        client.set_terminated(run)

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        store = self.training if self.training.is_file() else self.folder / "mlruns.db"
        return MlflowClient(store_uri(store) if self.tracking == "local" else self.tracking)
