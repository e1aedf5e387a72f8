"""The training step for a collection of networks, one per subset: each step trains one of them."""

import torch

from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities
from common.networks.unetr import DedicatedUNETR


class OneSubset(TrainingStep):
    """Draw one of the subsets that have a network, and forward it for the whole batch."""

    network: DedicatedUNETR

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(B, K, ...)`` of crops ``(B, M, ...)``."""
        present = available_modalities(image, None)
        chosen = torch.zeros_like(present)
        chosen[:, list(self.network.dedicated.draw_subset(present))] = True
        return self.network(image, chosen)
