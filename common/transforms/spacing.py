"""Resampling to larger voxels by means over their extent."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.layers import separable_filtering
from monai.transforms import MapTransform, Spacing


class MeanSpacingd(MapTransform):
    """Resample volumes ``(C, X, Y, Z)`` like MONAI's Spacingd with bilinear mode, but larger voxels become means.

    A sampled voxel has all the noise of one small voxel and says nothing of its neighbours. Here each axis whose voxels
    grow is first averaged over the extent of a new voxel. Of a mask, this gives the share of each new voxel that it
    covers. The grid is Spacingd's. A channel of NaN stays NaN, and others stay without. ``pixdim`` is in mm; -1 keeps
    an axis.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float]) -> None:
        super().__init__(keys)
        self.pixdim = tuple(pixdim)
        self.spacing = Spacing(self.pixdim, mode="bilinear", padding_mode="border")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            volume = item[key]
            kernels = [box(new / float(old)) for new, old in zip(self.pixdim, volume.pixdim, strict=True)]
            means = separable_filtering(volume.as_tensor().float()[None], kernels, mode="replicate")[0]
            item[key] = self.spacing(type(volume)(means).copy_meta_from(volume))
        return item


def box(width: float) -> torch.Tensor:
    """Return weights that sum to 1 of a mean over ``width`` voxels around the middle one; ``[1]`` for at most one."""
    reach = max(width - 1, 0) / 2
    ends = math.ceil(reach)
    weights = torch.ones(2 * ends + 1)
    weights[[0, -1]] -= ends - reach  # the outermost voxels lie within the box in part
    return weights / weights.sum()
