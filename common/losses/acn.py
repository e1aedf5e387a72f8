"""ACN's loss: co-training, mutual information between the paths' bottlenecks, two discriminators.

Source: Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI
2021; formulas and constants of the released code, but for the mutual information: in the code both bottlenecks are the
missing path's own, and the full path has no part. Here it is as the paper says.
"""

from __future__ import annotations

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

EPSILON = 1e-30
"""Added to a probability before its logarithm is taken (released code)."""


def entropy_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """Return ``-q log2 q / log2 K`` of each class, ``(B, K, ...)``, q being the softmax of the sigmoids.

    That sigmoids go through a softmax is the released code's doing.

    Args:
        probabilities: ``(B, K, ...)``, sigmoids.
    """
    soft = probabilities.softmax(dim=1)
    return -soft * (soft + EPSILON).log2() / math.log2(soft.shape[1])


def mutual_information(output: CoTrainingOutput) -> torch.Tensor:
    """Return L_MI, the negative log-likelihood of the full path's bottleneck under the missing path's prediction.

    Up to a constant: the mean over elements of ``((mean - f)^2 / variance + log variance) / 2``, f being that
    bottleneck, without a gradient, since the bound that this is of the mutual information takes its entropy for a
    constant.

    Args:
        output: two `ACNOutput`.
    """
    missing: ACNOutput = output.missing
    target = output.full.bottleneck.detach().float()
    variance = missing.variance.float()[:, None, None, None]
    return ((missing.mean.float() - target).square() / variance + variance.log()).mean() / 2


class ACNLoss(CoTrainingLoss):
    """``0.2 Dice_full + 0.8 Dice_missing + w(t) consistency + 0.5 L_MI + 0.001 L_EnA + 0.0002 L_KnA``.

    L_EnA and L_KnA are of the missing path, whose entropy maps and bottleneck are to be taken for the full path's by a
    discriminator each. To this the discriminators' own losses are added, see `common.losses.cotraining`. The
    discriminators' channels grow with the network's width; they are as published at 16. Entropy maps of less than 32
    voxels are padded for theirs.

    Args:
        classes: K of the network.
        width: of the network.
        full_weight: of the full path's Dice.
        missing_weight: of the missing path's.
        consistency_weight: of the consistency, once the ramp is over.
        ramp_epochs: length of the ramp.
        information_weight: of L_MI.
        entropy_weight: of L_EnA.
        knowledge_weight: of L_KnA.

    Attributes:
        discriminators: ``entropy`` and ``knowledge``; the optimiser needs their parameters.
        epoch: see `CoTrainingLoss`.
        terms: the latest values of ``full``, ``missing``, ``consistency``, ``information``, ``entropy``, ``knowledge``
            and ``discriminators``, without weights, detached.

    Raises:
        ValueError: see `CoTrainingLoss`.
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
        """Return the scalar loss.

        Args:
            output: two `ACNOutput`.
            target: class indices ``(B, 1, ...)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`.
        """
        terms = self.shared_terms(output, target) | {"information": mutual_information(output)}
        maps = {
            "entropy": [entropy_maps(sigmoids(path)) for path in output],
            "knowledge": [path.bottleneck for path in output],
        }
        for name, (_, missing) in maps.items():
            terms[name] = generator_loss(self.discriminators[name], missing)
        terms["discriminators"] = sum(
            discriminator_loss(self.discriminators[name], *both) for name, both in maps.items()
        )
        return self.weighted_total(terms)
