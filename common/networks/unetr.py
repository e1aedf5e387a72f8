"""What MAG-MS is compared to: one UNETR that is given something for missing modalities, and one UNETR per subset.

Source: He et al., 2023, section 3, Tables 1 to 3; UNETR (Hatamizadeh et al., WACV 2022) is MONAI's.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets import UNETR
from torch import nn

from common.io.settings import check_choice
from common.networks.blocks import available_modalities, require_window
from common.networks.dedicated import Dedicated, Subset, channel_subsets
from common.networks.mag_ms import check_sizes

FILLS = ("zero", "mean")


class FilledUNETR(nn.Module):
    """A UNETR of all modalities, in which something stands in for those that are missing.

    Args:
        modalities: M.
        classes: K, background included.
        crop: size of every window, in voxels, 2 or 3 multiples of 16.
        width: channels at full resolution.
        hidden: of a token.
        mlp_dim: hidden width of the transformer's perceptrons.
        heads: of the transformer; divide ``hidden``.
        fill: ``zero``; or ``mean``, at each voxel the mean of the modalities that are there. The paper says "means";
            a modality's own mean is 0 once it is normalised, which would be the zero filling again.

    Raises:
        ValueError: an unknown fill, or sizes that it cannot take; in use, a window of another size, or a sample without
            any modality.
    """

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        crop: Sequence[int] = (96, 96, 96),
        width: int = 16,
        hidden: int = 768,
        mlp_dim: int = 3072,
        heads: int = 12,
        fill: str = "zero",
    ) -> None:
        super().__init__()
        check_sizes(crop, hidden, heads)
        self.crop, self.fill = tuple(crop), check_choice("fill", fill, FILLS)
        self.unetr = UNETR(modalities, classes, self.crop, width, hidden, mlp_dim, heads, spatial_dims=len(crop))

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.unetr.out.conv.conv

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``, missing modalities being NaN.

        Args:
            image: normalised intensities.
            present: bool ``(B, M)``; modalities that may be used. None allows every one that has no NaN.
        """
        require_window(self, image)
        return self.unetr(self.filled(image.as_subclass(torch.Tensor), available_modalities(image, present)))

    def filled(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the image ``(B, M, ...)`` with something for the modalities that ``present`` does not allow."""
        there = present.to(image.device, non_blocking=True).reshape(*present.shape, *[1] * (image.ndim - 2))
        image = torch.where(there, image, 0)
        return image if self.fill == "zero" else torch.where(there, image, image.sum(1, True) / there.sum(1, True))


class DedicatedUNETR(nn.Module):
    """A UNETR for each subset of the modalities.

    Args:
        modalities: M.
        classes: K, background included.
        crop: size of every window, in voxels, 2 or 3 multiples of 16.
        width: channels at full resolution.
        hidden: of a token.
        mlp_dim: hidden width of the transformers' perceptrons.
        heads: of the transformers; divide ``hidden``.
        subsets: those to have a network for, as channels; None: all ``2^M - 1``.

    Raises:
        ValueError: sizes that it cannot take; in use, a window of another size, a sample without any modality, or with
            a subset that there is no network for.
    """

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        crop: Sequence[int] = (96, 96, 96),
        width: int = 16,
        hidden: int = 768,
        mlp_dim: int = 3072,
        heads: int = 12,
        subsets: Sequence[Subset] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(crop, hidden, heads)
        self.crop = tuple(crop)
        self.dedicated = Dedicated(
            channel_subsets(modalities) if subsets is None else subsets,
            lambda channels: UNETR(channels, classes, self.crop, width, hidden, mlp_dim, heads, spatial_dims=len(crop)),
        )

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``, missing modalities being NaN.

        Args:
            image: normalised intensities.
            present: bool ``(B, M)``; modalities that may be used. None allows every one that has no NaN.
        """
        require_window(self, image)
        return self.dedicated(image.as_subclass(torch.Tensor), available_modalities(image, present))
