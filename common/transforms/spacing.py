"""Another voxel size."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Spacingd
from numpy.typing import ArrayLike

from common.io.settings import check_choice, check_number

SAMPLING = ("points", "average")


class ResampleSpacingd(Spacingd):
    """MONAI's Spacingd, which can average what a coarser grid leaves out.

    Spacingd interpolates between the voxels around each new point and has no filter: from 1 to 2 mm it takes every
    second voxel along each axis, and seven of eight voxels are never seen. That is what ``sampling`` ``points`` does,
    as in the released code of the papers. With ``average``, each new voxel of an image is the mean of the old ones over
    its own extent (a box filter before the interpolation); labels are still taken at the points. A finer or equal grid
    is the same with both. Missing modalities stay NaN.

    Args:
        keys: images and labels ``(C, X, Y, Z)``.
        pixdim: new voxel size in mm.
        mode: interpolation of each key; those that are ``bilinear`` are images.
        sampling: ``points`` or ``average``.

    Examples:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from common.transforms import ResampleSpacingd
        >>> image = torch.zeros(1, 5, 5, 5)
        >>> image[0, 1, 2, 2] = 8.0  # one bright voxel between two points of a grid of 2 mm
        >>> for sampling in ("points", "average"):
        ...     coarse = ResampleSpacingd("image", (2.0, 2.0, 2.0), "bilinear", sampling)
        ...     print(coarse({"image": MetaTensor(image)})["image"].sum().item())
        0.0
        1.0
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | float,
        mode: Sequence[str] | str = "bilinear",
        sampling: str = "points",
    ) -> None:
        for size in np.atleast_1d(pixdim).tolist():
            if check_number("spacing", size, 0) == 0:
                raise ValueError("spacing 0: expected voxel sizes in mm, above 0.")
        super().__init__(keys, pixdim=pixdim, mode=mode)
        self.sampling = check_choice("sampling", sampling, SAMPLING)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return the item with its images and labels resampled."""
        item = dict(data)
        if self.sampling == "average":
            for key, mode in self.key_iterator(item, self.mode):
                if mode == "bilinear":
                    item[key] = averaged(item[key], self.spacing_transform.pixdim)
        return super().__call__(item, lazy)


def averaged(image: MetaTensor, pixdim: ArrayLike) -> MetaTensor:
    """Return an image ``(C, X, Y, Z)`` whose voxels are means over boxes of ``pixdim`` mm around their centres.

    An axis whose voxels are not smaller than that stays as it is. Beyond the image, the values of its border continue.
    """
    voxels, sizes = image.as_subclass(torch.Tensor), image.pixdim.tolist()
    for axis, (old, new) in enumerate(zip(sizes, np.broadcast_to(pixdim, len(sizes)).tolist(), strict=True), start=1):
        ratio, extent = new / old, voxels.shape[axis]
        reach = math.ceil((ratio - 1) / 2)
        if ratio <= 1:
            continue
        padded = voxels.index_select(axis, torch.arange(-reach, extent + reach).clamp(0, extent - 1))
        voxels = torch.zeros_like(voxels)
        for offset in range(-reach, reach + 1):
            covered = min(offset + 0.5, ratio / 2) - max(offset - 0.5, -ratio / 2)
            voxels.add_(padded.narrow(axis, reach + offset, extent), alpha=covered / ratio)
    return MetaTensor(voxels).copy_meta_from(image)
