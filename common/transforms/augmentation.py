"""Augmentation of single modalities."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
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

    Examples:
        >>> import torch
        >>> from monai.transforms import RandScaleIntensity
        >>> from common.transforms import RandEachModalityd
        >>> image = torch.ones(3, 4, 4, 4)
        >>> image[2] = torch.nan  # the third modality is missing
        >>> each = RandEachModalityd("image", RandScaleIntensity(factors=0.5, prob=1.0)).set_random_state(seed=0)
        >>> first, second, third = each({"image": image})["image"][:, 0, 0, 0]
        >>> bool(first == second), bool(third.isnan())
        (False, True)
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


class RandThickSlices(RandomizableTransform):
    """Make an image ``(C, X, Y, Z)`` look as if it had been acquired in thick slices across one of its axes.

    Routine sequences often have slices of 4 to 6 mm, resampled to small voxels later. With probability ``prob``, slices
    along a random axis are averaged over a ``thickness`` drawn between two limits (in voxels, not less than 1), and
    interpolated linearly to the size of the image.
    """

    def __init__(self, prob: float = 0.1, thickness: Sequence[float] = (1.5, 3.0)) -> None:
        super().__init__(prob)
        self.thickness = tuple(thickness)
        if len(self.thickness) != 2 or not 1 <= self.thickness[0] <= self.thickness[1]:
            raise ValueError(
                f"thickness {thickness}: expected two numbers of voxels, 1 or more, the smaller one first."
            )

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """Return the image, or one of thick slices."""
        if randomize:
            self.randomize(None)
            self.axis = int(self.R.randint(img.ndim - 1))
            self.drawn = self.R.uniform(self.thickness[0], self.thickness[1])
        if not self._do_transform:
            return img
        voxels, axis = torch.as_tensor(img).as_subclass(torch.Tensor).movedim(1 + self.axis, -1), 1 + self.axis
        lines = voxels.reshape(1, -1, voxels.shape[-1])
        slices = F.interpolate(lines, size=max(1, round(lines.shape[-1] / self.drawn)), mode="area")
        smooth = F.interpolate(slices, size=lines.shape[-1], mode="linear").reshape(voxels.shape).movedim(-1, axis)
        return smooth.contiguous()
