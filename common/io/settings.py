"""Checks of values that a config or a command line sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def flag(key: str, value: bool | str) -> bool:
    """Return a flag as a bool; a config gives ``true``, a command line gives text such as ``false`` or ``True``.

    Raises:
        ValueError: if it is neither true nor false.
    """
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"{key} {value!r}: expected true or false.")
    return str(value).lower() == "true"


def optional(value: Any) -> Any:
    """Return a config's value, with None for the texts ``null`` and ``None`` that a command line gives for it."""
    return None if isinstance(value, str) and value.lower() in ("null", "none") else value


def check_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """Return a value that has to be one of several choices.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{key} {value!r}: expected one of {', '.join(map(repr, choices))}.")
    return value


def check_number(key: str, value: float, low: float, high: float = float("inf")) -> float:
    """Return a number that has to lie in a range.

    Raises:
        ValueError: if it is not a number from ``low`` to ``high``.
    """
    if not isinstance(value, (int, float)) or not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{key} {value}: expected a number from {low:g} to {high:g}.")
    return value


def check_counts(**counts: int) -> None:
    """Refuse counts that are not positive whole numbers, before a training starts.

    Raises:
        ValueError: if a count is not a whole number of 1 or more; the message names its key.
    """
    for key, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{key} {count!r}: expected a whole number, 1 or more.")


def refuse_texts_for_numbers(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse text for a config key that is a number, before the stage that needs the number.

    Args:
        config: the config as written.
        given: the keys to set. Expressions (``$...``, ``@...``, ``%...``) and null are allowed for any key.

    Raises:
        ValueError: if a numeric key is given text; the message names the key.
    """
    for key, value in given.items():
        number = config.get(key)
        text = isinstance(value, str) and value[:1] not in ("$", "@", "%") and optional(value) is not None
        if text and isinstance(number, int | float) and not isinstance(number, bool):
            raise ValueError(f"{key} {value!r}: expected a number, such as {number}.")


def per_axis(key: str, values: Sequence[float]) -> Sequence[float]:
    """Return numbers of which there has to be one for each of an image's three axes.

    Raises:
        ValueError: if there are more or fewer than three.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{key} {values}: expected 3 numbers, for x, y and z.")
    return values


def usable_device(key: str, device: str | torch.device) -> torch.device:
    """Return a device after checking that a tensor can be created on it.

    Args:
        key: the setting's name, for the message.
        device: a device, e.g. ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: if the device is not available.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{key} {device}: not available ({said}); expected cpu, or cuda with a GPU.") from error
