"""M2FTrans: learned fusion tokens gather information from the modalities present and weight every voxel of each.

Source: Shi et al., "M2FTrans: Modality-Masked Fusion Transformer for Incomplete Multi-Modality Brain Tumor
Segmentation", JBHI 2024, in the variant released with PASSION (auxiliary heads give logits at their own resolution;
modalities absent in training are not encoded; outputs equal those of the original's first version).

Few operations depend on the subset. A modality's tokens attend only to each other, so they pass through the transformer
once, during encoding; the fusion tokens follow for each subset. A voxel's weight scales all its channels, so a 1x1x1
convolution is applied first and weighted afterwards. There is one difference from that release: in training, all
subsets that are decoded from one encoding share the dropout of the modalities' tokens.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.attention import TransformerLayer
from common.networks.blocks import (
    ConvBlock,
    Encoder,
    Encoders,
    SeparateDecoder,
    SplitPointwise,
    UpLevel,
    conv,
    module_list,
    normalised,
    pointwise,
)
from common.networks.checks import check_crop, require_window
from common.networks.feature_encoder import FeatureEncoder
from common.networks.fusion import Decoded, FusionNetwork
from common.networks.subsets import available_modalities, scatter_modalities

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)  # size of a token in voxels along each axis
FINER = 3  # number of levels, from the finest, that are fused by convolutions; the others are fused by cross attention
DEPTH, CROSS_DEPTH = 3, 2  # number of layers of the transformer, and of a cross attention
DEEP_HIDDEN = 16  # number of hidden channels of an auxiliary head, independent of the width


class M2FTrans(FusionNetwork):
    """Convolutional encoders, a transformer with masked attention, and a decoder that fuses weighted features.

    The crop has 2 or 3 multiples of 16; a token has ``16 * width`` channels. Dropout is in the transformer and the
    cross attention.

    Examples:
        >>> import torch
        >>> from common.networks import M2FTrans
        >>> network = M2FTrans(modalities=3, classes=2, width=4, crop=(32, 32), mlp_dim=32, heads=2)
        >>> image = torch.randn(2, 3, 32, 32)
        >>> image[0, 1] = torch.nan  # the first of two subjects lacks the second of three modalities
        >>> output = network(image)  # in training mode
        >>> output.fused.logits.shape, output.separate.shape  # separate: a row for each of the five modalities present
        (torch.Size([2, 2, 32, 32]), torch.Size([5, 2, 32, 32]))
    """

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        width: int = 8,
        crop: Sequence[int] = (80, 80, 80),
        mlp_dim: int = 4096,
        heads: int = 8,
        dropout: float = 0.1,
        feature_encoder: str | None = None,
    ) -> None:
        super().__init__()
        check_crop(crop, multiple=STRIDE, least=2 * STRIDE)
        self.crop, self.grid = tuple(crop), tuple(extent // STRIDE for extent in crop)
        dims, widths = len(crop), [width * 2**level for level in range(LEVELS)]
        tokens, coarsest = torch.Size(self.grid).numel(), widths[-1]
        self.feature_encoder = FeatureEncoder(modalities, dims, feature_encoder)
        channels = self.feature_encoder.channels
        self.encoders = Encoders(Encoder(dims, width, LEVELS, channels=channels) for _ in range(modalities))
        self.transformer = MaskedTransformer(modalities, tokens, coarsest, heads, mlp_dim, dropout)
        self.fusions = module_list([WeightedFusion(dims, modalities, w) for w in widths[:FINER]])
        self.crosses = nn.ModuleList([CrossBlock(dims, modalities, w, dropout) for w in widths[FINER:]])
        self.levels = module_list([UpLevel(dims, w) for w in widths[:-1]])
        self.bottom = nn.Sequential(
            ConvBlock(dims, (2 * coarsest, coarsest)), ConvBlock(dims, (coarsest, coarsest), kernel=1)
        )
        self.deep_heads = nn.ModuleList([DeepHead(dims, w, classes) for w in widths])
        self.head = conv(dims, width, classes, 1)
        self.separate = SeparateDecoder(dims, classes, width, LEVELS)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Encode each modality that is present, and let its tokens attend to each other.

        In training mode the result starts with the features of each of the five levels ``(B, M, C, ...)``, fine to
        coarse, for the separate decoder. Then, for `decode`: the parts of the three finer levels' fusion
        ``(B, M, C, ...)``; the features of the fourth level; those of the fifth after the transformer; and the keys
        and values that the fusion tokens attend to, ``(B, M, layers, 2, heads, N, d)``.
        """
        require_window(self, image)
        present = available_modalities(image, present)
        levels = self.encoders(self.feature_encoder(image, present), present)
        features = [scatter_modalities(level, present) for level in levels] if self.training else []
        parts = [fusion.entry.parts(level, present) for fusion, level in zip(self.fusions, levels[:FINER], strict=True)]
        own = [(None, None) if x is None else self.transformer.attend(m, x) for m, x in enumerate(levels[-1])]
        attended = [scatter_modalities(one, present) for one in zip(*own, strict=True)]
        return [*features, *parts, scatter_modalities(levels[FINER], present), *attended]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor | Decoded:
        """Return logits ``(B, K, ...)``; in training mode, a `Decoded`, whose deep logits are of all five levels."""
        *features, memory = features[-LEVELS - 1 :]
        present = present.to(memory.device, non_blocking=True)
        tokens, weights = self.transformer.fuse(memory, present)
        weights = weights.unflatten(2, self.grid)
        query = tokens.transpose(1, 2).unflatten(2, self.grid)
        deep: list[torch.Tensor] = []
        for level in reversed(range(LEVELS)):
            if self.training:
                deep.insert(0, self.deep_heads[level](query))
            if level < FINER:
                fused = self.fusions[level](features[level], weights)
            else:
                fused = self.crosses[level - FINER](features[level] * weights[:, :, None], query, present)
            if level < LEVELS - 1:
                y = self.levels[level].merged(fused, query)
            else:
                y = self.bottom(torch.cat([fused, query], dim=1))
            if level > 0:
                query = self.levels[level - 1].raised(y)
                weights = F.interpolate(weights, scale_factor=2.0, mode="nearest")
        logits = pointwise(self.head.weight, y, self.head.bias)
        return Decoded(logits, deep, y) if self.training else logits

    def fused_features(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features that `decode` needs, without the levels for the separate decoder."""
        return features[-LEVELS - 1 :]


class MaskedTransformer(nn.Module):
    """A transformer with masked attention on the tokens of all modalities and on fusion tokens.

    A modality's tokens attend to each other. Fusion tokens attend to each other and to those of the modalities present.
    There are ``tokens`` (N) of each modality and as many fusion tokens, with ``dim`` (E) channels.
    """

    def __init__(self, modalities: int, tokens: int, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(modalities + 1, tokens, dim))  # the last row is for the fusion tokens
        self.fusion = nn.Parameter(torch.randn(1, tokens, dim))
        self.layers = module_list([TransformerLayer(dim, heads, mlp_dim, dropout) for _ in range(DEPTH)])

    def attend(self, modality: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass one modality's features ``(n, E, ...)`` through all layers.

        Return them, and the keys and values in each layer, ``(n, layers, 2, heads, N, d)``.
        """
        tokens, memory = x.flatten(2).transpose(1, 2) + self.positions[modality], []
        for layer in self.layers:
            query, key, value = layer.attention.split(layer.norm1(tokens))
            memory.append(torch.stack([key, value], dim=1))
            tokens = layer.refined(tokens + layer.attention.attend(query, key, value))
        return tokens.transpose(1, 2).reshape(x.shape), torch.stack(memory, dim=1)

    def fuse(self, memory: torch.Tensor, present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass the fusion tokens through all layers; return them, ``(B, N, E)``, and weights ``(B, M, N)``.

        A weight is the attention that a modality's token got in the first layer, summed over heads and fusion tokens;
        it is 0 for an absent modality and has no gradient. The ``memory`` has the modalities' keys and values, ``(B, M,
        layers, 2, heads, N, d)``.
        """
        tokens = (self.fusion + self.positions[-1]).expand(present.shape[0], -1, -1)
        count = tokens.shape[1]
        hidden = F.pad(~present, (0, 1)).repeat_interleave(count, dim=1)[:, None, None]  # fusion tokens are not hidden
        for number, (layer, of_modalities) in enumerate(zip(self.layers, memory.unbind(2), strict=True)):
            query, *own = layer.attention.split(layer.norm1(tokens))
            key, value = torch.cat([of_modalities.permute(2, 0, 3, 1, 4, 5).flatten(3, 4), torch.stack(own)], dim=3)
            scores = torch.matmul(query, key.transpose(2, 3)) * query.shape[3] ** -0.5
            attention = layer.attention.weight_dropout(scores.masked_fill(hidden, -torch.inf).softmax(dim=3))
            if number == 0:
                weights = attention.detach()[..., :-count].sum(dim=(1, 2)).unflatten(1, (-1, count))
            tokens = layer.refined(tokens + layer.attention.join(torch.matmul(attention, value)))
        return tokens, weights


class WeightedFusion(nn.Module):
    """Convolutions on the concatenated, weighted features of all modalities."""

    def __init__(self, dims: int, modalities: int, width: int) -> None:
        super().__init__()
        self.entry = SplitPointwise(dims, modalities, (width, width))
        self.layers = nn.Sequential(ConvBlock(dims, (width, width)), ConvBlock(dims, (width, width), kernel=1))

    def forward(self, parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return fused features ``(B, C, ...)`` of the entry layer's parts ``(B, M, C, ...)``.

        Each voxel has a weight, ``(B, M, ...)``, 0 where a modality is absent.
        """
        y = self.entry.conv.get_parameter("bias").to(parts.dtype).reshape(-1, *[1] * (parts.ndim - 3))
        for weight, part in zip(weights.to(parts.dtype).unbind(1), parts.unbind(1), strict=True):
            y = torch.addcmul(y, weight[:, None], part)  # avoids a tensor with the channels of all modalities
        return self.layers(normalised(y))


class CrossBlock(nn.Module):
    """Cross attention from the decoder's channels to the channels of the modalities' weighted features."""

    def __init__(self, dims: int, modalities: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.ModuleList([ChannelAttention(dims, modalities, width, dropout) for _ in range(CROSS_DEPTH)])
        self.query_refined = nn.ModuleList([Refinement(dims, width) for _ in range(CROSS_DEPTH)])
        self.features_refined = Refinement(dims, width)  # after the first layer; the last one's features are not used

    def forward(self, features: torch.Tensor, query: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return ``(B, C, ...)``, fused from weighted features ``(B, M, C, ...)``; the query is ``(B, C, ...)``."""
        query = self.query_refined[0](query + self.attention[0](query, features, present))
        features = self.features_refined(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return self.query_refined[1](query + self.attention[1](query, features, present))


class ChannelAttention(nn.Module):
    """Attention whose tokens are channels (maps of all voxels), projected by modality; absent modalities are masked."""

    def __init__(self, dims: int, modalities: int, width: int, dropout: float) -> None:
        super().__init__()
        self.query, self.out = ChannelMap(dims, width), ChannelMap(dims, width)
        self.keys = nn.ModuleList([ChannelMap(dims, width) for _ in range(modalities)])
        self.values = nn.ModuleList([ChannelMap(dims, width) for _ in range(modalities)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: torch.Tensor, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the attention output of ``(B, C, ...)`` over features ``(B, M, C, ...)`` of the modalities present."""
        key, value = (
            torch.cat([one(x) for one, x in zip(maps, features.unbind(1), strict=True)], dim=1).flatten(2)
            for maps in (self.keys, self.values)
        )
        mask = present.repeat_interleave(query.shape[1], dim=1)[:, None]
        attended = F.scaled_dot_product_attention(self.query(query).flatten(2), key, value, attn_mask=mask)
        return self.dropout(self.out(attended.reshape(query.shape)))


class ChannelMap(nn.Module):
    """A 1x1x1, a grouped 3x3x3 and a 1x1x1 convolution, each with a layer norm over channels, with GELU in between.

    The hidden channels are ``expansion * width``, in ``width`` groups; with 1 the grouped convolution is depth-wise.
    """

    def __init__(self, dims: int, width: int, expansion: int = 1) -> None:
        super().__init__()
        hidden = expansion * width
        self.conv1, self.norm1 = conv(dims, width, hidden, 1), nn.LayerNorm(hidden, eps=1e-6)
        self.conv2 = conv(dims, hidden, hidden, 3, padding=1, groups=width)  # zero padding, unlike all other layers
        self.norm2 = nn.LayerNorm(hidden, eps=1e-6)
        self.conv3, self.norm3 = conv(dims, hidden, width, 1), nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to the same shape."""
        x = F.gelu(_over_channels(self.norm1, pointwise(self.conv1.weight, x, self.conv1.bias)))
        x = F.gelu(_over_channels(self.norm2, self.conv2(x)))
        return _over_channels(self.norm3, pointwise(self.conv3.weight, x, self.conv3.bias))


class Refinement(nn.Module):
    """A residual `ChannelMap` with four times as many hidden channels, followed by GELU."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.map = ChannelMap(dims, width, expansion=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to the same shape."""
        return F.gelu(x + self.map(x))


class DeepHead(nn.Module):
    """An auxiliary head that segments at one level of the decoder; used only in training."""

    def __init__(self, dims: int, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = ConvBlock(dims, (width, DEEP_HIDDEN), kernel=1)
        self.head = conv(dims, DEEP_HIDDEN, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to logits ``(B, K, ...)``."""
        return pointwise(self.head.weight, self.hidden(x), self.head.bias)


def _over_channels(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return norm(x.movedim(1, -1)).movedim(-1, 1)
