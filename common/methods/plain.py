"""Supervised training without a method for missing modalities: the baseline that every paper is compared to."""

from __future__ import annotations

import torch
from torch import nn


class Plain(nn.Module):
    """Forward each subject once, with all the modalities that it has.

    Args:
        network: takes crops ``(B, M, X, Y, Z)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the network's training outputs of crops ``(B, M, X, Y, Z)``."""
        return self.network(image.as_subclass(torch.Tensor))
