"""Plain supervised training, with and without modality dropout: the baselines that papers are compared to."""

from collections.abc import Sequence

import torch
from torch import nn

from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities
from common.transforms import random_subsets


class Plain(TrainingStep):
    """Forward each subject once, with all the modalities that it has; the network takes crops ``(B, M, X, Y, Z)``."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the network's training outputs of crops ``(B, M, X, Y, Z)``."""
        return self.network(image.as_subclass(torch.Tensor))


class RandomSubset(TrainingStep):
    """Forward each subject once, with a random subset of the modalities that it has (modality dropout, ModDrop).

    The number of modalities is drawn first, all numbers equally likely or as often as ``kept`` says, and then which
    ones; see `random_subsets`. The network takes crops ``(B, M, X, Y, Z)`` and ``present``, bool ``(B, M)``, the usable
    modalities.
    """

    def __init__(self, network: nn.Module, kept: Sequence[float] | None = None) -> None:
        super().__init__(network)
        self.kept = kept

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the network's training outputs of crops ``(B, M, X, Y, Z)``."""
        present = available_modalities(image, None)
        return self.network(image.as_subclass(torch.Tensor), random_subsets(present, self.kept))
