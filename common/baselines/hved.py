"""U-HVED and U-HeMIS: a random subset of a subject's modalities is fused; U-HVED completes all modalities from it, too.

Source: Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI
2019, as released: the number of modalities is drawn first, all numbers equally likely, and then which ones; weights of
the loss as in the code. Its L2 term (1e-5) is left to the optimiser's weight decay (AdamW applies it separately from
the gradient). The release reconstructs all four modalities of complete subjects; here the reconstruction and the
divergences use the modalities that a subject has. The networks are in `common.networks.hved`; U-HeMIS is trained by
`common.baselines.plain.RandomSubset`.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from common.io.settings import check_number
from common.losses.dice_ce import DiceCE, class_indices
from common.networks.dedicated import channel_subsets
from common.networks.hved import UHVED, VARIANCE_FLOOR, HVEDOutput, product_of_gaussians
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities, gather_rows
from common.transforms import random_subsets


class JointCompletion(TrainingStep):
    """Fuse a random subset, and complete and segment from it; every modality that the subject has is encoded."""

    network: UHVED

    def forward(self, image: torch.Tensor) -> HVEDOutput:
        """Return the training outputs of crops ``(B, M, X, Y, Z)``."""
        present = available_modalities(image, None)
        chosen = random_subsets(present)
        features = self.network.encode(image, present)
        completed = self.network.decode(features, chosen)
        return HVEDOutput(completed, features, image.as_subclass(torch.Tensor), present, chosen)


class SoftmaxLoss(nn.Module):
    """U-HeMIS's loss: cross-entropy plus Dice with squared denominators and an epsilon of 1e-5, with the background.

    Dice sums over space only and is averaged over the batch. The only term is ``segmentation``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceCE(squared_pred=True)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of logits ``(B, K, ...)`` against class indices ``(B, 1, ...)``."""
        logits = output.as_subclass(torch.Tensor).float()
        loss = self.loss(logits, class_indices(target, logits))
        self.terms = {"segmentation": loss.detach()}
        return loss


class HVEDLoss(nn.Module):
    """Segmentation loss of the chosen modalities, plus divergences of the latents, plus reconstruction of the image.

    The divergences (`divergences`) are summed and averaged over levels and samples. The reconstruction is judged by the
    mean squared error over the voxels of all modalities that samples have.

    Attributes:
        terms: ``segmentation``, ``kl`` and ``reconstruction``.

    Examples:
        >>> import torch
        >>> from common.baselines.hved import HVEDLoss, JointCompletion
        >>> from common.networks.hved import UHVED
        >>> output = JointCompletion(UHVED(modalities=2, classes=3, width=4))(torch.randn(1, 2, 16, 16, 16))
        >>> loss = HVEDLoss()
        >>> loss(output, torch.zeros(1, 1, 16, 16, 16)).shape
        torch.Size([])
        >>> list(loss.terms)
        ['segmentation', 'kl', 'reconstruction']
    """

    def __init__(self, kl_weight: float = 0.1, reconstruction_weight: float = 0.1) -> None:
        super().__init__()
        self.kl_weight = check_number("kl_weight", kl_weight, 0)
        self.reconstruction_weight = check_number("reconstruction_weight", reconstruction_weight, 0)
        self.segmentation = SoftmaxLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: HVEDOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the network's training outputs against class indices ``(B, 1, ...)``."""
        segmentation = self.segmentation(output.completed.logits, target)
        # Recomputed in the backward pass: storing them for every subset takes more memory than the whole network.
        levels = [
            sum(checkpoint(divergences, level, output.present, output.chosen, use_reentrant=False))
            for level in output.posteriors
        ]
        kl = torch.stack(levels).mean()
        reconstructions = gather_rows(output.completed.reconstructions, output.present).float()
        reconstruction = F.mse_loss(reconstructions, gather_rows(output.image, output.present))
        parts = {"segmentation": segmentation, "kl": kl, "reconstruction": reconstruction}
        self.terms = {name: value.detach() for name, value in parts.items()}
        return segmentation + self.kl_weight * kl + self.reconstruction_weight * reconstruction


def divergences(
    posteriors: torch.Tensor, present: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the divergences of the subsets' latents from the chosen subset's and from the prior, at one level.

    A sample with m modalities has n = 2^m - 1 subsets s. KL is the mean over channels and voxels. The results, each
    ``(B,)``, are ``sum_s KL(q_chosen || q_s) / (n - 1)``, which is 0 for a single modality, and ``sum_s KL(q_s || N(0,
    1)) / n``. Posteriors are means and log-variances along the channels, ``(B, M, 2 C, ...)``; ``present`` and its
    subset ``chosen`` are bool ``(B, M)``.
    """
    modalities = range(present.shape[1])
    every = torch.tensor([[m in subset for m in modalities] for subset in channel_subsets(len(modalities))])
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
