"""From the network's grid back to that of the files."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample

PARALLEL = 1e-3
"""Largest shift, in voxels of one grid for each voxel of the other, along an axis that should not move at all."""


class ToFileGridd(MapTransform):
    """Interpolate volumes ``(C, ...)`` linearly from the grid of the item's image to that of the files it is made from.

    It undoes Orientationd and Spacingd like MONAI's `Invertd`, up to rounding. If both grids have parallel axes, each
    axis is interpolated by itself, in a third of the time, which a sweep spends for each subset of each case; MONAI
    resamples if the files' axes are not orthogonal.
    Beyond the image's grid, the values of its border continue. The files' grid is in the image's metadata
    (``original_affine`` and ``spatial_shape``). Results have the image's metadata and the files' affine.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        image = item["image"]
        affine, size = torch.as_tensor(image.meta["original_affine"]), [int(n) for n in image.meta["spatial_shape"]]
        positions = torch.linalg.solve(image.affine.double().cpu(), affine.double().cpu())
        axes = _parallel_axes(positions[: len(size), : len(size)])
        for key in self.key_iterator(item):
            voxels = torch.as_tensor(item[key]).as_subclass(torch.Tensor)
            if axes is None:
                resample = SpatialResample(padding_mode="border", dtype=np.float32)
                resampled = resample(MetaTensor(voxels.float(), affine=image.affine), affine, size)
                voxels = resampled.as_subclass(torch.Tensor).to(voxels.dtype)
            else:
                voxels = _interpolated(voxels, positions, axes, size)
            item[key] = MetaTensor(voxels).copy_meta_from(image)
            item[key].affine, item[key].applied_operations = affine, []
        return item


def _parallel_axes(scale: torch.Tensor) -> list[int] | None:
    """Return for each axis of a grid that axis of another which is parallel to it; None if some are not parallel.

    ``scale`` is the matrix that maps a step in the other grid to one in the grid.
    """
    axes = scale.abs().argmax(dim=1)
    others = scale.abs().scatter(1, axes[:, None], 0)
    return axes.tolist() if len(axes.unique()) == len(axes) and others.max() <= PARALLEL else None


def _interpolated(
    volume: torch.Tensor, positions: torch.Tensor, axes: Sequence[int], size: Sequence[int]
) -> torch.Tensor:
    """Return a volume ``(C, ...)`` at the voxels of another grid of this size, whose axes are parallel to its own.

    ``positions`` is the homogeneous matrix that maps a voxel's index in the other grid to that in the volume; ``axes``
    are the other grid's axes in the order of the volume's.
    """
    rank = len(size)
    scale, offset = positions[:rank, :rank], positions[:rank, -1]
    for axis in reversed(range(rank)):
        other, extent = axes[axis], volume.shape[1 + axis]
        at = (offset[axis] + scale[axis, other] * torch.arange(size[other])).clamp(0, extent - 1)
        below = at.long()
        weight = (at - below).to(volume).reshape(-1, *[1] * (rank - 1 - axis))
        below = below.to(volume.device)
        above = (below + 1).clamp(max=extent - 1)
        low, high = (volume.index_select(1 + axis, index) for index in (below, above))
        volume = low.lerp_(high, weight)
    return volume.permute(0, *(1 + axes.index(axis) for axis in range(rank))).contiguous()
