"""Losses that several papers share: plain modules and functions on tensors; a paper's own is in its file.

A loss is called with a network's or a training step's output in training mode and the label. After a call, its
attribute ``terms`` has the latest value of each term by name, unweighted and detached, for handlers to print.
"""

from typing import Any

from common.names import find


def __getattr__(name: str) -> Any:
    return find(__name__, name, {})
