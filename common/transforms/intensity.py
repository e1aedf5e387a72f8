"""Intensity normalisation over the brain."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from common.modalities import presence


class EachModalityd(MapTransform):
    """Change each modality of images ``(M, X, Y, Z)`` separately; a missing one stays NaN."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key].clone()
            there = presence(item[key][None].as_subclass(torch.Tensor))[0]
            for index, channel in enumerate(image.as_subclass(torch.Tensor)):
                if there[index]:
                    image[index] = self._change(channel, f"{item.get('case', key)}, channel {index}")
            item[key] = image
        return item

    def _change(self, channel: torch.Tensor, name: str) -> torch.Tensor:
        """Return a modality ``(X, Y, Z)`` changed; ``name`` is for messages."""
        raise NotImplementedError


class ScaleBrainIntensityd(EachModalityd):
    """Clip each modality to percentiles of its brain voxels and scale it to [0, 1]; the background becomes exactly 0.

    The brain is where a modality is not 0, so each modality is scaled independently of the others. A missing modality
    stays NaN. Source: M3AE, "Implementation" (clip to the 1st and 99th percentile, then min-max); MONAI's percentile
    scaling would include the background in the percentiles. Raises ValueError if the two percentiles of a modality are
    equal. The ``lower`` and ``upper`` percentile become 0 and 1.

    Examples:
        >>> import torch
        >>> from common.transforms import ScaleBrainIntensityd
        >>> image = torch.tensor([[0, 10, 20, 30], [torch.nan] * 4])[..., None, None]  # the second modality is missing
        >>> ScaleBrainIntensityd("image", lower=0, upper=100)({"image": image})["image"].flatten(1)
        tensor([[0.0000, 0.0000, 0.5000, 1.0000],
                [   nan,    nan,    nan,    nan]])
    """

    def __init__(self, keys: KeysCollection, lower: float = 1.0, upper: float = 99.0) -> None:
        super().__init__(keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(
                f"percentiles [{lower}, {upper}]: expected two numbers from 0 to 100, the smaller one first."
            )
        self.lower, self.upper = lower, upper

    def _change(self, channel: torch.Tensor, name: str) -> torch.Tensor:
        brain = channel != 0
        low, high = np.percentile(channel[brain].numpy(), [self.lower, self.upper]) if brain.any() else (0.0, 0.0)
        if low >= high:
            raise ValueError(
                f"{name}: percentiles {self.lower:g} and {self.upper:g} over the brain are both {low:g}; "
                "expected an image with contrast. Check the file, or leave this modality out."
            )
        scaled = (channel.clamp(low, high) - low) / (high - low)
        return torch.where(brain, scaled, torch.zeros_like(scaled))


class NormalizeBrainIntensityd(EachModalityd):
    """Give each modality zero mean and unit variance over its brain; background becomes ``-mean / std``, not 0.

    Mean and population standard deviation are computed over the brain and applied to all voxels. Source: the published
    code of RFNet, mmFormer, M2FTrans and PASSION; MONAI's ``NormalizeIntensityd(nonzero=True)`` would leave the
    background at 0, which is then the intensity of average brain. The published code takes as brain where the sum of
    the modalities is above 0; here it is where the modality itself is not 0, so that the result for a modality does not
    depend on which others are loaded. Resample first, so that 0 still means background.

    For images that show more than a brain use MONAI's ``NormalizeIntensityd(channel_wise=True)`` over the whole volume,
    which leaves a missing modality NaN too. Raises ValueError if a modality is constant over its brain.

    Examples:
        >>> import torch
        >>> from common.transforms import NormalizeBrainIntensityd
        >>> image = torch.tensor([[0, 10, 30], [torch.nan] * 3])[..., None, None]  # the second modality is missing
        >>> NormalizeBrainIntensityd("image")({"image": image})["image"].flatten(1)
        tensor([[-2., -1.,  1.],
                [nan, nan, nan]])
    """

    def _change(self, channel: torch.Tensor, name: str) -> torch.Tensor:
        voxels = channel[channel != 0].double()
        mean, std = voxels.mean(), voxels.std(correction=0)
        if not std > 0:  # NaN where there is no brain
            raise ValueError(
                f"{name}: the standard deviation over the brain is {std:g}; expected an image with contrast. Check the "
                "file, or leave this modality out."
            )
        return ((channel - mean) / std).to(channel.dtype)
