"""mmFormer: transformers within and across the modalities, between one encoder per modality and a fusing decoder.

Source: Zhang et al., "mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of Brain Tumor
Segmentation", MICCAI 2022, in the variant released with PASSION (auxiliary heads give logits at their own resolution;
modalities absent in training are not encoded; outputs equal those of the original).

One error of that release is corrected: for T2 alone, in PASSION's self-distillation, it used the tokens of T1.
"""

from collections.abc import Sequence
from typing import Any

import torch
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
    pointwise,
)
from common.networks.checks import check_crop, require_window
from common.networks.feature_encoder import FeatureEncoder
from common.networks.fusion import Decoded, FusionNetwork
from common.networks.subsets import available_modalities, scatter_modalities

LEVELS = 5
STRIDE = 2 ** (LEVELS - 1)  # size of a token in voxels along each axis
AUTHORS_ORDER = (3, 1, 0, 2)
"""Positions of FLAIR, T1c, T1, T2 in our order of modalities. The token sequence keeps the authors' order, since tokens
that are adjacent in it are mixed (`MMFormer.correlated`); so published weights depend on this order."""


class MMFormer(FusionNetwork):
    """A CNN encoder and a transformer per modality, a transformer across modalities, and a decoder that fuses them.

    The crop has 2 or 3 multiples of 16.

    Examples:
        >>> import torch
        >>> from common.networks import MMFormer
        >>> sizes = {"width": 4, "crop": (32, 32), "embed_dim": 16, "mlp_dim": 32, "heads": 2}
        >>> network = MMFormer(modalities=2, classes=3, **sizes).eval()
        >>> image = torch.randn(1, 2, 32, 32)
        >>> logits = network(image, present=torch.tensor([[True, False]]))  # only the first modality is used
        >>> image[:, 1] = torch.nan
        >>> torch.allclose(logits, network(image))
        True
    """

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        width: int = 8,
        crop: Sequence[int] = (80, 80, 80),
        embed_dim: int = 512,
        mlp_dim: int = 4096,
        heads: int = 8,
        dropout: float = 0.1,
        feature_encoder: str | None = None,
    ) -> None:
        super().__init__()
        check_crop(crop, multiple=STRIDE, least=2 * STRIDE)
        self.crop, self.grid = tuple(crop), tuple(extent // STRIDE for extent in crop)
        self.order = AUTHORS_ORDER if modalities == len(AUTHORS_ORDER) else tuple(range(modalities))
        dims, widths = len(crop), [width * 2**level for level in range(LEVELS)]
        tokens, coarsest = torch.Size(self.grid).numel(), widths[-1]
        self.feature_encoder = FeatureEncoder(modalities, dims, feature_encoder)
        channels = self.feature_encoder.channels
        self.encoders = Encoders(Encoder(dims, width, LEVELS, pre=True, channels=channels) for _ in range(modalities))
        self.embeddings = module_list([conv(dims, coarsest, embed_dim, 1) for _ in range(modalities)])
        self.positions = nn.ParameterList([torch.zeros(1, tokens, embed_dim) for _ in range(modalities)])
        self.intra = nn.ModuleList([TransformerLayer(embed_dim, heads, mlp_dim, dropout) for _ in range(modalities)])
        self.inter = TransformerLayer(embed_dim, heads, mlp_dim, dropout)
        self.projection = conv(dims, modalities * embed_dim, modalities * coarsest, 1)
        entries: list[Any] = [SplitPointwise(dims, modalities, (w, w), pre=True) for w in widths[:-1]]
        self.entries = module_list([*entries, ConvBlock(dims, (modalities * coarsest, coarsest), kernel=1, pre=True)])
        self.refinements = nn.ModuleList(
            nn.Sequential(
                ConvBlock(dims, (w, w), pre=True, padding_mode="zeros"), ConvBlock(dims, (w, w), kernel=1, pre=True)
            )
            for w in widths
        )
        self.levels = module_list([UpLevel(dims, w, pre=True) for w in widths[:-1]])
        self.deep_heads = module_list([conv(dims, w, classes, 1) for w in widths[1:]])
        self.head = conv(dims, width, classes, 1)
        self.separate = SeparateDecoder(dims, classes, width, LEVELS, pre=True)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Encode each modality that is present.

        In training mode the result starts with the features of each of the five levels ``(B, M, C, ...)``, fine to
        coarse, for the separate decoder. Then follow the parts of the four finer levels' fusion ``(B, M, C, ...)``, and
        the tokens of each modality ``(B, M, N, D)``.
        """
        require_window(self, image)
        present = available_modalities(image, present)
        levels = self.encoders(self.feature_encoder(image, present), present)
        features = [scatter_modalities(level, present) for level in levels] if self.training else []
        parts = [entry.parts(level, present) for entry, level in zip(self.entries[:-1], levels[:-1], strict=True)]
        tokens = [None if x is None else self._tokens(m, x) for m, x in enumerate(levels[-1])]
        return [*features, *parts, scatter_modalities(tokens, present)]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor | Decoded:
        """Return logits ``(B, K, ...)``; in training mode, a `Decoded` with deep logits of the four coarser levels."""
        *parts, tokens = features[-LEVELS:]
        present = present.to(tokens.device, non_blocking=True)
        y = self.refinements[-1](self.entries[-1](self.correlated(tokens, present)))
        deep: list[torch.Tensor] = []
        for level in reversed(range(LEVELS - 1)):
            if self.training:
                head = self.deep_heads[level]
                deep.insert(0, pointwise(head.weight, y, head.bias))
            raised = self.levels[level].raised(y)
            fused = self.refinements[level](self.entries[level].fuse(parts[level], present))
            y = self.levels[level].merged(fused, raised)
        logits = pointwise(self.head.weight, y, self.head.bias)
        return Decoded(logits, deep, y) if self.training else logits

    def fused_features(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features that `decode` needs, without the levels for the separate decoder."""
        return features[-LEVELS:]

    def correlated(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Let the tokens ``(B, M, N, D)`` of all modalities attend to each other; return a map ``(B, M * C, ...)``.

        C is the number of channels of one modality's coarsest level. Absent modalities take part as zeros plus their
        positions. As in the published code, the sequence of ``M N`` tokens is read as N voxels of M successive tokens
        each, so a voxel's channels come from neighbours in one modality, not from the same place in all.
        """
        tokens = (tokens * present[:, :, None, None])[:, list(self.order)].flatten(1, 2)
        positions = torch.cat([self.positions[m] for m in self.order], dim=1)
        mixed = self.inter(tokens + positions)
        mixed = mixed.reshape(mixed.shape[0], *self.grid, -1).movedim(1 + len(self.grid), 1)  # ONNX lacks movedim to -1
        return pointwise(self.projection.weight, mixed, self.projection.bias)

    def _tokens(self, modality: int, x: torch.Tensor) -> torch.Tensor:
        embedding = self.embeddings[modality]
        tokens = pointwise(embedding.weight, x, embedding.bias).flatten(2).transpose(1, 2)
        return self.intra[modality](tokens + self.positions[modality])
