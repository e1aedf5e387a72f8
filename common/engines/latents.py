"""Recording of a layer's output while a network runs."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn


class LatentProbe:
    """Record a layer's output, averaged over space, windows and samples, until `take` is called.

    The layer is the name of a submodule, e.g. ``unet.encoder.3``, or a pattern for one submodule per modality, e.g.
    ``encoders.*``. Its output is ``(B, C, ...)``, or a list of such levels, fine to coarse, of which the coarsest is
    recorded. None records nothing.
    """

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        self.layer, self.seen = layer, list[torch.Tensor]()
        if layer is None:
            return
        wanted = layer.split(".")
        parts = ((name.split("."), module) for name, module in network.named_modules())
        modules = [m for name, m in parts if len(name) == len(wanted) and all(map(fnmatchcase, name, wanted))]
        if not modules:
            names = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"latent_layer {layer!r}: the network has no such submodule; at its top are {names}.")
        for module in modules:
            module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: torch.Tensor | Sequence[torch.Tensor]) -> None:
        coarsest = output if isinstance(output, torch.Tensor) else output[-1]
        if coarsest.ndim not in (4, 5):
            raise ValueError(
                f"latent_layer {self.layer!r}: output shape {tuple(coarsest.shape)}; expected (B, C, X, Y, Z) of one "
                "modality, e.g. from a pattern such as 'encoders.*'."
            )
        self.seen.append(coarsest.detach().float().flatten(2).mean(dim=2).cpu())

    def take(self) -> np.ndarray | None:
        """Return the recorded mean ``(C,)`` and reset it; None if the layer has not run."""
        seen, self.seen = self.seen, []
        return torch.cat(seen).mean(dim=0).numpy() if seen else None
