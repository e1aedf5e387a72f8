"""Looking at what a layer computes while a network runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


class LatentProbe:
    """The mean of a layer's output over space, windows and samples since it was last asked for.

    Args:
        network: the network that will run.
        layer: name of a submodule whose output is ``(B, C, ...)``, e.g. ``unet.encoder.3``; None looks at nothing.

    Raises:
        ValueError: the network has no such submodule.
    """

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        self.layer, self.seen = layer, list[torch.Tensor]()
        if layer is None:
            return
        try:
            network.get_submodule(layer).register_forward_hook(self._look)
        except AttributeError as error:
            raise ValueError(f"latent_layer {layer!r}: the network has no such submodule ({error}).") from None

    def _look(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.seen.append(output.detach().float().flatten(2).mean(dim=2).cpu())

    def take(self) -> np.ndarray | None:
        """Return the mean ``(C,)`` and forget it; None if the layer has not run."""
        seen, self.seen = self.seen, []
        return torch.cat(seen).mean(dim=0).numpy() if seen else None
