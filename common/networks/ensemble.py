"""Several networks of one architecture, whose logits are averaged."""

from pydoc import locate
from typing import Any

import torch
from torch import nn


class Ensemble(nn.Module):
    """The mean of the logits of several networks; inferers run each on its own, with its own substitute image.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from common.networks import Ensemble
        >>> ensemble = Ensemble([nn.Conv3d(2, 3, 1), nn.Conv3d(2, 3, 1)]).eval()
        >>> ensemble(torch.rand(1, 2, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])
    """

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M, ...)``."""
        logits: list[torch.Tensor] = []
        for member in self.members:
            each = member(image)
            assert isinstance(each, torch.Tensor)  # TorchScript has to know; in training, networks return more
            logits.append(each)
        return torch.stack(logits).mean(dim=0)


def replicated(of: str, count: int = 1, **arguments: Any) -> nn.Module:
    """Return the network that weights are of: an `Ensemble` of ``count``, or if it is 1, the network itself.

    ``of`` is the dotted path of the class or function that builds one from the other arguments.
    """
    build = locate(of)
    if not callable(build):
        raise ValueError(f"of {of!r}: expected the dotted path of what builds a network.")
    members = [build(**arguments) for _ in range(count)]
    return members[0] if count == 1 else Ensemble(members)
