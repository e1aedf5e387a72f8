"""Training in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn
from torch.utils._pytree import tree_map_only


class BFloat16Inferer(SimpleInferer):
    """Forward a batch, if enabled in bfloat16 where `torch.autocast` finds that safe, on a CPU as on a GPU.

    MONAI's trainers have ``amp``, which is float16 and for GPUs alone. Weights, their gradients and losses stay in
    float32, and no scaling of the loss is needed. Processors that multiply bfloat16 (AVX512-BF16, AMX, GPUs since
    Ampere) train up to 2.5 times as fast; on others leave it off.

    Args:
        enabled: whether to.
    """

    def __init__(self, enabled: bool = False) -> None:
        super().__init__()
        self.enabled = enabled

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``network``, a tensor or tensors in tuples; those in bfloat16 as float32.

        Raises:
            ValueError: the trainer's ``amp`` is on as well.
        """
        if not self.enabled:
            return super().__call__(inputs, network, *args, **kwargs)  # in the trainer's autocast, if amp is on
        if torch.is_autocast_enabled(inputs.device.type):
            raise ValueError("amp and bfloat16 are both true; expected one of them (amp is float16, for GPUs alone).")
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs = super().__call__(inputs, network, *args, **kwargs)
        return tree_map_only(torch.Tensor, _to_float32, outputs)


def _to_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
