"""RFNet: region-aware fusion of the features of one encoder per modality.

Source: Ding, Yu and Yang, "RFNet: Region-Aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation",
ICCV 2021, in the variant released with PASSION (auxiliary heads give logits at their own resolution; outputs equal
those of the original).
"""

from collections.abc import Sequence

import torch
from torch import nn

from common.networks.blocks import (
    SLOPE,
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
from common.networks.checks import check_crop
from common.networks.feature_encoder import FeatureEncoder
from common.networks.fusion import Decoded, FusionNetwork
from common.networks.kernels import weighted_sum
from common.networks.subsets import available_modalities, scatter_modalities

LEVELS = 4
STRIDE = 2 ** (LEVELS - 1)  # size of a voxel of the coarsest level, in voxels of the finest level, along each axis
REGION_HIDDEN, WEIGHT_HIDDEN = 16, 128
"""Numbers of hidden channels of a region head and of the modality weights, independent of the width."""


class RFNet(FusionNetwork):
    """One encoder per modality, a decoder that fuses region by region, and a separate decoder for training.

    The width is a multiple of 4. The crop has 2 or 3 multiples of 8; windows of other multiples of 8 are processed,
    too.

    Examples:
        >>> import torch
        >>> from common.networks import RFNet
        >>> network = RFNet(modalities=2, classes=3, width=4, crop=(16, 16, 16)).eval()
        >>> image = torch.randn(1, 2, 16, 16, 16)
        >>> image[:, 1] = torch.nan  # the second modality is missing
        >>> network(image).shape  # logits of the classes, of which the first is the background
        torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        width: int = 8,
        crop: Sequence[int] = (80, 80, 80),
        feature_encoder: str | None = None,
    ) -> None:
        super().__init__()
        check_crop(crop, multiple=STRIDE, least=2 * STRIDE)
        if width % 4:
            raise ValueError(f"width {width}: expected a multiple of 4, since region heads divide it by 4.")
        dims, widths = len(crop), [width * 2**level for level in range(LEVELS)]
        self.feature_encoder = FeatureEncoder(modalities, dims, feature_encoder)
        channels = self.feature_encoder.channels
        self.encoders = Encoders(Encoder(dims, width, LEVELS, channels=channels) for _ in range(modalities))
        self.regions = module_list([RegionHead(dims, modalities, classes, w, guided=w < widths[-1]) for w in widths])
        self.fusions = module_list([RegionFusion(dims, modalities, classes, w) for w in widths])
        self.levels = module_list([UpLevel(dims, w) for w in widths[:-1]])
        self.head = conv(dims, width, classes, 1)
        self.separate = SeparateDecoder(dims, classes, width, LEVELS)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Encode each modality that is present.

        The result is the features ``(B, M, C, ...)`` of each level, fine to coarse; then, for each level, the parts of
        the two layers that process all modalities together, ``(B, M, C / 4, ...)`` and ``(B, M, C / 2 or C, ...)``.
        """
        if any(extent % STRIDE for extent in image.shape[2:]):
            raise ValueError(
                f"A window of {list(image.shape[2:])} voxels; RFNet expects multiples of {STRIDE} (key `crop`)."
            )
        present = available_modalities(image, present)
        encoded = self.encoders(self.feature_encoder(image, present), present)
        features, parts = [], []
        for level, region, fusion in zip(encoded, self.regions, self.fusions, strict=True):
            features.append(scatter_modalities(level, present))
            parts += [layer.parts(level, present) for layer in (region.entry, fusion.shortcut_entry)]
        return [*features, *parts]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor | Decoded:
        """Return logits ``(B, K, ...)``; in training mode, a `Decoded`, whose deep logits are those of the heads."""
        present = present.to(features[0].device, non_blocking=True)
        levels, parts = features[:LEVELS], features[LEVELS:]
        deep: list[torch.Tensor] = []
        raised: torch.Tensor | None = None
        for level in reversed(range(LEVELS)):
            region_parts, shortcut_parts = parts[2 * level : 2 * level + 2]
            logits = self.regions[level](region_parts, raised, present)
            regions = logits.detach().softmax(dim=1)
            fused = self.fusions[level](levels[level], shortcut_parts, regions, present)
            y = fused if raised is None else self.levels[level].merged(fused, raised)
            raised = self.levels[level - 1].raised(y) if level > 0 else None
            deep.insert(0, logits)
        logits = pointwise(self.head.weight, y, self.head.bias)
        return Decoded(logits, deep, y) if self.training else logits


class RegionHead(nn.Module):
    """A coarse segmentation at one level that guides the fusion; if ``guided``, by the decoder's tensor, too."""

    def __init__(self, dims: int, modalities: int, classes: int, width: int, guided: bool) -> None:
        super().__init__()
        self.entry = SplitPointwise(dims, modalities, (width, width // 4))
        self.embedding = nn.Sequential(
            ConvBlock(dims, (width // 4, width // 4)), ConvBlock(dims, (width // 4, width), kernel=1)
        )
        self.hidden = ConvBlock(dims, (2 * width if guided else width, REGION_HIDDEN), kernel=1)
        self.head = conv(dims, REGION_HIDDEN, classes, 1)

    def forward(self, parts: torch.Tensor, guide: torch.Tensor | None, present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` from the entry layer's parts ``(B, M, C / 4, ...)``.

        The guide is the decoder's tensor ``(B, C, ...)``, or None at the coarsest level.
        """
        embedded = self.embedding(self.entry.fuse(parts, present))
        y = self.hidden(embedded if guide is None else torch.cat([guide, embedded], dim=1))
        return pointwise(self.head.weight, y, self.head.bias)


class RegionFusion(nn.Module):
    """Region-aware modal fusion: in each region each modality has its own weight, computed from the means there.

    The regions are the classes. The features of modality m in region k are ``X_m p_k``. Neither they nor their weighted
    sums over modalities are computed one by one: the means are a product of X with p, the sums one of the weights with
    X.
    """

    def __init__(self, dims: int, modalities: int, classes: int, width: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(modalities * width + 1, WEIGHT_HIDDEN), nn.LeakyReLU(SLOPE)),
                *(nn.Linear(WEIGHT_HIDDEN, modalities), nn.Sigmoid()),
            )
            for _ in range(classes)
        )
        self.region_layers = _bottleneck(dims, ConvBlock(dims, (classes * width, width), kernel=1), width)
        self.shortcut_entry = SplitPointwise(dims, modalities, (width, width))
        self.shortcut = _bottleneck(dims, nn.Identity(), width)

    def forward(
        self, x: torch.Tensor, shortcut_parts: torch.Tensor, regions: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Return fused features ``(B, C, ...)`` of ``x``, ``(B, M, C, ...)``, for region probabilities ``(B, K, ...)``.

        The ``shortcut_parts`` are the output of the shortcut's entry layer for each modality, ``(B, M, C, ...)``.
        """
        weights = self.modality_weights(x, regions, present) * present[:, None]
        fused = weighted_sum(weights, x).mul_(regions[:, :, None])  # in place: it is the largest tensor of all
        by_region = self.region_layers(fused.flatten(1, 2))
        return torch.cat([by_region, self.shortcut(self.shortcut_entry.fuse(shortcut_parts, present))], dim=1)

    def modality_weights(self, x: torch.Tensor, regions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the weights ``(B, K, M)`` in (0, 1) of each modality in each region; they do not sum to 1."""
        flat = regions.float().flatten(2)
        share = flat.mean(dim=2) + 1e-7
        x = x.float() if x.dtype == torch.float16 else x  # sums over all voxels are too large for it
        with torch.autocast(x.device.type, enabled=False):
            sums = torch.matmul(x.flatten(3), flat[:, None].transpose(2, 3).to(x))  # (B, M, C, K)
        means = sums.float() / flat.shape[2]
        means = (means * present[:, :, None, None]).flatten(1, 2) / share[:, None]
        inputs = [torch.cat([means[:, :, k], share[:, k, None]], dim=1) for k in range(share.shape[1])]
        return torch.stack([layer(x) for layer, x in zip(self.weights, inputs, strict=True)], dim=1)


def _bottleneck(dims: int, entry: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(entry, ConvBlock(dims, (width, width)), ConvBlock(dims, (width, width // 2), kernel=1))
