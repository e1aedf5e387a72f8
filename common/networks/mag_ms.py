"""MAG-MS: a UNETR with one encoder per modality, whose decoder takes the mean of their features.

Source: He et al., "Modality-Agnostic Learning for Medical Image Segmentation Using Multi-modality Self-distillation",
2023, section 2.1; UNETR is Hatamizadeh et al., WACV 2022, in MONAI's blocks. The paper does not say which layers belong
to an encoder and where the modalities are averaged. Here the encoder comprises all layers of one modality, including
the blocks that make the skip connections, and the modalities are averaged at each of the decoder's five input levels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from monai.networks.nets import ViT
from torch import nn

from common.modalities import require_modality
from common.networks.blocks import pointwise
from common.networks.checks import check_crop, require_window
from common.networks.kernels import weighted_sum
from common.networks.subsets import available_modalities, forward_for_export, scatter_modalities, select_rows

PATCH = 16  # size of a token in voxels along each axis
SKIP_LAYERS = (3, 6, 9)
"""Layers of the ViT, of twelve counted from 0, from which the skip connections are made, fine to coarse."""
BLOCK: dict[str, Any] = {"kernel_size": 3, "norm_name": "instance", "res_block": True}
"""Settings of every convolutional block, as in the published UNETR."""


class MagMSDecoded(NamedTuple):
    """Output of decoding one subset in training mode.

    Attributes:
        logits: ``(B, K, ...)`` at full resolution.
        bottleneck: ``(B, hidden, ...)``, the coarsest input level of the decoder.
    """

    logits: torch.Tensor
    bottleneck: torch.Tensor


class MAGMS(nn.Module):
    """A UNETR encoder for each modality, the mean over the modalities present at each level, and one decoder.

    The crop has 2 or 3 multiples of 16.

    Examples:
        >>> import torch
        >>> from common.networks.mag_ms import MAGMS
        >>> network = MAGMS(modalities=2, classes=3, crop=(16, 16), width=2, hidden=12, mlp_dim=24, heads=2).eval()
        >>> image = torch.randn(1, 2, 16, 16)
        >>> image[:, 1] = torch.nan  # the second modality is missing: its features are zero, and no part of the mean
        >>> [bool(level[:, 1].any()) for level in network.encode(image)]
        [False, False, False, False, False]
        >>> network(image).shape
        torch.Size([1, 3, 16, 16])
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
    ) -> None:
        super().__init__()
        check_sizes(crop, hidden, heads)
        self.crop, dims = tuple(crop), len(crop)
        widths = [width, 2 * width, 4 * width, 8 * width]
        layer = nn.Conv2d if dims == 2 else nn.Conv3d
        self.encoders = nn.ModuleList([Encoder(crop, width, hidden, mlp_dim, heads) for _ in range(modalities)])
        self.projections = nn.ModuleList(
            nn.ModuleList(layer(channels, channels, 1) for channels in (*widths, hidden)) for _ in range(modalities)
        )
        self.levels = nn.ModuleList(
            UnetrUpBlock(dims, below, channels, upsample_kernel_size=2, **BLOCK)
            for channels, below in zip(widths, (*widths[1:], hidden), strict=True)
        )
        self.head = layer(width, classes, 1)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Encode each modality of ``(B, M, ...)`` that is present, including its point-wise convolutions.

        The result is the levels s1, s2, s3, s4 and z, fine to coarse, each ``(B, M, C, ...)``, zero where a modality is
        absent.
        """
        require_window(self, image)
        if image.shape[1] != len(self.encoders):
            raise ValueError(
                f"An image with {image.shape[1]} channels; expected {len(self.encoders)}, the network's modalities."
            )
        present, image = available_modalities(image, present), image.as_subclass(torch.Tensor)
        encoded = [self._encoded(m, select_rows(image[:, m], rows)[:, None]) for m, rows in enumerate(present.T)]
        return [scatter_modalities(level, present) for level in zip(*encoded, strict=True)]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> Any:
        """Return logits ``(B, K, ...)`` of the mean of the modalities present; in training mode, a `MagMSDecoded`."""
        require_modality(present)
        shares = (present / present.sum(dim=1, keepdim=True))[:, None].to(features[0].device, non_blocking=True)
        *skips, bottleneck = (weighted_sum(shares, level)[:, 0] for level in features)
        y = bottleneck
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            y = level(y, skip)
        logits = self.head(y)
        return MagMSDecoded(logits, bottleneck) if self.training else logits

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | MagMSDecoded:
        """Return logits ``(B, K, ...)`` of images ``(B, M, ...)``, NaN where missing; in training, a `MagMSDecoded`."""
        if torch.jit.is_tracing():
            return forward_for_export(self.encode, self.decode, image, present)
        present = available_modalities(image, present)
        return self.decode(self.encode(image, present), present)

    def _encoded(self, modality: int, x: torch.Tensor) -> list[torch.Tensor | None]:
        layers: Any = self.projections[modality]
        if not len(x):
            return [None] * len(layers)
        levels = self.encoders[modality](x)
        return [pointwise(layer.weight, level, layer.bias) for layer, level in zip(layers, levels, strict=True)]


class Encoder(nn.Module):
    """UNETR's encoder for one modality: a ViT, and blocks that make skip connections from the image and ViT layers."""

    def __init__(self, crop: Sequence[int], width: int, hidden: int, mlp_dim: int, heads: int) -> None:
        super().__init__()
        dims, self.grid = len(crop), tuple(extent // PATCH for extent in crop)
        self.vit = ViT(1, tuple(crop), (PATCH,) * dims, hidden, mlp_dim, num_heads=heads, spatial_dims=dims)
        self.finest = UnetrBasicBlock(dims, 1, width, stride=1, **BLOCK)
        up = {"stride": 1, "upsample_kernel_size": 2, "conv_block": True, **BLOCK}
        self.others = nn.ModuleList(
            UnetrPrUpBlock(dims, hidden, width * 2**level, num_layer=3 - level, **up) for level in (1, 2, 3)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, 1, ...)`` to s1, s2, s3, s4 and z, fine to coarse."""
        last, layers = self.vit(x)
        skips = [block(self._map(layers[layer])) for block, layer in zip(self.others, SKIP_LAYERS, strict=True)]
        return [self.finest(x), *skips, self._map(last)]

    def _map(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self.grid)


def check_sizes(crop: Sequence[int], hidden: int, heads: int) -> None:
    """Refuse a crop that is not 2 or 3 multiples of 16, and heads that do not divide a token's channels."""
    check_crop(crop, multiple=PATCH, least=PATCH)
    if hidden % heads:
        raise ValueError(f"{heads} heads: expected a divisor of a token's {hidden} channels (key `heads`).")
