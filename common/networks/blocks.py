"""Layers and results that RFNet, mmFormer and M2FTrans share, in 2D and 3D.

All three have one convolutional encoder per modality, a decoder that fuses those present, and a decoder with one set of
weights for all modalities that is used in training only ("separate"). Source: Ding et al., ICCV 2021 (RFNet); Zhang et
al., MICCAI 2022 (mmFormer); Shi et al., JBHI 2024 (M2FTrans); in the variants released with PASSION (Shi et al., ACM MM
2024).

Fusing costs little if it is written as products. A 1x1x1 convolution over concatenated modalities is a sum over
modalities, so each one's part is computed once, with the encoding, for every subset that is decoded (`SplitPointwise`).
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common.io.settings import check_choice
from common.modalities import presence, to_host
from common.networks.kernels import Conv3d, instance_norm, upsampled, weighted_sum

SLOPE = 0.2
"""Of every LeakyReLU."""


class Decoded(NamedTuple):
    """What decoding one subset gives in training.

    Attributes:
        logits: ``(B, K, ...)`` at full resolution.
        deep: logits of the auxiliary heads, fine to coarse, each ``(B, K, ...)`` at its own resolution.
        features: ``(B, width, ...)``, the input of the last layer.
    """

    logits: torch.Tensor
    deep: list[torch.Tensor]
    features: torch.Tensor


class FusionOutput(NamedTuple):
    """What a network of the family returns in training.

    Attributes:
        fused: of the modalities present.
        separate: ``(P, K, ...)`` logits of the separate decoder, a row for each modality present of each sample, in the
            order of ``present.nonzero()``.
        present: bool ``(B, M)``, on the CPU.
    """

    fused: Decoded
    separate: torch.Tensor
    present: torch.Tensor


class FusionNetwork(nn.Module):
    """A network that encodes modalities by themselves and fuses those present.

    A subclass has ``encode(image, present)``, which returns a list of tensors, batch first, with those of the separate
    decoder at the beginning when training; ``decode(features, present)``, which returns logits, or a `Decoded` in
    training; a decoder ``separate``, and a last layer ``head``.
    """

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | FusionOutput:
        """Segment ``(B, M, ...)``, missing modalities being NaN.

        Args:
            image: normalised intensities.
            present: bool ``(B, M)``; modalities that may be used. None allows every one that has no NaN.

        Returns:
            Logits ``(B, K, ...)``; in training mode a `FusionOutput`.

        Raises:
            ValueError: a sample has no modality.
        """
        if torch.jit.is_tracing():
            return forward_for_export(self, image, present)
        present = available_modalities(image, present)
        features = self.encode(image, present)
        fused = self.decode(features, present)
        return FusionOutput(fused, self.decode_separately(features, present), present) if self.training else fused

    def decode_separately(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(P, K, ...)`` of each modality present by itself, see `FusionOutput`; in training mode."""
        return self.separate(features, present)

    def fused_features(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return those of the features that `decode` needs; it takes these as well as all of them."""
        return features


def require_window(network: nn.Module, image: torch.Tensor) -> None:
    """Refuse windows ``(B, M, ...)`` of another size than a network's ``crop``, for which its positions are learnt.

    Raises:
        ValueError: they are.
    """
    if tuple(image.shape[2:]) != network.crop:
        raise ValueError(
            f"A window of {list(image.shape[2:])} voxels: this {type(network).__name__} was built for "
            f"{list(network.crop)}, since its positions are learnt. Give windows of this size, or set the key `crop` "
            "and train again."
        )


def available_modalities(image: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return which modalities of ``(B, M, ...)`` are there and allowed by ``present``: bool ``(B, M)``, on the CPU.

    It decides which layers run, and so has to be known on the host. Reading it from a GPU waits for all work there, and
    so does each decision by a tensor on it; on the CPU it is read once for all decisions.

    Raises:
        ValueError: a sample has none; or a network is being traced that has no regard for it, see
            `forward_for_export`.
    """
    if present is None and torch.jit.is_tracing():
        raise ValueError(
            "This network cannot be exported: which of its layers run depends on the sequences that are there, and a "
            "trace always runs those that its example needed."
        )
    there = to_host(presence(image.as_subclass(torch.Tensor)))
    if present is not None:
        there = there & present.cpu()
    if not bool(there.any(dim=1).all()):
        raise ValueError("A sample has no modality present; at least one is needed.")
    return there


def forward_for_export(network: nn.Module, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Return a network's logits by operations that are the same for every subset, as an export records them once.

    Every modality is encoded, an absent one as zeros, and what comes of that is replaced by zeros. A sample without any
    modality, else an error, gives NaN.

    Args:
        network: with ``encode`` and ``decode``, whose features are ``(B, M, ...)``, zero where a modality is absent.
        image: ``(B, M, ...)``, missing modalities being NaN; in the example all are there.
        present: bool ``(B, M)``; modalities that may be used. None allows every one that has no NaN.
    """
    image = image.as_subclass(torch.Tensor)
    there = presence(image) if present is None else presence(image) & present
    with warnings.catch_warnings():
        # of decisions by values; these are the same for every image without NaN
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        features = network.encode(_fill_absent(image, there), torch.ones_like(there))
        logits = network.decode([_fill_absent(level, there) for level in features], there)
    return _fill_absent(logits, there.any(dim=1), torch.nan)


def _fill_absent(x: torch.Tensor, there: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """Return ``(B, ...)`` or ``(B, M, ...)`` with ``fill`` where ``there``, bool ``(B,)`` or ``(B, M)``, is False."""
    return torch.where(there.reshape(*there.shape, *[1] * (x.ndim - there.ndim)), x, fill)


def select_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the samples of ``(B, ...)`` where ``rows`` (bool ``(B,)``, on the CPU) is True."""
    # no selection of all: ONNX would lose their shape
    return x if bool(rows.all()) else x.index_select(0, indices(rows, x.device))


def indices(rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return where a bool tensor ``(N,)``, which lies on the CPU, is True, as indices on a device.

    A GPU that selects by a mask waits until the host knows the number of rows.
    """
    return rows.nonzero().flatten().to(device, non_blocking=True)


def check_crop(crop: Sequence[int], multiple: int, least: int) -> None:
    """Refuse a crop that a network cannot take.

    Raises:
        ValueError: it is not of 2 or 3 extents, each a multiple of ``multiple`` and at least ``least``.
    """
    if len(crop) not in (2, 3) or any(extent % multiple or extent < least for extent in crop):
        raise ValueError(
            f"crop {list(crop)}: expected 2 or 3 multiples of {multiple}, {least} or more, e.g. "
            f"{[max(least, round(extent / multiple) * multiple) for extent in crop]} (key `crop`)."
        )


def conv(dims: int, *args: int, **kwargs: int | str) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution of 2 or 3 spatial dimensions, its weights drawn as in the published code."""
    layer = (nn.Conv2d if dims == 2 else Conv3d)(*args, **kwargs)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def pointwise(weight: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return the 1x1x1 convolution of ``(B, C, ...)`` with a weight ``(C', C, 1, ...)`` as a matrix product."""
    # Not `matmul`: of a weight that gets a gradient it makes a transposed product, which is several times slower.
    factors = weight.flatten(1).expand(x.shape[0], -1, -1), x.flatten(2)
    y = torch.bmm(*factors) if bias is None else torch.baddbmm(bias[:, None], *factors)
    return y.reshape(x.shape[0], weight.shape[0], *x.shape[2:])


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Return LeakyReLU of the instance norm (without parameters) of ``(B, C, ...)``."""
    return F.leaky_relu(instance_norm(x), SLOPE, inplace=True)


class ConvBlock(nn.Module):
    """Convolution, instance norm and LeakyReLU in this order; or with ``pre``, the convolution last.

    Args:
        dims: spatial dimensions.
        channels: before and after.
        kernel: 1 or 3.
        stride: of the convolution.
        pre: norm and activation come first.
        padding_mode: ``reflect`` or ``zeros``.
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
    """A block whose 1x1x1 convolution runs over the concatenated channels of all modalities.

    Absent modalities count as zeros. Equal to a `ConvBlock` on the masked, concatenated features, but each modality's
    part can be computed before it is known which subset is fused.

    Args:
        dims: spatial dimensions.
        modalities: M.
        channels: of one modality, and of the result.
        pre: norm and activation come first.
    """

    def __init__(self, dims: int, modalities: int, channels: tuple[int, int], pre: bool = False) -> None:
        super().__init__()
        self.modalities, self.pre = modalities, pre
        self.conv = conv(dims, modalities * channels[0], channels[1], 1)

    def parts(self, features: Sequence[torch.Tensor | None], present: torch.Tensor) -> torch.Tensor:
        """Return what each modality adds to the sum, ``(B, M, C', ...)``, of a level as `Encoders` gives it."""
        weights = self.conv.weight.chunk(self.modalities, dim=1)
        parts = [
            None if x is None else pointwise(weight, normalised(x) if self.pre else x)
            for weight, x in zip(weights, features, strict=True)
        ]
        return scatter_modalities(parts, present)

    def fuse(self, parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the block's result ``(B, C', ...)``.

        Args:
            parts: ``(B, M, C', ...)``.
            weights: ``(B, M)``: 1 for the modalities present, 0 for the others.
        """
        y = weighted_sum(weights[:, None], parts)[:, 0]
        if self.pre or self.training:  # else of no effect, since the norm takes it away
            y = y + self.conv.bias.to(y).reshape(-1, *[1] * (y.ndim - 2))
        return y if self.pre else normalised(y)


class FeatureEncoder(nn.Module):
    """What brings each modality into a space where all can be aligned: one 3x3x3 convolution of each by itself.

    It stands in front of a network's own encoders. Source: Liu et al., MedMAP, section IV; the paper gives the numbers
    of channels only. That of ``shared`` (T*) has as many weights as a convolution C -> C for each of J modalities.

    Args:
        modalities: J.
        dims: spatial dimensions.
        kind: ``shared``, one set of weights for all, 1 -> J channels; ``separate`` (T), one for each, 1 -> 1; None: the
            image is left as it is.

    Attributes:
        channels: of each modality.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, modalities: int, dims: int, kind: str | None) -> None:
        super().__init__()
        if kind is not None:
            check_choice("feature_encoder", kind, ("shared", "separate"))
        self.kind, self.channels = kind, modalities if kind == "shared" else 1
        layer, count = nn.Conv2d if dims == 2 else nn.Conv3d, {"shared": 1, "separate": modalities, None: 0}[kind]
        self.layers = nn.ModuleList([layer(1, self.channels, 3, padding=1) for _ in range(count)])

    def forward(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Map ``(B, J, ...)`` to ``(B, J, C, ...)``, zero where a modality is absent (``present``: bool ``(B, J)``).

        An image that is left as it is keeps its NaN.
        """
        image = image.as_subclass(torch.Tensor)
        if self.kind is None:
            return image[:, :, None]
        parts = [
            self.layers[m % len(self.layers)](select_rows(image[:, m], rows)[:, None]) if bool(rows.any()) else None
            for m, rows in enumerate(present.T)
        ]
        return scatter_modalities(parts, present)


class Encoder(nn.Module):
    """The convolutional encoder of one modality: residual levels, each with half the resolution and twice the width.

    Args:
        dims: spatial dimensions.
        width: of the first level.
        levels: how many.
        pre: blocks with norm and activation first; the very first one is then a plain convolution.
        channels: of the input.
    """

    def __init__(self, dims: int, width: int, levels: int, pre: bool = False, channels: int = 1) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        before = channels
        for level in range(levels):
            after, stride = width * 2**level, 1 if level == 0 else 2
            if level == 0 and pre:
                first: nn.Module = conv(dims, before, after, 3, padding=1, padding_mode="reflect")
            else:
                first = ConvBlock(dims, (before, after), stride=stride, pre=pre)
            others = [ConvBlock(dims, (after, after), pre=pre) for _ in range(2)]
            self.levels.append(nn.ModuleList([first, *others]))
            before = after

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(B, channels, ...)`` to the features of each level, fine to coarse."""
        return residual_levels(self.levels, x)


def residual_levels(levels: Iterable[Iterable[nn.Module]], x: torch.Tensor) -> list[torch.Tensor]:
    """Return what each level makes of the one before, ``y + third(second(y))`` with ``y = first(x)`` of its layers."""
    features = []
    for first, second, third in levels:
        x = first(x)
        x = x + third(second(x))
        features.append(x)
    return features


class Encoders(nn.ModuleList):
    """An encoder for each modality, e.g. an `Encoder`: ``(n, C, ...)`` to a feature map for each of its ``levels``."""

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> list[list[torch.Tensor | None]]:
        """Encode the modalities that are there; nothing is computed for the others.

        Args:
            x: ``(B, M, C, ...)``, of a `FeatureEncoder`.
            present: bool ``(B, M)``.

        Returns:
            For each level, fine to coarse, the features of each modality ``(n, C, ...)``, n being the samples that have
            it; None where no sample has.

        Raises:
            ValueError: the image has other modalities than there are encoders.
        """
        if x.shape[1] != len(self):
            raise ValueError(f"An image of {x.shape[1]} channels: the network was made for {len(self)} modalities.")
        encoded = [
            encoder(select_rows(x[:, modality], rows)) if bool(rows.any()) else [None] * len(encoder.levels)
            for modality, (encoder, rows) in enumerate(zip(self, present.T, strict=True))
        ]
        return [list(level) for level in zip(*encoded, strict=True)]


def scatter_modalities(parts: Sequence[torch.Tensor | None], present: torch.Tensor) -> torch.Tensor:
    """Return one tensor ``(B, M, ...)`` of the parts of each modality ``(n, ...)``, zero where it is absent.

    Args:
        parts: for each modality, of the samples that have it; None where no sample has.
        present: bool ``(B, M)``, on the CPU.
    """
    some = next(part for part in parts if part is not None)
    if bool(present.all()):
        return torch.stack(list(parts), dim=1)
    full = some.new_zeros(*present.shape, *some.shape[1:])
    for modality, part in enumerate(parts):
        if part is not None:
            full[:, modality].index_copy_(0, indices(present[:, modality], full.device), part)
    return full


def gather_rows(table: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the entries of ``(B, M, ...)`` where ``present`` (bool ``(B, M)``, on the CPU) is True, ``(P, ...)``."""
    return select_rows(table.flatten(0, 1), present.flatten())


def scatter_rows(rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the rows ``(P, ...)`` of the modalities present as a table ``(B, M, ...)`` with zeros for the others.

    The opposite of `gather_rows`.
    """
    if bool(present.all()):
        return rows.unflatten(0, present.shape)
    table = rows.new_zeros(present.numel(), *rows.shape[1:])
    return table.index_copy(0, indices(present.flatten(), rows.device), rows).unflatten(0, present.shape)


class UpLevel(nn.Module):
    """One level of a decoder: halve the channels of the upsampled tensor, merge it with a skip, and refine.

    Args:
        dims: spatial dimensions.
        width: channels of the level; those of the level below are twice as many.
        pre: see `ConvBlock`.
    """

    def __init__(self, dims: int, width: int, pre: bool = False) -> None:
        super().__init__()
        self.up = ConvBlock(dims, (2 * width, width), pre=pre)
        self.merge = ConvBlock(dims, (2 * width, width), pre=pre)
        self.out = ConvBlock(dims, (width, width), kernel=1, pre=pre)

    def raised(self, below: torch.Tensor) -> torch.Tensor:
        """Map the level below, ``(B, 2 * width, ...)``, to ``(B, width, 2 ...)``."""
        return self.up(upsampled(below))

    def merged(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Map two tensors ``(B, width, ...)`` to one; their order matters."""
        return self.out(self.merge(torch.cat([one, other], dim=1)))


class SeparateDecoder(nn.Module):
    """The decoder of single modalities, one set of weights for all of them; used in training only.

    Args:
        dims: spatial dimensions.
        classes: K.
        width: of the finest level.
        levels: of the encoder.
        pre: see `ConvBlock`.
    """

    def __init__(self, dims: int, classes: int, width: int, levels: int, pre: bool = False) -> None:
        super().__init__()
        self.levels = nn.ModuleList([UpLevel(dims, width * 2**level, pre) for level in range(levels - 1)])
        self.head = conv(dims, width, classes, 1)

    def forward(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(P, K, ...)``, a row for each modality present of each sample.

        One modality after the other: all in one batch would need tensors too large for an allocator to keep.

        Args:
            features: levels ``(B, M, C, ...)``, fine to coarse; what follows them is not read.
            present: bool ``(B, M)``.
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
