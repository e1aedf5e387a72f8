"""Encoders of single modalities whose features are gated and fused at every level: RobustSeg and PMKL's teacher.

Source: Chen et al., "Robust Multimodal Brain Tumor Segmentation via Feature Disentanglement and Gated Fusion", MICCAI
2019; Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021 (PMKL). Sizes,
padding, norms and initial weights are those of the released code, which both share.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.blocks import SLOPE, Encoders, module_list, residual_levels
from common.networks.checks import check_crop
from common.networks.feature_encoder import FeatureEncoder
from common.networks.kernels import Conv3d
from common.networks.subsets import available_modalities, scatter_modalities

LEVELS = 4
STRIDE = 2 ** (LEVELS - 1)  # size of a voxel of the coarsest level, in voxels of the finest level, along each axis
STD = 0.01  # standard deviation of initial weights, drawn from a normal distribution truncated at twice that


class GatedOutput(NamedTuple):
    """Output of a `Decoder`.

    Attributes:
        logits: ``(B, K, X, Y, Z)``.
        features: ``(B, width, X, Y, Z)``, the input of the last layer.
    """

    logits: torch.Tensor
    features: torch.Tensor


def conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    """Return a convolution with reflection padding (one voxel less for even kernels), initialised as in the release."""
    padding = (kernel - 1) // 2
    layer = Conv3d(before, after, kernel, stride, padding, padding_mode="zeros" if kernel == 1 else "reflect")
    _draw(layer)
    return layer


def linear(before: int, after: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer, initialised as in the release."""
    layer = nn.Linear(before, after, bias)
    _draw(layer)
    return layer


def conv_norm_act(before: int, after: int, kernel: int = 3, stride: int = 1, activation: bool = True) -> nn.Sequential:
    """Return a convolution, an instance norm with parameters and, if ``activation``, LeakyReLU."""
    layers = [conv(before, after, kernel, stride), nn.InstanceNorm3d(after, eps=1e-6, affine=True)]
    return nn.Sequential(*layers, *([nn.LeakyReLU(SLOPE, inplace=True)] if activation else []))


def l2_penalty(modules: Iterable[nn.Module]) -> torch.Tensor:
    """Return ``sum ||W||^2 / 2`` over the kernels of convolutions and linear layers, without biases and norms."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, (nn.Conv3d, nn.Linear))]
    return torch.stack([layer.weight.square().sum() for layer in layers]).sum() / 2


class ContentEncoder(nn.Module):
    """An encoder of four residual levels, each with half the resolution and twice the width of the previous one."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        levels: list[nn.ModuleList] = []
        for level in range(LEVELS):
            after = width * 2**level
            first = conv_norm_act(channels, after, stride=1 if level == 0 else 2)
            levels.append(nn.ModuleList([first, conv_norm_act(after, after), conv_norm_act(after, after)]))
            channels = after
        self.levels = module_list(levels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, channels, X, Y, Z)``, multiples of 8 from 16 on, to the features of each level, fine to coarse."""
        check_crop(x.shape[2:], multiple=STRIDE, least=2 * STRIDE)
        return residual_levels(self.levels, x)


class GatedFusion(nn.Module):
    """Weight each voxel of each modality by a gate in (0, 1) computed from all modalities; mix what results."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.gate = conv_norm_act(modalities * width, modalities, activation=False)
        self.mix = conv_norm_act(modalities * width, width, kernel=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, M, width, ...)``, zero where a modality is absent, to ``(B, width, ...)``."""
        gates = self.gate(x.flatten(1, 2)).sigmoid()
        return self.mix((x * gates[:, :, None]).flatten(1, 2))


class DecoderLevel(nn.Module):
    """Upsample the level below (nearest neighbour) and halve its channels, merge a skip connection, and refine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.merge = conv_norm_act(2 * width, width), conv_norm_act(2 * width, width)
        self.out = conv_norm_act(width, width, kernel=1)

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 2 * width, ...)`` and a skip ``(B, width, 2 ...)`` to the skip's shape."""
        raised = self.up(F.interpolate(below, scale_factor=2))
        return self.out(self.merge(torch.cat([raised, skip], dim=1)))


class Decoder(nn.Module):
    """A decoder of three levels and a last layer."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList([DecoderLevel(width * 2**level) for level in range(LEVELS - 1)])
        self.head = conv(width, classes, 1)

    def forward(self, features: Sequence[torch.Tensor]) -> GatedOutput:
        """Decode the features of each level, fine to coarse."""
        *skips, y = features
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            y = level(y, skip)
        return GatedOutput(self.head(y), y)


class GatedNetwork(nn.Module):
    """An encoder for each modality, gated fusion at four levels, and one decoder; 6.7 M parameters as published.

    The features of an absent modality are set to zero before the gate, so no bias or norm of its encoder has an effect.
    """

    def __init__(
        self, modalities: int = 4, classes: int = 4, width: int = 16, feature_encoder: str | None = None
    ) -> None:
        super().__init__()
        self.feature_encoder = FeatureEncoder(modalities, 3, feature_encoder)
        channels = self.feature_encoder.channels
        self.encoders = Encoders(ContentEncoder(channels, width) for _ in range(modalities))
        self.fusions = nn.ModuleList([GatedFusion(modalities, width * 2**level) for level in range(LEVELS)])
        self.decoder = Decoder(classes, width)

    @property
    def head(self) -> nn.Conv3d:
        """Last layer of the network."""
        return self.decoder.head

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | tuple:
        """Return logits ``(B, K, X, Y, Z)`` of images ``(B, M, X, Y, Z)``; in training mode, a `GatedOutput`."""
        present = available_modalities(image, present)
        return self.decode(self.encode(image, present), present)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return the features of each level, fine to coarse, ``(B, M, C, ...)``; zero where a modality is absent."""
        present = available_modalities(image, present)
        encoded = self.encoders(self.feature_encoder(image, present), present)
        return [scatter_modalities(level, present) for level in encoded]

    def fuse(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> list[torch.Tensor]:
        """Return the fused features ``(B, C, ...)`` of each level; ``present``, bool ``(B, M)``, selects modalities."""
        mask = present[:, :, None, None, None, None].to(features[0].device, non_blocking=True)
        return [fusion(level * mask) for fusion, level in zip(self.fusions, features, strict=True)]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor | GatedOutput:
        """Fuse and decode the output of `encode`; the result is that of `forward`."""
        output = self.decoder(self.fuse(features, present))
        return output if self.training else output.logits


def _draw(layer: nn.Conv3d | nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=STD, a=-2 * STD, b=2 * STD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
