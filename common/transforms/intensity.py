"""Intensity normalisation over the brain."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from common.modalities import presence


class ScaleBrainIntensityd(MapTransform):
    """Clip each modality to percentiles of its brain voxels and scale it to [0, 1]; background becomes exactly 0.

    The brain is where the modality is not 0, so every modality is scaled without regard to the others. A missing
    modality stays NaN. Source: M3AE, "Implementation" (clip to the 1st and 99th percentile, then min-max); MONAI's
    percentile scaling would take the percentiles over the background too.

    Args:
        keys: images ``(M, X, Y, Z)``.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.

    Raises:
        ValueError: the two percentiles of a modality coincide.
    """

    def __init__(self, keys: KeysCollection, lower: float = 1.0, upper: float = 99.0) -> None:
        super().__init__(keys)
        self.lower, self.upper = lower, upper

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images scaled."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key].clone()
            there = presence(item[key][None].as_subclass(torch.Tensor))[0]
            for index, channel in enumerate(image.as_tensor()):
                if there[index]:
                    image[index] = self._scale(channel, f"{item.get('case', key)}, channel {index}")
            item[key] = image
        return item

    def _scale(self, channel: torch.Tensor, name: str) -> torch.Tensor:
        brain = channel != 0
        low, high = np.percentile(channel[brain].numpy(), [self.lower, self.upper])
        if low >= high:
            raise ValueError(
                f"{name}: percentiles {self.lower:g} and {self.upper:g} over the brain are both {low:g}; "
                "expected an image with contrast. Check the file, or leave this modality out."
            )
        scaled = (channel.clamp(low, high) - low) / (high - low)
        return torch.where(brain, scaled, torch.zeros_like(scaled))
