"""RobustSeg's training step: segment from a random subset of a subject's modalities, reconstruct all of them.

Source: Chen et al., "Robust Multimodal Brain Tumor Segmentation via Feature Disentanglement and Gated Fusion", MICCAI
2019; subsets are drawn as in the release. The loss is in `common.losses.robustseg`.
"""

import torch

from common.io.settings import check_number
from common.methods.step import TrainingStep
from common.networks.robustseg import RobustSeg, RobustSegOutput
from common.networks.subsets import available_modalities


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
