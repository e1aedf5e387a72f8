"""RobustSeg's training step: some of a subject's modalities are segmented from, all of them reconstructed.

Source: Chen et al., "Robust Multimodal Brain Tumor Segmentation via Feature Disentanglement and Gated Fusion", MICCAI
2019; the drawing as released. The loss is in `common.losses.robustseg`.
"""

from __future__ import annotations

import torch

from common.io.settings import check_number
from common.methods.step import TrainingStep
from common.networks.blocks import available_modalities
from common.networks.robustseg import RobustSeg, RobustSegOutput


def independent_subsets(present: torch.Tensor, probability: float) -> torch.Tensor:
    """Keep each present modality with a probability, independently; where none would stay, one of them, all alike.

    Args:
        present: bool ``(B, M)``, at least one True in each row.
        probability: to keep one.

    Returns:
        bool ``(B, M)`` on the CPU, a non-empty subset of ``present``.
    """
    present = present.cpu()
    score = torch.where(present, torch.rand(present.shape), 2.0)
    return present & ((score < probability) | (score == score.amin(dim=1, keepdim=True)))


class Disentanglement(TrainingStep):
    """Drop modalities at random from the contents, and forward.

    Args:
        network: what is trained.
        keep: probability that a modality stays.

    Raises:
        ValueError: ``keep`` is no probability.
    """

    def __init__(self, network: RobustSeg, keep: float = 0.5) -> None:
        super().__init__()
        self.network, self.keep = network, check_number("keep", keep, 0, 1)

    def forward(self, image: torch.Tensor) -> RobustSegOutput:
        """Return the training outputs of crops ``(B, M, X, Y, Z)``."""
        present = available_modalities(image, None)
        return self.network(image, independent_subsets(present, self.keep))
