"""U-HVED and U-HeMIS: an encoder for each modality, and decoders of statistics over the modalities present.

Source: Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI
2019, with the widths of its released checkpoints; U-HeMIS is that release's 3D variant of Havaei et al., "HeMIS:
Hetero-Modal Image Segmentation", MICCAI 2016. U-HVED decodes a sample of a product of Gaussians, from which it can
complete images, too; U-HeMIS decodes mean and variance of the features.

There are two choices of our own: in evaluation U-HVED segments from the mean, where the release draws a sample; and
decoders upsample with aligned corners, which the paper and code leave open.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from common.networks.blocks import Encoders, conv
from common.networks.checks import check_crop
from common.networks.kernels import upsampled, weighted_sum
from common.networks.subsets import available_modalities, scatter_modalities

LEVELS = 4
STRIDE = 2 ** (LEVELS - 1)  # size of a voxel of the coarsest level, in voxels of the finest level, along each axis
SLOPE = 0.02  # negative slope of every LeakyReLU, as in NiftyNet, on which the release is built
NORM_FLOOR = 1e-6
VARIANCE_FLOOR = 1e-7  # constant added to a variance before a division or a logarithm
LOG_VARIANCE_LIMIT = 50.0


class Completed(NamedTuple):
    """Output of decoding one subset with U-HVED in training mode.

    Attributes:
        logits: ``(B, K, X, Y, Z)``.
        reconstructions: ``(B, M, X, Y, Z)``, images of all modalities, including absent ones.
    """

    logits: torch.Tensor
    reconstructions: torch.Tensor


class HVEDOutput(NamedTuple):
    """Output of U-HVED in training mode.

    Attributes:
        completed: output of decoding the chosen modalities.
        posteriors: for each level, fine to coarse, mean and log-variance of each modality alone, ``(B, M, 2 C, ...)``;
            zero where it is absent.
        image: ``(B, M, X, Y, Z)``, with NaN in absent modalities.
        present: bool ``(B, M)``, the modalities that the samples have.
        chosen: bool ``(B, M)``, the modalities that were fused.
    """

    completed: Completed
    posteriors: list[torch.Tensor]
    image: torch.Tensor
    present: torch.Tensor
    chosen: torch.Tensor


class HeteroModal(nn.Module):
    """Base of U-HVED and U-HeMIS. A subclass defines ``decode(features, present)``; the width is an even number.

    With ``halved`` the last convolution of a level outputs half as many channels as the one before.
    """

    decode: Callable[..., Any]

    def __init__(self, modalities: int, width: int, halved: bool) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width {width}: expected an even number, since {type(self).__name__} halves it.")
        self.encoders = Encoders(Encoder(width, halved) for _ in range(modalities))

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | HVEDOutput:
        """Return logits ``(B, K, X, Y, Z)`` of images ``(B, M, X, Y, Z)``; X, Y, Z are multiples of 8, 16 or more."""
        present = available_modalities(image, present)
        return self.decode(self.encode(image, present), present)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return the features of each level, fine to coarse, ``(B, M, C, ...)``, zero and not computed where absent."""
        check_crop(image.shape[2:], multiple=STRIDE, least=2 * STRIDE)
        present = available_modalities(image, present)
        levels = self.encoders(image.as_subclass(torch.Tensor)[:, :, None], present)
        return [scatter_modalities(level, present) for level in levels]


class UHVED(HeteroModal):
    """A variational encoder-decoder whose latents at each level follow the product of the modalities' Gaussians.

    Half of the width are means, half log-variances.

    Examples:
        >>> import torch
        >>> from common.networks.hved import UHVED
        >>> network = UHVED(modalities=2, classes=3, width=4)
        >>> image = torch.randn(1, 2, 16, 16, 16)
        >>> image[:, 1] = torch.nan  # the second modality is missing
        >>> completed = network(image).completed  # in training mode, both modalities are reconstructed
        >>> completed.reconstructions.shape, bool(completed.reconstructions.isnan().any())
        (torch.Size([1, 2, 16, 16, 16]), False)
    """

    def __init__(self, modalities: int = 4, classes: int = 4, width: int = 8) -> None:
        super().__init__(modalities, width, halved=False)
        channels = [width // 2 * 2**level for level in range(LEVELS)]
        self.segmentation = Decoder(width, channels, classes)
        self.completion = nn.ModuleList([Decoder(width, channels, 1) for _ in range(modalities)])

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | HVEDOutput:
        """Segment as `HeteroModal` does; in training mode, return an `HVEDOutput` of all modalities present."""
        if not self.training:
            return super().forward(image, present)
        present = available_modalities(image, present)
        features = self.encode(image, present)
        return HVEDOutput(self.decode(features, present), features, image.as_subclass(torch.Tensor), present, present)

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> Any:
        """Return logits ``(B, K, X, Y, Z)`` of the latents' means; in training, a `Completed` of a sample of them."""
        latents = []
        for level in features:
            mean, log_variance = (part[:, 0] for part in product_of_gaussians(level, present[:, None]))
            sampled = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
            latents.append(sampled)
        logits = self.segmentation(latents)
        if not self.training:
            return logits
        return Completed(logits, torch.cat([decoder(latents) for decoder in self.completion], dim=1))


class UHeMIS(HeteroModal):
    """An encoder-decoder on mean and variance of the modalities' features at each level.

    Examples:
        >>> import torch
        >>> from common.networks.hved import UHeMIS
        >>> image = torch.randn(1, 2, 16, 16, 16)
        >>> image[:, 1] = torch.nan  # the second modality is missing
        >>> UHeMIS(modalities=2, classes=3, width=4)(image).shape  # logits, in training mode, too
        torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(self, modalities: int = 4, classes: int = 4, width: int = 8) -> None:
        super().__init__(modalities, width, halved=True)
        self.segmentation = Decoder(width, [width * 2**level for level in range(LEVELS)], classes)

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, K, X, Y, Z)`` of the modalities that ``present`` (bool ``(B, M)``) allows."""
        return self.segmentation([mean_and_variance(level, present) for level in features])


class Block(nn.Sequential):
    """Instance norm, LeakyReLU and a 3x3x3 convolution, twice; ``channels`` are before, between and after these."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        for before, after in pairwise(channels):
            self.append(nn.InstanceNorm3d(before, eps=NORM_FLOOR, affine=True))
            self.append(nn.LeakyReLU(SLOPE, inplace=True))
            self.append(conv(3, before, after, 3, padding=1, bias=False))


class Encoder(nn.Module):
    """The encoder of one modality: four blocks with max-pooling between them; for ``halved`` see `HeteroModal`."""

    def __init__(self, width: int, halved: bool) -> None:
        super().__init__()
        self.entry = nn.Sequential(conv(3, 1, width, 1, bias=False), nn.LeakyReLU(SLOPE, inplace=True))
        self.pool = nn.MaxPool3d(2)
        self.levels, before = nn.ModuleList(), width
        for nominal in (width * 2**level for level in range(LEVELS)):
            after = nominal // 2 if halved else nominal
            self.levels.append(Block((before, nominal, after)))
            before = after

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, 1, X, Y, Z)`` to the features of each level, fine to coarse."""
        features = [self.levels[0](self.entry(x))]
        for block in self.levels[1:]:
            features.append(block(self.pool(features[-1])))
        return features


class Decoder(nn.Module):
    """A decoder from the latents of the four levels, with ``channels`` fine to coarse, to ``outputs`` channels."""

    def __init__(self, width: int, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        nominal = [width * 2**level for level in range(LEVELS - 1)]
        below = [*(n // 2 for n in nominal[1:]), channels[-1]]
        sizes = zip(channels[:-1], below, nominal, strict=True)
        self.levels = nn.ModuleList(Block((c + b, n, n // 2)) for c, b, n in sizes)
        self.head = conv(3, width // 2, outputs, 1, bias=False)

    def forward(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the levels ``(B, C, ...)``, fine to coarse, to ``(B, outputs, X, Y, Z)``."""
        *skips, y = latents
        for block, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            y = block(torch.cat([upsampled(y), skip], dim=1))
        return self.head(y)


def product_of_gaussians(features: torch.Tensor, subsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the product of a standard normal and the Gaussians of each subset's modalities.

    The result is mean and log-variance, each ``(B, S, C, ...)``, float32. Features are ``(B, M, 2 C, ...)``, means and
    log-variances along the channels, the latter clamped to [-50, 50]; subsets are bool ``(B, S, M)``.
    """
    mean, log_variance = features.float().chunk(2, dim=2)
    with torch.autocast(features.device.type, enabled=False):  # precisions reach 1e7
        precision = 1 / (log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).exp() + VARIANCE_FLOOR)
        total = 1 + weighted_sum(subsets, precision)
        return weighted_sum(subsets, mean * precision) / total, (1 / total + VARIANCE_FLOOR).log()


def mean_and_variance(features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return mean and population variance over the modalities present, ``(B, 2 C, ...)``, float32.

    Features are ``(B, M, C, ...)``; the variance of a single modality is exactly 0.
    """
    features = features.float()
    weights = (present / present.sum(dim=1, keepdim=True))[:, None]
    with torch.autocast(features.device.type, enabled=False):  # squares overflow half precision
        mean = weighted_sum(weights, features)
        variance = weighted_sum(weights, (features - mean).square())
    return torch.cat([mean[:, 0], variance[:, 0]], dim=1)
