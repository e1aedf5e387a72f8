"""Networks that know nothing of missing modalities, such as MONAI's, with zeros in place of what is missing."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from common.networks.subsets import available_modalities, fill_absent

LEVELS = 5
"""Maximum number of resolutions of a network that is told how many it has; the smallest has at least 4 voxels."""
WIDTHS = ("init_filters", "feature_size", "filters", "features")
"""Arguments of MONAI's networks for the number of channels."""


class FilledNetwork(nn.Module):
    """A network with arguments ``in_channels`` and ``out_channels``, for all modalities; missing ones are zeros.

    It also gets those of ``sizes`` that it has as arguments. Those of `sizes_of` are given if it needs them, that is,
    if they have no default, or if they say how wide it is (`WIDTHS`). Raises ValueError if it cannot be made so.
    """

    def __init__(
        self, network: type[nn.Module], modalities: int, classes: int, width: int, crop: Sequence[int], **sizes: Any
    ) -> None:
        super().__init__()
        given = {"in_channels": modalities, "out_channels": classes, "spatial_dims": len(crop)}
        given |= {key: size for key, size in sizes.items() if size is not None}
        taken = inspect.signature(network).parameters
        for key, size in sizes_of(width, crop, "filters" in taken).items():
            if key in taken and (taken[key].default is inspect.Parameter.empty or key in WIDTHS):
                given.setdefault(key, size)
        try:
            self.network = network(**{key: size for key, size in given.items() if key in taken})
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(
                f"backbone {network.__name__}: cannot be made with width {width} and crop {list(crop)} ({error}). "
                "Change these, or give its own arguments, e.g. --network_def#feature_size 24."
            ) from error

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``; of several outputs in training, only the first."""
        there = available_modalities(image, present).to(image.device, non_blocking=True)
        output = self.network(fill_absent(image.as_subclass(torch.Tensor), there))
        return output[0] if isinstance(output, list | tuple) else output


def sizes_of(width: int, crop: Sequence[int], strided_first: bool) -> dict[str, Any]:
    """Return arguments of MONAI's networks: the channels double at each level, which has half the resolution.

    ``strided_first`` says whether ``strides`` include that of the first level, which is 1, as in DynUNet.
    """
    levels = max(2, min(LEVELS, int(math.log2(min(crop))) - 1))
    channels, strides = [width * 2**level for level in range(levels)], [2] * (levels - 1)
    return {
        **{"init_filters": width, "feature_size": width, "filters": channels, "channels": channels},
        "features": [width, *(width * 2**level for level in range(4)), width],
        "strides": [1, *strides] if strided_first else strides,
        **{"kernel_size": [3] * levels, "upsample_kernel_size": strides, "img_size": tuple(crop)},
    }
