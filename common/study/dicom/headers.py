"""Attributes as they come: values that are not what DICOM wants, and libraries that quote them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import itk
import numpy as np
from pydicom.dataset import Dataset


def numbers(header: Dataset, name: str, count: int = 1) -> np.ndarray | None:
    """Return the ``(count,)`` numbers of an attribute; None if it is missing, or holds others or another count."""
    try:
        values = np.array(header.get(name), float).reshape(-1)
    except Exception:  # pydicom converts when it is asked, and raises many kinds
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def number(header: Dataset, name: str) -> float | None:
    """Return the one number of an attribute; None if it is missing or anything else."""
    values = numbers(header, name)
    return None if values is None else float(values[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom, highdicom and ITK neither warn nor log, since they quote names, dates and UIDs."""
    disabled, shown = logging.root.manager.disable, itk.Object.GetGlobalWarningDisplay()
    logging.disable(logging.CRITICAL)
    itk.Object.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        itk.Object.SetGlobalWarningDisplay(shown)
