"""Supervised training without a method for missing modalities: the baseline that every paper is compared to."""

from __future__ import annotations

import torch
from torch import nn

from common.modalities import presence
from common.transforms import random_subsets


class Plain(nn.Module):
    """Forward each subject once, with all its modalities or with random ones dropped.

    Args:
        network: takes ``forward(image, present)``.
        drop_modalities: forward a random non-empty subset (modality dropout) instead of all that are there.
    """

    def __init__(self, network: nn.Module, drop_modalities: bool = False) -> None:
        super().__init__()
        self.network, self.drop_modalities = network, drop_modalities

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the network's training outputs of crops ``(B, M, X, Y, Z)``."""
        image = image.as_subclass(torch.Tensor)
        present = presence(image)
        keep = random_subsets(present).to(image.device) if self.drop_modalities else present
        return self.network(image, keep)
