"""RobustSeg: gated fusion of contents that are disentangled from each modality's appearance.

Source: Chen et al., "Robust Multimodal Brain Tumor Segmentation via Feature Disentanglement and Gated Fusion", MICCAI
2019; sizes as released. In training only, each modality's image is reconstructed from the fused content and the
modality's appearance.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.gated import STRIDE, GatedNetwork, conv, l2_penalty, linear
from common.networks.subsets import available_modalities, gather_rows, scatter_modalities, select_rows

APPEARANCE = 8  # length of an appearance vector, independent of the width


class RobustSegOutput(NamedTuple):
    """Output in training mode; P counts the modalities of all samples, in the order of ``there.nonzero()``.

    Attributes:
        logits: ``(B, K, X, Y, Z)``, computed from the modalities to be used.
        image: ``(P, X, Y, Z)``, every modality that a sample has, used or not.
        reconstruction: ``(P, X, Y, Z)``, reconstructed images.
        scale: ``(P, 8 * width)``, scale in the decoders' residual blocks (the paper's mu).
        shift: ``(P, 8 * width)``, shift in the decoders' residual blocks (the paper's sigma).
        there: bool ``(B, M)``, modalities that the sample has (whether or not they are used).
        l2_penalty: scalar, half the sum of squared kernels; see `RobustSeg.l2_penalty`.
    """

    logits: torch.Tensor
    image: torch.Tensor
    reconstruction: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor
    there: torch.Tensor
    l2_penalty: torch.Tensor


class AppearanceEncoder(nn.Sequential):
    """Map the image of one modality ``(B, 1, X, Y, Z)`` to its appearance ``(B, 8)``."""

    def __init__(self, width: int) -> None:
        widths = [2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = [conv(1, widths[0], 7), nn.ReLU(inplace=True)]
        for before, after in pairwise(widths):
            layers += [conv(before, after, 4, stride=2), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), linear(widths[-1], APPEARANCE))


class AdaptiveResidual(nn.Module):
    """Two convolutions, each followed by an instance norm with a given scale and shift, and a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3), conv(channels, channels, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to the same shape; scale and shift are ``(B, C, 1, 1, 1)``."""
        y = F.relu(F.instance_norm(self.conv1(x)) * scale + shift)
        return x + F.instance_norm(self.conv2(y)) * scale + shift


class ImageDecoder(nn.Module):
    """Turn a content, with ``8 * width`` channels, and an appearance into the ``width`` features of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        content = STRIDE * width
        self.hidden = nn.Sequential(linear(APPEARANCE, content), nn.ReLU(), linear(content, content), nn.ReLU())
        self.scale, self.shift = (linear(content, content) for _ in range(2))
        self.residuals = nn.ModuleList([AdaptiveResidual(content) for _ in range(4)])
        self.ups = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2),
                conv(before, before // 2, 5),
                nn.GroupNorm(1, before // 2, eps=1e-12),  # a layer norm over channels and space
                nn.ReLU(inplace=True),
            )
            for before in (8 * width, 4 * width, 2 * width)
        )

    def forward(
        self, content: torch.Tensor, appearance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features ``(B, width, X, Y, Z)``, and the scale and shift ``(B, 8 * width)`` that were applied.

        The content is ``(B, 8 * width, X / 8, Y / 8, Z / 8)``, the appearance ``(B, 8)``.
        """
        hidden = self.hidden(appearance)
        scale, shift = self.scale(hidden), self.shift(hidden)
        for residual in self.residuals:
            content = residual(content, scale[:, :, None, None, None], shift[:, :, None, None, None])
        for up in self.ups:
            content = up(content)
        return content, scale, shift


class RobustSeg(GatedNetwork):
    """A `GatedNetwork` with an appearance encoder and an image decoder per modality, which are used in training.

    Examples:
        >>> import torch
        >>> from common.networks.robustseg import RobustSeg
        >>> network = RobustSeg(modalities=2, classes=3, width=2)
        >>> image = torch.randn(2, 2, 16, 16, 16)
        >>> image[0, 1] = torch.nan  # the first of two subjects lacks the second modality
        >>> output = network(image)  # in training mode
        >>> output.logits.shape, output.reconstruction.shape  # reconstructed are the three modalities that exist
        (torch.Size([2, 3, 16, 16, 16]), torch.Size([3, 16, 16, 16]))
    """

    def __init__(self, modalities: int = 4, classes: int = 4, width: int = 16) -> None:
        super().__init__(modalities, classes, width)
        self.appearances = nn.ModuleList([AppearanceEncoder(width) for _ in range(modalities)])
        self.image_decoders = nn.ModuleList([ImageDecoder(width) for _ in range(modalities)])
        self.image_head = conv(width, 1, 7)  # shared by all modalities

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | RobustSegOutput:
        """Return logits ``(B, K, X, Y, Z)``; in training mode, a `RobustSegOutput`.

        The latter has a reconstruction of every modality without NaN, of which only those in ``present`` give their
        contents.
        """
        there, present = available_modalities(image, None), available_modalities(image, present)
        fused = self.fuse(self.encode(image, present), present)
        logits = self.decoder(fused).logits
        if not self.training:
            return logits
        image = image.as_subclass(torch.Tensor)
        parts: list[tuple[torch.Tensor | None, ...]] = []
        for m, rows in enumerate(there.T):
            made: tuple[torch.Tensor | None, ...] = (None,) * 3
            if bool(rows.any()):
                appearance = self.appearances[m](select_rows(image[:, m], rows)[:, None])
                features, *applied = self.image_decoders[m](select_rows(fused[-1], rows), appearance)
                made = self.image_head(features)[:, 0], *applied
            parts.append(made)
        of_modalities = (scatter_modalities(part, there) for part in zip(*parts, strict=True))
        reconstruction, scale, shift = (gather_rows(part, there) for part in of_modalities)
        return RobustSegOutput(
            logits, gather_rows(image, there), reconstruction, scale, shift, there, self.l2_penalty()
        )

    def l2_penalty(self) -> torch.Tensor:
        """Return half the sum of squared kernels, except those of the fusions and of ``image_head``.

        The release selects kernels by names of variables, and the name of ``image_head`` does not match its pattern.
        """
        return l2_penalty([self.encoders, self.decoder, self.appearances, self.image_decoders])
