"""Refusal of windows and crops that a network cannot process."""

from collections.abc import Sequence
from typing import Protocol

import torch


class Windowed(Protocol):
    """A network that processes windows of one size."""

    crop: tuple[int, ...]


def require_window(network: Windowed, image: torch.Tensor) -> None:
    """Refuse windows ``(B, M, ...)`` of another size than the network's ``crop``, to which its positions are tied."""
    if tuple(image.shape[2:]) != network.crop:
        raise ValueError(
            f"A window of {list(image.shape[2:])} voxels, but this {type(network).__name__} was built for "
            f"{list(network.crop)}, since it learns positions. Use windows of this size, or set the key `crop` "
            "and train again."
        )


def check_crop(crop: Sequence[int], multiple: int, least: int) -> None:
    """Refuse a crop that is not 2 or 3 multiples of ``multiple``, each of them ``least`` or more."""
    if len(crop) not in (2, 3) or any(extent % multiple or extent < least for extent in crop):
        raise ValueError(
            f"crop {list(crop)}: expected 2 or 3 multiples of {multiple}, {least} or more, e.g. "
            f"{[max(least, round(extent / multiple) * multiple) for extent in crop]} (key `crop`)."
        )
