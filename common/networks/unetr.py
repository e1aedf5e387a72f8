"""Networks that MAG-MS is compared to: one UNETR with filled-in missing modalities, and one UNETR per subset.

Source: He et al., 2023, section 3, Tables 1 to 3; UNETR (Hatamizadeh et al., WACV 2022) is MONAI's.
"""

from collections.abc import Sequence

import torch
from monai.networks.nets import UNETR
from torch import nn

from common.io.settings import check_choice
from common.networks.checks import require_window
from common.networks.dedicated import Dedicated, Subset, channel_subsets
from common.networks.mag_ms import check_sizes
from common.networks.subsets import available_modalities

FILLS = ("zero", "mean")


class FilledUNETR(nn.Module):
    """A UNETR for all modalities, in which missing ones are filled in; the crop has 2 or 3 multiples of 16.

    They are filled with ``zero``, or with the ``mean`` at each voxel over the modalities present. The paper says
    "means", but a modality's own mean is 0 after normalisation, so that would be the same as filling with zeros.

    Examples:
        >>> import torch
        >>> from common.modalities import presence
        >>> from common.networks.unetr import FilledUNETR
        >>> sizes = {"crop": (16, 16), "width": 2, "hidden": 12, "mlp_dim": 24, "heads": 2}
        >>> network = FilledUNETR(modalities=3, classes=2, fill="mean", **sizes)
        >>> image = torch.tensor([1.0, 3.0, torch.nan]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
        >>> network.filled(image, presence(image))[0, :, 0, 0]
        tensor([1., 3., 2.])
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
        """Last layer of the network."""
        return self.unetr.out.conv.conv

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``, with NaN in missing modalities."""
        require_window(self, image)
        return self.unetr(self.filled(image.as_subclass(torch.Tensor), available_modalities(image, present)))

    def filled(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the image ``(B, M, ...)`` with the modalities that ``present`` does not allow filled in."""
        there = present.to(image.device, non_blocking=True).reshape(*present.shape, *[1] * (image.ndim - 2))
        image = torch.where(there, image, 0)
        return image if self.fill == "zero" else torch.where(there, image, image.sum(1, True) / there.sum(1, True))


class DedicatedUNETR(nn.Module):
    """A UNETR for each of the ``subsets``, as channels; None: all ``2^M - 1``. The crop has 2 or 3 multiples of 16.

    Examples:
        >>> import torch
        >>> from common.networks.unetr import DedicatedUNETR
        >>> sizes = {"crop": (16, 16), "width": 2, "hidden": 12, "mlp_dim": 24, "heads": 2}
        >>> network = DedicatedUNETR(modalities=2, classes=3, subsets=[(0, 1)], **sizes)  # for complete subjects alone
        >>> image = torch.randn(1, 2, 16, 16)
        >>> network(image).shape
        torch.Size([1, 3, 16, 16])
        >>> image[:, 0] = torch.nan
        >>> network(image)
        Traceback (most recent call last):
            ...
        ValueError: No network was trained for the modalities at channels [1]; expected one of [(0, 1)]. ...
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
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``, with NaN in missing modalities."""
        require_window(self, image)
        return self.dedicated(image.as_subclass(torch.Tensor), available_modalities(image, present))
