"""Convolutional layers that several networks share, in 2D and 3D.

Most are those of RFNet, mmFormer and M2FTrans, whose released code has them in common.

Fusion is cheap if it is written as products. A 1x1x1 convolution over concatenated modalities is a sum over modalities,
so each modality's part is computed once, during encoding, for all subsets that are decoded (`SplitPointwise`).
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.kernels import Conv3d, instance_norm, upsampled, weighted_sum
from common.networks.subsets import gather_rows, scatter_modalities, select_rows

SLOPE = 0.2  # negative slope of every LeakyReLU
Layer = TypeVar("Layer", bound=nn.Module)


def module_list(layers: Iterable[Layer]) -> Sequence[Layer]:
    """Return an `nn.ModuleList`, whose type says what its layers are."""
    return cast(Sequence[Layer], nn.ModuleList(layers))


def conv(dims: int, *args: Any, **kwargs: Any) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution with 2 or 3 spatial dimensions, initialised as in the published code."""
    layer = (nn.Conv2d if dims == 2 else Conv3d)(*args, **kwargs)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def pointwise(weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Apply a 1x1x1 convolution with a weight ``(C', C, 1, ...)`` to ``(B, C, ...)``, as a matrix product."""
    # Not `matmul`, which for a weight that requires a gradient computes a transposed product, several times slower.
    factors = weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2)
    y = torch.bmm(*factors) if bias is None else torch.baddbmm(bias[:, None], *factors)
    return y.reshape(x.shape[0], weight.shape[0], *x.shape[2:])


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Apply an instance norm without parameters, then LeakyReLU, to ``(B, C, ...)``."""
    return F.leaky_relu(instance_norm(x), SLOPE, inplace=True)


class ConvBlock(nn.Module):
    """Convolution, instance norm and LeakyReLU in this order, or with ``pre``, the convolution last.

    ``channels`` are those of input and output, the kernel size is 1 or 3, and the padding ``reflect`` or ``zeros``.
    """

    def __init__(
        self,
        dims: int,
        channels: tuple[int, int],
        kernel: int = 3,
        stride: int = 1,
        pre: bool = False,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__()
        self.pre, self.kernel = pre, kernel
        self.conv = conv(dims, *channels, kernel, stride=stride, padding=kernel // 2, padding_mode=padding_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to ``(B, C', ...)``."""
        if self.pre:
            return self._convolved(normalised(x))
        return normalised(self._convolved(x))

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        return pointwise(self.conv.weight, x, self.conv.bias) if self.kernel == 1 else self.conv(x)


class SplitPointwise(nn.Module):
    """A `ConvBlock` whose 1x1x1 convolution runs over the concatenated channels of all modalities.

    Absent modalities count as zeros. The result equals that of a `ConvBlock` on the masked, concatenated features, but
    each modality's part can be computed before the subset to fuse is known. ``channels`` are those of one modality and
    of the result.
    """

    def __init__(self, dims: int, modalities: int, channels: tuple[int, int], pre: bool = False) -> None:
        super().__init__()
        self.modalities, self.pre = modalities, pre
        self.conv = conv(dims, modalities * channels[0], channels[1], 1)

    def parts(self, features: Sequence[torch.Tensor | None], present: torch.Tensor) -> torch.Tensor:
        """Return each modality's addend ``(B, M, C', ...)``, from one level of `Encoders`' output."""
        weights = self.conv.weight.chunk(self.modalities, dim=1)
        parts = [
            None if x is None else pointwise(weight, normalised(x) if self.pre else x)
            for weight, x in zip(weights, features, strict=True)
        ]
        return scatter_modalities(parts, present)

    def fuse(self, parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the block's output ``(B, C', ...)``; weights ``(B, M)`` are 1 for the modalities present, else 0."""
        y = weighted_sum(weights[:, None], parts)[:, 0]
        if self.pre or self.training:  # otherwise the norm cancels the bias
            y = y + self.conv.get_parameter("bias").to(y).reshape(-1, *[1] * (y.ndim - 2))
        return y if self.pre else normalised(y)


class Encoder(nn.Module):
    """The convolutional encoder of one modality: residual levels, each with half the resolution and twice the width.

    With ``pre``, norm and activation come first in each block, and the very first block is a plain convolution;
    ``channels`` is the number of input channels.
    """

    def __init__(self, dims: int, width: int, levels: int, pre: bool = False, channels: int = 1) -> None:
        super().__init__()
        stages: list[nn.ModuleList] = []
        before = channels
        for level in range(levels):
            after, stride = width * 2**level, 1 if level == 0 else 2
            if level == 0 and pre:
                first: nn.Module = conv(dims, before, after, 3, padding=1, padding_mode="reflect")
            else:
                first = ConvBlock(dims, (before, after), stride=stride, pre=pre)
            others = [ConvBlock(dims, (after, after), pre=pre) for _ in range(2)]
            stages.append(nn.ModuleList([first, *others]))
            before = after
        self.levels = module_list(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, channels, ...)`` to the features of each level, fine to coarse."""
        return residual_levels(self.levels, x)


def residual_levels(levels: Iterable[Iterable[nn.Module]], x: torch.Tensor) -> list[torch.Tensor]:
    """Return each level's output ``y + third(second(y))``, where ``y = first(x)`` and x is the level before."""
    features = []
    for first, second, third in levels:
        x = first(x)
        x = x + third(second(x))
        features.append(x)
    return features


class Encoders(nn.ModuleList):
    """One encoder per modality, e.g. an `Encoder`, that maps ``(n, C, ...)`` to one feature map per level."""

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> list[list[torch.Tensor | None]]:
        """Encode the modalities of ``(B, M, C, ...)`` that ``present`` (bool ``(B, M)``) has, and no others.

        For each level, fine to coarse, the result has the features of each modality, ``(n, C, ...)`` with a row for
        each of the n samples that have it; None if no sample has it.
        """
        if x.shape[1] != len(self):
            raise ValueError(f"An image with {x.shape[1]} channels; expected {len(self)}, the network's modalities.")
        encoded = [
            encoder(select_rows(x[:, modality], rows)) if bool(rows.any()) else []
            for modality, (encoder, rows) in enumerate(zip(self, present.T, strict=True))
        ]
        return [list(level) for level in zip_longest(*encoded)]


class UpLevel(nn.Module):
    """One level of a decoder: halve the channels of the upsampled tensor, merge it with a skip connection, refine it.

    The level below has twice the ``width``; for ``pre`` see `ConvBlock`.
    """

    def __init__(self, dims: int, width: int, pre: bool = False) -> None:
        super().__init__()
        self.up = ConvBlock(dims, (2 * width, width), pre=pre)
        self.merge = ConvBlock(dims, (2 * width, width), pre=pre)
        self.out = ConvBlock(dims, (width, width), kernel=1, pre=pre)

    def raised(self, below: torch.Tensor) -> torch.Tensor:
        """Upsample the level below, ``(B, 2 * width, ...)``, to ``(B, width, 2 ...)``."""
        return self.up(upsampled(below))

    def merged(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Merge two tensors ``(B, width, ...)`` into one; their order matters."""
        return self.out(self.merge(torch.cat([one, other], dim=1)))


class SeparateDecoder(nn.Module):
    """The decoder of single modalities, with one set of weights for all of them; used only in training.

    ``levels`` is that of the encoder; for ``pre`` see `ConvBlock`.
    """

    def __init__(self, dims: int, classes: int, width: int, levels: int, pre: bool = False) -> None:
        super().__init__()
        self.levels = module_list([UpLevel(dims, width * 2**level, pre) for level in range(levels - 1)])
        self.head = conv(dims, width, classes, 1)

    def forward(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(P, K, ...)``, one row for each present modality (bool ``(B, M)``) of each sample.

        The modalities are decoded one after the other, since one batch of all would need very large tensors. Levels are
        ``(B, M, C, ...)``, fine to coarse; tensors after them are ignored.
        """
        levels = features[: len(self.levels) + 1]
        decoded = [
            self._decoded([select_rows(level[:, modality], rows) for level in levels]) if bool(rows.any()) else None
            for modality, rows in enumerate(present.T)
        ]
        return gather_rows(scatter_modalities(decoded, present), present)

    def _decoded(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        *skips, y = levels
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            y = level.merged(level.raised(y), skip)
        return pointwise(self.head.weight, y, self.head.bias)
