"""MLflow: what ``monai.bundle run --tracking mlflow`` needs of our trainers."""

import os
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from urllib.request import urlopen

from monai.handlers import MLFlowHandler


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
