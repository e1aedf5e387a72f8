"""Checks of values that a config or a command line sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def check_choice(key: str, value: str, choices: Sequence[str]) -> str:
    """Return a value that has to be one of several choices."""
    if value not in choices:
        raise ValueError(f"{key} {value!r}: expected one of {', '.join(map(repr, choices))}.")
    return value


def check_number(key: str, value: float, low: float, high: float = float("inf")) -> float:
    """Return a number that has to lie in a range."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{key} {value}: expected a number from {low:g} to {high:g}.")
    return value


def check_counts(**counts: int) -> None:
    """Refuse counts that are not positive whole numbers, before a training starts."""
    for key, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{key} {count!r}: expected a whole number, 1 or more.")


def per_axis(key: str, values: Sequence[float]) -> Sequence[float]:
    """Return numbers of which there has to be one for each of an image's three axes."""
    if not isinstance(values, Sequence) or len(values) != 3 or not all(type(each) in (int, float) for each in values):
        raise ValueError(f"{key} {values}: expected 3 numbers, for x, y and z.")
    return values


def named_device(key: str, device: str | torch.device) -> torch.device:
    """Return the device of a name such as ``cuda:0``, which need not be available; ``key`` is for messages."""
    import torch

    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"{key} {device}: no name of a device; expected cpu, or cuda with a GPU.") from None


def usable_device(key: str, device: str | torch.device) -> torch.device:
    """Return a device, e.g. ``cuda:0``, after checking that a tensor can be created on it; ``key`` is for messages."""
    import torch

    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{key} {device}: not available ({said}); expected cpu, or cuda with a GPU.") from error
