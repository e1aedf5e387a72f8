"""RobustSeg: segment from a random subset of a subject's modalities, and reconstruct all of them.

Source: Chen et al., "Robust Multimodal Brain Tumor Segmentation via Feature Disentanglement and Gated Fusion", MICCAI
2019; subsets are drawn, and constants chosen, as in the release. The network is `common.networks.robustseg`. Its
appearances stay close to a standard normal distribution.
"""

import torch
from torch import nn

from common.io.settings import check_number
from common.losses.gated import SegmentationLoss
from common.networks.robustseg import RobustSeg, RobustSegOutput
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities, scatter_rows

LEAST = 1e-12  # minimum that a squared shift is clamped to before its logarithm


def independent_subsets(present: torch.Tensor, probability: float) -> torch.Tensor:
    """Keep each present modality with a given probability, independently; if none is left, keep a random one.

    ``present`` is bool ``(B, M)`` with at least one True in each row; so is the result, on the CPU.
    """
    present = present.cpu()
    score = torch.where(present, torch.rand(present.shape), 2.0)
    return present & ((score < probability) | (score == score.amin(dim=1, keepdim=True)))


class Disentanglement(TrainingStep):
    """Drop the contents of random modalities, each kept with probability ``keep``, and run the network."""

    def __init__(self, network: RobustSeg, keep: float = 0.5) -> None:
        super().__init__(network)
        self.keep = check_number("keep", keep, 0, 1)

    def forward(self, image: torch.Tensor) -> RobustSegOutput:
        """Return the training outputs of crops ``(B, M, X, Y, Z)``."""
        present = available_modalities(image, None)
        return self.network(image, independent_subsets(present, self.keep))


def divergence(scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return ``sum (scale^2 + shift^2 - 1 - log shift^2) / 2`` over the channels of ``(P, C)``, with shape ``(P,)``.

    It is the divergence of N(scale, shift^2) from N(0, 1): the paper treats the decoder's scale as a mean and its shift
    as a standard deviation.
    """
    variance = shift.square()
    return (scale.square() + variance - 1 - variance.clamp_min(LEAST).log()).sum(dim=1) / 2


class RobustSegLoss(nn.Module):
    """``CE + Dice + 1e-4 l2 + 0.1 sum_m L1_m + 0.1 sum_m KL_m``.

    Here l2 is half the sum of squared kernels. L1, the reconstruction's mean absolute error, and KL, the `divergence`,
    are means over the samples that have a modality; one that no sample has adds nothing. The terms are ``ce``,
    ``dice``, ``l2``, ``l1`` and ``kl``.
    """

    def __init__(self, l2_weight: float = 1e-4, l1_weight: float = 0.1, kl_weight: float = 0.1) -> None:
        super().__init__()
        self.weights = {
            "l2": check_number("l2_weight", l2_weight, 0),
            "l1": check_number("l1_weight", l1_weight, 0),
            "kl": check_number("kl_weight", kl_weight, 0),
        }
        self.segmentation = SegmentationLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: RobustSegOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the network's output against class indices ``(B, 1, X, Y, Z)``."""
        loss = self.segmentation(output, target)
        error = (output.image - output.reconstruction.float()).abs().flatten(1).mean(dim=1)
        parts = {
            "l2": output.l2_penalty,
            "l1": _over_samples(error, output.there).sum(),
            "kl": _over_samples(divergence(output.scale.float(), output.shift.float()), output.there).sum(),
        }
        self.terms = {**self.segmentation.terms, **{name: value.detach() for name, value in parts.items()}}
        return loss + sum(self.weights[name] * value for name, value in parts.items())


def _over_samples(rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the mean of each modality's rows, ``(M,)``; 0 for a modality without rows."""
    count = present.sum(dim=0).clamp_min(1).to(rows.device, non_blocking=True)
    return scatter_rows(rows, present).sum(dim=0) / count
