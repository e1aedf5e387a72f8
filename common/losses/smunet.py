"""SMU-Net's loss: co-training, matching of content and style, and a discriminator of styles.

Source: Azad et al., "SMU-Net: Style Matching U-Net for Brain Tumor Segmentation with Missing Modalities", MIDL 2022;
formulas and constants of the released code.
"""

import torch
import torch.nn.functional as F
from torch import nn

from common.io.settings import check_choice
from common.losses.cotraining import CoTrainingLoss, CoTrainingOutput, Discriminator, discriminator_loss, generator_loss

PUBLISHED = (20, 24, 16)
"""Size of the style for the published crop of 160x192x128, the only one that the released discriminator accepts."""


def gram(features: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrix ``(B C, B C)`` of ``(B, C, ...)``, divided by the number of elements."""
    flat = features.float().flatten(0, 1).flatten(1)
    with torch.autocast(features.device.type, enabled=False):
        return flat @ flat.T / flat.numel()


def style_distance(full: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return ``sum (G_full - G_missing)^2 / (4 C^2 (H W)^2)``, a scalar, of two styles ``(B, C, H, W, D)``.

    As in the released code, the Gram matrices G are already divided by the number of elements, so the result is tiny.
    """
    _, channels, height, width, _ = full.shape
    return (gram(full) - gram(missing)).square().sum() / (4 * channels**2 * (height * width) ** 2)


class StyleDiscriminator(Discriminator):
    """The discriminator of styles ``(B, 8 * width, ...)``; at a width of 16 its channels are as published.

    Kind ``pooled`` ends with global average pooling and a linear layer, for styles of any size (those of less than 8
    voxels are padded); ``released`` ends with a convolution that spans the style of the published crop.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__((8 * width, 4 * width, 8 * width, 16 * width), 4, (2, 2, 2), least=8)
        self.kind = kind
        self.append(nn.LeakyReLU(0.2))
        if kind == "pooled":
            self.append(nn.AdaptiveAvgPool3d(1))
        self.append(nn.Conv3d(16 * width, 1, 1 if kind == "pooled" else (2, 3, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 8 * width, ...)`` to logits ``(B, 1, 1, 1, 1)``; high means not from the full path."""
        if self.kind == "released" and tuple(x.shape[2:]) != PUBLISHED:
            raise ValueError(
                f"A style of {list(x.shape[2:])} voxels, but the released discriminator expects {list(PUBLISHED)}, the "
                "style of a crop of 160x192x128. Set `crop` to this, or `style_discriminator` to pooled."
            )
        return super().forward(x)


class SMUNetLoss(CoTrainingLoss):
    """``0.4 Dice_full + 0.6 Dice_missing + w(t) consistency + 0.2 content + 1e-4 style + 0.0002 adversary``.

    For the first three terms see `CoTrainingLoss`. Content is the mean squared difference of the two paths' contents,
    style that of their Gram matrices (see `style_distance`). The adversary's term applies to the missing path, whose
    style should be taken for the full path's. The discriminator's own loss, ``BCE(D(full), 0) + BCE(D(missing), 1)``,
    is added; see `common.losses.cotraining`. ``style_discriminator`` is ``pooled`` or ``released``; see
    `StyleDiscriminator`.

    Attributes:
        discriminators: ``style``; the optimiser needs its parameters.
        terms: ``full``, ``missing``, ``consistency``, ``content``, ``style``, ``adversary`` and ``discriminators``.
    """

    def __init__(
        self,
        width: int = 16,
        full_weight: float = 0.4,
        missing_weight: float = 0.6,
        consistency_weight: float = 10.0,
        ramp_epochs: int = 20,
        content_weight: float = 0.2,
        style_weight: float = 1e-4,
        adversary_weight: float = 0.0002,
        style_discriminator: str = "pooled",
    ) -> None:
        super().__init__(
            ramp_epochs,
            full=full_weight,
            missing=missing_weight,
            consistency=consistency_weight,
            content=content_weight,
            style=style_weight,
            adversary=adversary_weight,
        )
        kind = check_choice("style_discriminator", style_discriminator, ("pooled", "released"))
        self.discriminators["style"] = StyleDiscriminator(width, kind)

    def forward(self, output: CoTrainingOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of two `SMUNetOutput`, full and missing, against class indices ``(B, 1, ...)``."""
        full, missing = output
        discriminator = self.discriminators["style"]
        terms = self.shared_terms(output, target) | {
            "content": F.mse_loss(full.content.float(), missing.content.float()),
            "style": style_distance(full.style, missing.style),
            "adversary": generator_loss(discriminator, missing.style),
            "discriminators": 2 * discriminator_loss(discriminator, full.style, missing.style),
        }
        return self.weighted_total(terms)
