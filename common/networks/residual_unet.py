"""The 3D U-Net with pre-activation residual blocks and additive skips that M3AE uses.

Source: Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities",
AAAI 2023, "Implementation" and supplement; the same backbone as ACN (Wang et al., MICCAI 2021). Where the paper says
"3D bilinear" upsampling, the released code uses nearest neighbours; we follow the code, to which the published
weights belong.
"""

from typing import NamedTuple, Union

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.blocks import module_list
from common.networks.kernels import Conv3d, GroupNorm


class SegmentationOutput(NamedTuple):
    """Output of a deeply supervised network in training mode.

    Attributes:
        logits: ``(B, C, X, Y, Z)`` at full resolution.
        deep: logits of the 1/4 and 1/2 levels ``(B, C, X, Y, Z)``, upsampled, or at their own size.
        bottleneck: ``(B, 8 * width, X/8, Y/8, Z/8)``.
    """

    logits: torch.Tensor
    deep: list[torch.Tensor]
    bottleneck: torch.Tensor


class ResidualBlock(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))`` with 3x3x3 convolutions that keep the number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(8, channels)
        self.conv1 = Conv3d(channels, channels, 3, padding=1)
        self.norm2 = GroupNorm(8, channels)
        self.conv2 = Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, X, Y, Z)`` to the same shape."""
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class UpBlock(nn.Module):
    """Halve the channels (1x1x1), double the size, add the skip connection, refine."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.reduce = Conv3d(channels, channels // 2, 1)
        self.block = ResidualBlock(channels // 2)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, X, Y, Z)`` and its skip to ``(B, channels / 2, 2X, 2Y, 2Z)``."""
        return self.block(self.upsample(self.reduce(x)) + skip)


class ResidualUNet(nn.Module):
    """A U-Net with three downsamplings, four bottleneck residual blocks, additive skips; 4.7 M parameters at width 16.

    The width is a multiple of 8 (8 groups per norm), and doubled at each level. ``deep_supervision`` adds 1x1x1 heads
    on the 1/4 and 1/2 levels, which are used only in training; ``upsample_deep`` brings their logits to full size.

    Examples:
        >>> import torch
        >>> from common.networks import ResidualUNet
        >>> network = ResidualUNet(in_channels=2, out_channels=3, width=8)
        >>> output = network(torch.randn(1, 2, 16, 16, 16))  # in training mode; it has to be without NaN
        >>> output.logits.shape, len(output.deep), output.bottleneck.shape
        (torch.Size([1, 3, 16, 16, 16]), 2, torch.Size([1, 64, 2, 2, 2]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 16,
        deep_supervision: bool = True,
        upsample_deep: bool = True,
    ) -> None:
        super().__init__()
        if width % 8:
            raise ValueError(f"width {width}: expected a multiple of 8, since every norm has 8 groups.")
        self.encoder = module_list(
            [
                nn.Sequential(Conv3d(in_channels, width, 3, padding=1), ResidualBlock(width)),
                self._down(width, blocks=2),
                self._down(2 * width, blocks=2),
                self._down(4 * width, blocks=4),
            ]
        )
        self.up4, self.up3, self.up2 = (UpBlock(channels * width) for channels in (8, 4, 2))
        self.head = Conv3d(width, out_channels, 1)
        deep_widths = (4 * width, 2 * width) if deep_supervision else ()
        self.upsample_deep = upsample_deep
        self.deep_heads = nn.ModuleList([Conv3d(channels, out_channels, 1) for channels in deep_widths])

    @staticmethod
    def _down(channels: int, blocks: int) -> nn.Sequential:
        conv = Conv3d(channels, 2 * channels, 3, stride=2, padding=1)
        return nn.Sequential(conv, *[ResidualBlock(2 * channels) for _ in range(blocks)])

    def forward(self, x: torch.Tensor) -> Union[torch.Tensor, SegmentationOutput]:  # noqa: UP007 (TorchScript)
        """Return logits ``(B, C, X, Y, Z)``; in training mode, a `SegmentationOutput`."""
        features = self.encode(x)[0]
        bottleneck = features[3]
        levels = self.decode(bottleneck, features)
        logits = self.head(levels[2])
        if not self.training:
            return logits
        deep: list[torch.Tensor] = []
        for index, head in enumerate(self.deep_heads):
            logits_there = head(levels[index])
            if self.upsample_deep:
                logits_there = F.interpolate(logits_there, size=x.shape[2:], mode="trilinear", align_corners=True)
            deep.append(logits_there)
        return SegmentationOutput(logits, deep, bottleneck)

    def encode(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the features of the four levels, fine to coarse, and each level's first convolution's output.

        Both are ``(B, 2^l * width, X / 2^l, ...)`` at level l; the last features are the bottleneck. X, Y and Z of the
        input ``(B, in_channels, X, Y, Z)`` are multiples of 8.
        """
        if x.shape[2] % 8 + x.shape[3] % 8 + x.shape[4] % 8 > 0:
            raise ValueError(f"spatial size {x.shape[2:]}: expected multiples of 8 (three downsamplings by 2).")
        features: list[torch.Tensor] = []
        entries: list[torch.Tensor] = []
        level = x
        for stage in self.encoder:
            for index, layer in enumerate(stage):
                level = layer(level)
                if index == 0:
                    entries.append(level)
            features.append(level)
        return features, entries

    def decode(self, bottleneck: torch.Tensor, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the decoder's levels at 1/4, 1/2 and full resolution; the last one is the input of the head.

        The bottleneck is ``(B, 8 * width, X/8, Y/8, Z/8)``; of the features returned by `encode`, the three finer
        levels are the skip connections.
        """
        quarter = self.up4(bottleneck, features[2])
        half = self.up3(quarter, features[1])
        return [quarter, half, self.up2(half, features[0])]
