"""ACN's loss: co-training, mutual information between the paths' bottlenecks, two discriminators.

Source: Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI
2021; formulas and constants of the released code, except for the mutual information: in that code both bottlenecks come
from the missing path, so the full path has no influence. Here it follows the paper.
"""

import math

import torch

from common.losses.cotraining import (
    CoTrainingLoss,
    CoTrainingOutput,
    Discriminator,
    discriminator_loss,
    generator_loss,
    sigmoids,
)
from common.networks.cotraining import ACNOutput

EPSILON = 1e-30  # constant added to a probability before its logarithm (released code)


def entropy_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """Return ``-q log2 q / log2 K``, ``(B, K, ...)``; q is the softmax of the classes' sigmoids (released code)."""
    soft = probabilities.softmax(dim=1)
    return -soft * (soft + EPSILON).log2() / math.log2(soft.shape[1])


def mutual_information(output: CoTrainingOutput) -> torch.Tensor:
    """Return L_MI, the negative log-likelihood of the full path's bottleneck under the missing path's prediction.

    Up to a constant it is the mean over elements of ``((mean - f)^2 / variance + log variance) / 2``, where f is that
    bottleneck, without gradient, since the bound on the mutual information treats its entropy as a constant.
    """
    missing: ACNOutput = output.missing
    target = output.full.bottleneck.detach().float()
    variance = missing.variance.float()[:, None, None, None]
    return ((missing.mean.float() - target).square() / variance + variance.log()).mean() / 2


class ACNLoss(CoTrainingLoss):
    """``0.2 Dice_full + 0.8 Dice_missing + w(t) consistency + 0.5 L_MI + 0.001 L_EnA + 0.0002 L_KnA``.

    L_MI is weighted by ``information_weight``, L_EnA by ``entropy_weight``, L_KnA by ``knowledge_weight``; for the
    first three terms see `CoTrainingLoss`. L_EnA and L_KnA apply to the missing path: they are low when the
    discriminators mistake its entropy maps and its bottleneck for those of the full path. The discriminators' own
    losses are added, see `common.losses.cotraining`. Their channels grow with the network's width; at 16 they are as
    published. Entropy maps of less than 32 voxels are padded. ``classes`` and ``width`` are those of the network.

    Attributes:
        discriminators: ``entropy`` and ``knowledge``; the optimiser needs their parameters.
        terms: ``full``, ``missing``, ``consistency``, ``information``, ``entropy``, ``knowledge`` and
            ``discriminators``.
    """

    def __init__(
        self,
        classes: int = 4,
        width: int = 16,
        full_weight: float = 0.2,
        missing_weight: float = 0.8,
        consistency_weight: float = 10.0,
        ramp_epochs: int = 20,
        information_weight: float = 0.5,
        entropy_weight: float = 0.001,
        knowledge_weight: float = 0.0002,
    ) -> None:
        super().__init__(
            ramp_epochs,
            full=full_weight,
            missing=missing_weight,
            consistency=consistency_weight,
            information=information_weight,
            entropy=entropy_weight,
            knowledge=knowledge_weight,
        )
        of_maps = (classes, 4 * width, 8 * width, 16 * width, 32 * width, 1)
        self.discriminators["entropy"] = Discriminator(of_maps, 4, (2, 2, 2, 2, 2), least=32)
        of_features = (8 * width, 16 * width, 32 * width, 1)
        self.discriminators["knowledge"] = Discriminator(of_features, 3, (1, 1, 2))

    def forward(self, output: CoTrainingOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of two `ACNOutput`, full and missing, against class indices ``(B, 1, ...)``."""
        terms = self.shared_terms(output, target) | {"information": mutual_information(output)}
        maps = {
            "entropy": [entropy_maps(sigmoids(path)) for path in output],
            "knowledge": [path.bottleneck for path in output],
        }
        for name, (_, missing) in maps.items():
            terms[name] = generator_loss(self.discriminators[name], missing)
        losses = [discriminator_loss(self.discriminators[name], *both) for name, both in maps.items()]
        terms["discriminators"] = sum(losses)
        return self.weighted_total(terms)
