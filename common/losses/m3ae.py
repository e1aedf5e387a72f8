"""The two training losses of M3AE.

Source: Liu et al., AAAI 2023, eq. (1) to (5). Where the paper does not define the segmentation loss ("Dice plus cross
entropy"), we follow the released code: 0.7 Dice + 0.3 binary cross-entropy, with squared denominators in Dice and
both views pooled.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import nn

from common.io.settings import check_choice
from common.modalities import IGNORED
from common.networks import SegmentationOutput
from common.networks.subsets import gather_rows

REGULARISERS = ("mean_square", "norm")
SURELY_NOT = -1e4
"""Logit whose probability and cross-entropy are 0 in every precision."""


class Reconstruction(NamedTuple):
    """Output of the pretraining step, which its loss takes.

    Attributes:
        reconstruction: ``(B, M, X, Y, Z)``.
        image: the unmasked image of the same shape, with NaN in missing modalities.
        present: bool ``(B, M)``, modalities that the image has.
        x_sub: the substitute image ``(1, M, *grid)``.
    """

    reconstruction: torch.Tensor
    image: torch.Tensor
    present: torch.Tensor
    x_sub: torch.Tensor


class PretrainingLoss(nn.Module):
    """L_mse(x, F(S(x, x_sub))) + gamma * R(x_sub), eq. (1) and (3).

    L_mse is the mean over all voxels of the modalities present, masked or not. R is of x_sub after subtracting each
    modality's spatial mean: ``mean_square``, the mean of its squares (the paper's "L2"), or ``norm``, its (not squared)
    Euclidean norm, as released. The gradient of the norm has length 1 however small x_sub is, so unless that of L_mse
    is longer than gamma, which it is in no setting of the paper's, the norm shrinks x_sub to a constant. The terms are
    ``mse`` and ``regulariser``.
    """

    def __init__(self, gamma: float = 0.005, regulariser: str = "mean_square") -> None:
        super().__init__()
        self.gamma = gamma
        self.regulariser = check_choice("regulariser", regulariser, REGULARISERS)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: Reconstruction, target: None = None) -> torch.Tensor:
        """Return the scalar loss; the target is part of the output and ignored here."""
        mse = F.mse_loss(*(gather_rows(volumes, output.present) for volumes in (output.reconstruction, output.image)))
        centred = output.x_sub - output.x_sub.mean(dim=(2, 3, 4), keepdim=True)
        regulariser = (
            centred.square().mean() if self.regulariser == "mean_square" else torch.linalg.vector_norm(centred)
        )
        self.terms = {"mse": mse.detach(), "regulariser": regulariser.detach()}
        return mse + self.gamma * regulariser


class DiceBCELoss(nn.Module):
    """0.7 * mean Dice loss + 0.3 * mean binary cross-entropy over region channels, on logits.

    Dice of a channel is ``1 - (2 sum(pt) + 1) / (sum(p^2) + sum(t^2) + 1)`` with the sums over batch and space. Voxels
    that are `IGNORED` count nowhere.
    """

    def __init__(self, dice_weight: float = 0.7, bce_weight: float = 0.3) -> None:
        super().__init__()
        self.dice_weight, self.bce_weight = dice_weight, bce_weight
        self.dice = DiceLoss(sigmoid=True, squared_pred=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of logits against masks, both ``(B, C, X, Y, Z)``."""
        counted = target != IGNORED
        logits, target = logits.masked_fill(~counted, SURELY_NOT), target.masked_fill(~counted, 0)
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / counted.sum().clamp_min(1)
        return self.dice_weight * self.dice(logits, target) + self.bce_weight * bce


class DeeplySupervisedLoss(nn.Module):
    """The sum of `DiceBCELoss` over the full-resolution and the deep logits, with equal weights, eq. (5)."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DeepSupervisionLoss(DiceBCELoss(), weight_mode="same")

    def forward(self, output: SegmentationOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a network's training outputs against region masks ``(B, C, X, Y, Z)``."""
        target = target.to(output.logits.dtype).as_subclass(torch.Tensor)
        return self.loss([output.logits, *output.deep], target)


class FineTuningLoss(nn.Module):
    """Deeply supervised segmentation loss of two views plus lambda times their consistency, eq. (2), (4) and (5).

    One segmentation loss covers both views, as in the release; eq. (4) adds one per view, which is about twice as much.

    Args:
        lambda_con: weight of the consistency; 0 is the paper's ablation without self-distillation.
        consistency: ``bottleneck``, the MSE between the two views' bottleneck features (paper), or ``quarter_logits``,
            the MSE between their upsampled 1/4 logits (the released code gets there by an off-by-one index).
        lambda_distil: weight of our own distillation from the first view to the second: the binary cross-entropy of the
            second view's logits against the first view's probabilities. It helps if the first view is complete.

    Attributes:
        terms: ``segmentation``, ``consistency`` and, if it has a weight, ``distillation``.
    """

    def __init__(self, lambda_con: float = 0.1, consistency: str = "bottleneck", lambda_distil: float = 0.0) -> None:
        super().__init__()
        self.consistency = check_choice("consistency", consistency, ("bottleneck", "quarter_logits"))
        self.lambda_con, self.lambda_distil = lambda_con, lambda_distil
        self.loss = DeeplySupervisedLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: SegmentationOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of training outputs of both views, one batch after the other, against region masks.

        The masks ``(B, C, X, Y, Z)`` are those of the subjects, so the outputs have ``2 B`` rows.
        """
        one, other = _views(output)
        segmentation = self.loss(output, torch.cat([target, target]))
        if self.consistency == "bottleneck":
            consistency = F.mse_loss(one.bottleneck, other.bottleneck)
        else:
            consistency = F.mse_loss(one.deep[0], other.deep[0])
        self.terms = {"segmentation": segmentation.detach(), "consistency": consistency.detach()}
        total = segmentation + self.lambda_con * consistency
        if self.lambda_distil > 0:
            taught = one.logits.detach().sigmoid()
            each = F.binary_cross_entropy_with_logits(other.logits, taught, reduction="none")
            counted = target.as_subclass(torch.Tensor) != IGNORED
            distillation = torch.where(counted, each, 0).sum() / counted.sum().clamp_min(1)
            self.terms["distillation"] = distillation.detach()
            total = total + self.lambda_distil * distillation
        return total


def _views(output: SegmentationOutput) -> tuple[SegmentationOutput, SegmentationOutput]:
    deep = [level.chunk(2) for level in output.deep]
    halves = zip(output.logits.chunk(2), zip(*deep, strict=True), output.bottleneck.chunk(2), strict=True)
    one, other = (SegmentationOutput(logits, list(levels), features) for logits, levels, features in halves)
    return one, other
