"""Random changes of intensity that differ from modality to modality."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from common.modalities import presence


class RandEachModalityd(MapTransform, RandomizableTransform):
    """Apply a random transform of MONAI's to each modality by itself, so that each draws its own strength.

    MONAI's intensity transforms draw once for all channels, and some (gamma) take the range over all of them. Where a
    modality is 0, it stays 0: skull-stripped images have no noise around the brain. A missing modality stays NaN.
    Source: the augmentation of nnU-Net, which draws for each channel too.

    Args:
        keys: images ``(M, X, Y, Z)`` whose background is 0.
        transform: a random array transform of one channel ``(1, X, Y, Z)``; its ``prob`` holds for each modality.
    """

    def __init__(self, keys: KeysCollection, transform: RandomizableTransform) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Any:
        """Seed the transform that is applied."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images changed."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key].clone()
            there = presence(image[None].as_subclass(torch.Tensor))[0]
            for index, channel in enumerate(image.as_tensor()):
                if there[index]:
                    changed = torch.as_tensor(self.transform(channel[None]))[0]
                    image[index] = torch.where(channel != 0, changed, 0)
            item[key] = image
        return item
