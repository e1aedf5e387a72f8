"""Base of all training steps: a module around a network."""

from typing import Any

from torch import nn


class TrainingStep(nn.Module):
    """A training step around ``network``. Its state dict is the network's, with the network's key names.

    So code that reads or sets a trainer's weights, such as MONAI's federated client, handles exactly the weights that
    inference uses. Other parameters of a step are trained with it, but are in no checkpoint.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's state dict."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the network's state dict; return missing and unexpected keys."""
        return self.network.load_state_dict(*args, **kwargs)
