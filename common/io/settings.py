"""What a config or a command line gives for a key, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def flag(key: str, value: bool | str) -> bool:
    """Return a flag that a config (``true``) or a command line (text such as ``false`` or ``True``) gives.

    Raises:
        ValueError: it is neither true nor false.
    """
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"{key} {value!r}: expected true or false.")
    return str(value).lower() == "true"


def optional(value: Any) -> Any:
    """Return what a config gives; None also for the texts ``null`` and ``None``, by which a command line says so."""
    return None if isinstance(value, str) and value.lower() in ("null", "none") else value


def check_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """Return a named choice.

    Raises:
        ValueError: it is none of those there are.
    """
    if value not in choices:
        raise ValueError(f"{key} {value!r}: expected one of {', '.join(map(repr, choices))}.")
    return value


def check_number(key: str, value: float, low: float, high: float = float("inf")) -> float:
    """Return a constant.

    Raises:
        ValueError: it is not a number from ``low`` to ``high``.
    """
    if not isinstance(value, (int, float)) or not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{key} {value}: expected a number from {low:g} to {high:g}.")
    return value


def check_counts(**counts: int) -> None:
    """Refuse, before a training starts, what one of its stages could not count up to.

    Raises:
        ValueError: one of these keys of its config is no whole number of 1 or more; the message names it.
    """
    for key, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{key} {count!r}: expected a whole number, 1 or more.")


def refuse_texts_for_numbers(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a text for a key that is a number in a config, before the stage that would need the number.

    Args:
        config: the config as written.
        given: keys to set; what a config evaluates (``$...``, ``@...``, ``%...``) and what says null may be anything.

    Raises:
        ValueError: there is such a text; the message names its key.
    """
    for key, value in given.items():
        number = config.get(key)
        text = isinstance(value, str) and value[:1] not in ("$", "@", "%") and optional(value) is not None
        if text and isinstance(number, int | float) and not isinstance(number, bool):
            raise ValueError(f"{key} {value!r}: expected a number, such as {number}.")


def per_axis(key: str, values: Sequence[float]) -> Sequence[float]:
    """Return numbers of which there is one for each of the three axes of an image.

    Raises:
        ValueError: there are more or fewer.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{key} {values}: expected 3 numbers, for x, y and z.")
    return values


def usable_device(key: str, device: str | torch.device) -> torch.device:
    """Return a device on which tensors can be made.

    Args:
        key: what the message calls the setting.
        device: e.g. ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: there is no such device here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{key} {device}: not to be had here ({said}); expected cpu, or cuda with a GPU.") from error
