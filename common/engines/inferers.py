"""Sliding windows over the modalities that are present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import generate_spatial_bounding_box
from monai.utils import fall_back_tuple
from torch import nn

from common.modalities import presence

OUTSIDE = -1e4
"""Logit of every channel outside the foreground: sigmoid gives 0, and argmax gives channel 0, the background."""


class ForegroundInferer(SlidingWindowInferer):
    """MONAI's sliding windows over the bounding box of the foreground; outside of it nothing is predicted.

    The box holds every voxel at which a modality that is present is above 0, and one voxel around; absent modalities
    have no say. It is grown to the window's size where the image allows it. Arguments are those of
    `SlidingWindowInferer`; ``roi_size`` should be the training crop.
    """

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return logits ``(B, C, X, Y, Z)`` of ``(B, M, X, Y, Z)``, missing modalities being NaN.

        Raises:
            ValueError: a sample has no modality.
        """
        if not bool(presence(inputs).any(dim=1).all()):
            raise ValueError("A sample has no modality present; at least one is needed.")
        box = self.box(inputs)
        image = self.complete(inputs, network).as_subclass(torch.Tensor)[box]
        return place(super().__call__(image, network, *args, **kwargs), box, inputs.shape[2:])

    def box(self, inputs: torch.Tensor) -> tuple:
        """Return the index of the voxels that are looked at in ``(B, M, X, Y, Z)``."""
        flat = inputs.as_subclass(torch.Tensor).flatten(0, 1)
        # NaN > 0 is False: absent modalities do not count; allow_smaller keeps the margin within the image
        low, high = generate_spatial_bounding_box(flat, margin=1, allow_smaller=True)
        ranges = zip(low, high, self.window(inputs), inputs.shape[2:], strict=True)
        return (..., *(_at_least(*axis) for axis in ranges))

    def window(self, inputs: torch.Tensor) -> tuple[int, ...]:
        """Return the size in voxels of a window in ``(B, M, X, Y, Z)``."""
        return fall_back_tuple(self.roi_size, inputs.shape[2:])

    def complete(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        """Return what the windows are cut from; here the image as it is, with its NaN channels."""
        return inputs


def place(logits: torch.Tensor, box: tuple, shape: Sequence[int]) -> torch.Tensor:
    """Return the logits of a box within those of the whole image ``(B, C, *shape)``, which are `OUTSIDE` around it."""
    full = logits.new_full((*logits.shape[:2], *shape), OUTSIDE)
    full[box] = logits
    return full


def _at_least(low: int, high: int, window: int, extent: int) -> slice:
    """Grow a range to the window's size where the image allows it, so that real voxels and not padding surround it."""
    size = min(max(high - low, window), extent)
    start = min(max(low - (size - (high - low)) // 2, 0), extent - size)
    return slice(start, start + size)


class SubstituteInferer(ForegroundInferer):
    """For M3AE: put the location-corresponding content of ``network.x_sub`` into the missing modalities first."""

    def complete(self, inputs: torch.Tensor, network: nn.Module) -> torch.Tensor:
        """Return the image ``(B, M, X, Y, Z)`` without NaN."""
        return network.substitute(inputs, presence(inputs))
