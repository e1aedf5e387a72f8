"""What the methods of all papers are: a step of training around a network."""

from __future__ import annotations

from typing import Any

from torch import nn


class TrainingStep(nn.Module):
    """A step of training around a network, in ``network``. Its weights are the network's, by the network's names.

    So who takes weights from a trainer or gives it some, as MONAI's federated client does, has those that inference
    takes. What a step learns beside its network is trained with it and is in no checkpoint.
    """

    network: nn.Module

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the network's state."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the network's state; return the names that lack and that are too many."""
        return self.network.load_state_dict(*args, **kwargs)
