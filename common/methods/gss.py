"""The training step of GSS, and of the backbones alone: all modalities are encoded, a random subset is fused.

Source: Qiu et al., "Scratch Each Other's Back: Incomplete Multi-modal Brain Tumor Segmentation Via Category Aware
Group Self-Support Learning", ICCV 2023, section 3.1. GSS changes only the loss (`common.losses.gss`), so inference is
that of the backbone.
"""

import torch

from common.methods.step import TrainingStep
from common.networks.build import require_fusion
from common.networks.fusion import FusionNetwork, FusionOutput
from common.networks.subsets import available_modalities
from common.transforms import uniform_subsets


class RandomSubsetFusion(TrainingStep):
    """Encode and separately decode every modality of a subject; fuse a random subset, all subsets equally likely."""

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__(require_fusion(network, "This training"))

    def forward(self, image: torch.Tensor) -> FusionOutput:
        """Return the training outputs of crops ``(B, M, ...)``; ``present`` says which modalities were encoded."""
        present = available_modalities(image, None)
        features = self.network.encode(image, present)
        fused = self.network.decode(features, uniform_subsets(present))
        return FusionOutput(fused, self.network.decode_separately(features, present), present)
