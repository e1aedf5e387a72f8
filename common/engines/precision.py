"""Mixed precision on a CPU, which MONAI's engines have on a GPU alone."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn
from torch.utils._pytree import tree_map_only


class MixedPrecisionInferer(SimpleInferer):
    """Forward a batch; on a CPU, with ``amp``, in bfloat16 where `torch.autocast` finds that safe.

    On a GPU MONAI's trainer does so itself, with its own ``amp``. Processors that multiply bfloat16 (AVX512-BF16, AMX)
    train up to 2.5 times as fast with it; the weights, the losses and the gradients' sums stay in float32.

    Args:
        amp: whether to.
    """

    def __init__(self, amp: bool = False) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``network``, a tensor or tensors in tuples, in float32."""
        if not self.amp or inputs.device.type != "cpu":
            return super().__call__(inputs, network, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = super().__call__(inputs, network, *args, **kwargs)
        return tree_map_only(torch.Tensor, _single, outputs)


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
