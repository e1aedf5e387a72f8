"""The losses of U-HVED and U-HeMIS.

Source: Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI
2019, with the released code's weights. Its L2 term (1e-5) is left to the optimiser's weight decay, which AdamW
decouples from the gradient. The release completes all four modalities of complete subjects; here, as in the
divergences, these are those that a subject has.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.io.settings import check_number
from common.losses.fusion import class_indices
from common.networks.blocks import gather_rows
from common.networks.dedicated import channel_subsets
from common.networks.hved import VARIANCE_FLOOR, HVEDOutput, product_of_gaussians


class SoftmaxLoss(nn.Module):
    """Cross-entropy plus Dice with squared denominators and an epsilon of 1e-5, background included; of U-HeMIS.

    Sums of Dice run over space alone; a batch gets the mean.

    Attributes:
        terms: the latest value of ``segmentation``, detached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of logits ``(B, K, ...)`` against class indices ``(B, 1, ...)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`.
        """
        logits = output.as_subclass(torch.Tensor).float()
        loss = self.loss(logits, class_indices(target, logits))
        self.terms = {"segmentation": loss.detach()}
        return loss


class HVEDLoss(nn.Module):
    """Segmentation of the chosen modalities, plus divergences of the latents, plus reconstruction of the image.

    Args:
        kl_weight: of the divergences, see `divergences`; their sum is averaged over levels and samples.
        reconstruction_weight: of the mean squared error over the voxels of all modalities that the samples have.

    Attributes:
        terms: the latest values of ``segmentation``, ``kl`` and ``reconstruction``, detached.

    Raises:
        ValueError: a negative weight.
    """

    def __init__(self, kl_weight: float = 0.1, reconstruction_weight: float = 0.1) -> None:
        super().__init__()
        self.kl_weight = check_number("kl_weight", kl_weight, 0)
        self.reconstruction_weight = check_number("reconstruction_weight", reconstruction_weight, 0)
        self.segmentation = SoftmaxLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: HVEDOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss.

        Args:
            output: the network's training outputs.
            target: class indices ``(B, 1, ...)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`.
        """
        segmentation = self.segmentation(output.completed.logits, target)
        # Computed again in the backward pass: what they keep of every subset is more than all that the network keeps.
        levels = [
            sum(checkpoint(divergences, level, output.present, output.chosen, use_reentrant=False))
            for level in output.posteriors
        ]
        kl = torch.stack(levels).mean()
        there = gather_rows(output.completed.reconstructions, output.present).float()
        reconstruction = F.mse_loss(there, gather_rows(output.image, output.present))
        parts = {"segmentation": segmentation, "kl": kl, "reconstruction": reconstruction}
        self.terms = {name: value.detach() for name, value in parts.items()}
        return segmentation + self.kl_weight * kl + self.reconstruction_weight * reconstruction


def divergences(
    posteriors: torch.Tensor, present: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far the latents of the subsets are from each other and from the prior, at one level.

    A sample with m modalities has n = 2^m - 1 subsets s of them; KL is the mean over channels and voxels.

    Args:
        posteriors: means and logarithms of variances ``(B, M, 2 C, ...)``.
        present: bool ``(B, M)``, the modalities of each sample.
        chosen: bool ``(B, M)``, some of these.

    Returns:
        ``sum_s KL(q_chosen || q_s) / (n - 1)``, which is 0 for a single modality, and ``sum_s KL(q_s || N(0, 1)) / n``,
        each ``(B,)``.
    """
    modalities = range(present.shape[1])
    every = [[m in subset for m in modalities] for subset in channel_subsets(len(modalities))]
    every = torch.tensor(every)
    valid = ~(every & ~present[:, None]).any(dim=2)
    mean, log_variance = product_of_gaussians(posteriors, every.expand(len(present), -1, -1))
    chosen_mean, chosen_log_variance = product_of_gaussians(posteriors, chosen[:, None])
    variance = log_variance.exp()
    distance = chosen_log_variance.exp() + (chosen_mean - mean).square()
    between = (log_variance - chosen_log_variance + distance / (variance + VARIANCE_FLOOR) - 1) / 2
    prior = (variance + mean.square() - 1 - log_variance) / 2
    valid = valid.to(posteriors.device, non_blocking=True)
    between, prior = ((kl.flatten(2).mean(dim=2) * valid).sum(dim=1) for kl in (between, prior))
    count = valid.sum(dim=1)
    return between / (count - 1).clamp_min(1), prior / count
