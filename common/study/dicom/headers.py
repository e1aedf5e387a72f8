"""Attributes as they come: values that are not what DICOM wants, and libraries that quote them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag


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


def texts(header: Dataset, name: str) -> list[str]:
    """Return the values of an attribute as texts; none if it is missing, cannot be decoded, or holds no text."""
    try:
        found = header.get(name)
        values = found if isinstance(found, MultiValue) else [found]
        return [str(value) for value in values if value is not None and not isinstance(value, bytes | Sequence)]
    except Exception:  # an unknown VR, another character set, ...
        return []


def text(header: Dataset, name: str) -> str:
    """Return an attribute as one text; empty if there is none."""
    return "\\".join(texts(header, name))


def items(header: Dataset, name: str | BaseTag) -> list[Dataset]:
    """Return the items of a sequence; none if it is missing, or is no sequence."""
    try:
        found = header[name].value
    except Exception:  # as above
        return []
    return list(found) if isinstance(found, Sequence) else []


def given(header: Dataset, name: str) -> bool:
    """Return whether an attribute has a value, be it one that cannot be decoded."""
    return name in header and header.get_item(name).value not in (None, "", b"")


def take(header: Dataset, into: Dataset) -> None:
    """Put attributes into another dataset as they lie in the file, except what pydicom has to decode and cannot."""
    for tag in header.keys():  # noqa: SIM118  iterating over the dataset converts values
        with suppress(Exception):
            into[tag] = header.get_item(tag)


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom and highdicom neither warn nor log, since they quote names, dates and UIDs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
