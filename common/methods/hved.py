"""The training step of U-HVED: a random subset of a subject's modalities is fused, and all are completed from it.

Source: Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI
2019, as released: the number of modalities is drawn first, all numbers equally likely, and then which ones. The losses
are in `common.losses.hved`; U-HeMIS is trained by `common.methods.plain.RandomSubset`.
"""

import torch

from common.methods.step import TrainingStep
from common.networks.hved import UHVED, HVEDOutput
from common.networks.subsets import available_modalities
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
