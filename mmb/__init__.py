"""The application on the bundles' package `common`: patients' studies, experiments, authors' checkpoints."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return `Bundle`, which is imported when it is used: PyTorch takes seconds, which `mmb --help` should not."""
    if name != "Bundle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmb.predictors.python import Bundle

    return Bundle
