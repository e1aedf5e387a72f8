"""SMU-Net's loss: co-training, content and style that match, a discriminator of styles.

Source: Azad et al., "SMU-Net: Style Matching U-Net for Brain Tumor Segmentation with Missing Modalities", MIDL 2022;
formulas and constants of the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from common.io.settings import check_choice
from common.losses.cotraining import CoTrainingLoss, CoTrainingOutput, Discriminator, discriminator_loss, generator_loss

PUBLISHED = (20, 24, 16)
"""Size of the style of the published crop, 160x192x128, the only one that the released discriminator takes."""


def gram(features: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrix ``(B C, B C)`` of ``(B, C, ...)``, divided by the number of elements."""
    flat = features.float().flatten(0, 1).flatten(1)
    with torch.autocast(features.device.type, enabled=False):
        return flat @ flat.T / flat.numel()


def style_distance(full: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return ``sum (G_full - G_missing)^2 / (4 C^2 (H W)^2)``, a scalar; H and W are the first two extents.

    With the Gram matrices G divided by the number of elements already, it is next to nothing (released code).

    Args:
        full: style ``(B, C, H, W, D)``.
        missing: same shape.
    """
    _, channels, height, width, _ = full.shape
    return (gram(full) - gram(missing)).square().sum() / (4 * channels**2 * (height * width) ** 2)


class StyleDiscriminator(Discriminator):
    """The discriminator of styles ``(B, 8 * width, ...)``.

    Args:
        width: of the network; the channels are as published at 16.
        kind: ``pooled``: after three convolutions global average pooling and a linear layer, for styles of any size
            (less than 8 voxels are padded). ``released``: a last convolution that spans the style of the published
            crop.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__((8 * width, 4 * width, 8 * width, 16 * width), 4, (2, 2, 2), least=8)
        self.kind = kind
        self.append(nn.LeakyReLU(0.2))
        if kind == "pooled":
            self.append(nn.AdaptiveAvgPool3d(1))
        self.append(nn.Conv3d(16 * width, 1, 1 if kind == "pooled" else (2, 3, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 8 * width, ...)`` to logits ``(B, 1, 1, 1, 1)`` of not being from the full path.

        Raises:
            ValueError: ``released``, and the style is not that of the published crop.
        """
        if self.kind == "released" and tuple(x.shape[2:]) != PUBLISHED:
            raise ValueError(
                f"A style of {list(x.shape[2:])} voxels: the released discriminator takes {list(PUBLISHED)}, that of a "
                "crop of 160x192x128. Set `crop` to this, or `style_discriminator` to pooled."
            )
        return super().forward(x)


class SMUNetLoss(CoTrainingLoss):
    """``0.4 Dice_full + 0.6 Dice_missing + w(t) consistency + 0.2 content + 1e-4 style + 0.0002 adversary``.

    Content is the mean squared difference of the two paths' contents, style that of their Gram matrices, see
    `style_distance`; the adversary's term is of the missing path, whose style is to be taken for the full path's. To
    this the discriminator's own loss is added, ``BCE(D(full), 0) + BCE(D(missing), 1)``, see
    `common.losses.cotraining`.

    Args:
        width: of the network.
        full_weight: of the full path's Dice.
        missing_weight: of the missing path's.
        consistency_weight: of the consistency, once the ramp is over.
        ramp_epochs: length of the ramp.
        content_weight: of the content.
        style_weight: of the style.
        adversary_weight: of the adversary.
        style_discriminator: ``pooled`` or ``released``, see `StyleDiscriminator`.

    Attributes:
        discriminators: ``style``; the optimiser needs its parameters.
        epoch: see `CoTrainingLoss`.
        terms: the latest values of ``full``, ``missing``, ``consistency``, ``content``, ``style``, ``adversary`` and
            ``discriminators``, without weights, detached.

    Raises:
        ValueError: an unknown choice; see `CoTrainingLoss`.
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
        """Return the scalar loss.

        Args:
            output: two `SMUNetOutput`.
            target: class indices ``(B, 1, ...)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`; see `StyleDiscriminator`.
        """
        full, missing = output
        discriminator = self.discriminators["style"]
        terms = self.shared_terms(output, target) | {
            "content": F.mse_loss(full.content.float(), missing.content.float()),
            "style": style_distance(full.style, missing.style),
            "adversary": generator_loss(discriminator, missing.style),
            "discriminators": 2 * discriminator_loss(discriminator, full.style, missing.style),
        }
        return self.weighted_total(terms)
