"""Augmentation that treats each modality separately."""

from typing import Self

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, RandomizableTransform

from common.transforms.intensity import EachModalityd


class RandEachModalityd(Randomizable, EachModalityd):
    """Apply a random transform to each modality of an image separately, with new random draws for each.

    MONAI's random intensity transforms draw once per image, so that they change all channels or none. But sequences are
    acquired one after another and differ in noise, sharpness and contrast. Source: Isensee et al., "nnU-Net", Nature
    Methods 2021, Supplementary Note 4, which also draws for each modality.

    ``transform`` is an array transform of MONAI for an image ``(1, X, Y, Z)``, such as ``RandGaussianNoise``. A missing
    modality (NaN) is left unchanged.
    """

    def __init__(self, keys: KeysCollection, transform: RandomizableTransform) -> None:
        super().__init__(keys)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Seed the inner transform, which makes the random draws."""
        self.transform.set_random_state(seed, state)
        return self

    def _change(self, channel: torch.Tensor, name: str) -> torch.Tensor:
        return torch.as_tensor(self.transform(channel[None]))[0]
