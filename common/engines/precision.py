"""The precision that networks compute in."""

from __future__ import annotations

import logging
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn
from torch.utils._pytree import tree_map_only

from common.io.settings import check_choice, usable_device

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The values of the key ``precision``."""


def check_device(device: str | torch.device, precision: str) -> None:
    """Refuse a device that is not there, or a precision that it does not compute in, before anything is loaded.

    bfloat16 on a processor that does not multiply it is only warned of.

    Args:
        device: the key ``device``.
        precision: the key ``precision``: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        ValueError: there is no such device here; the precision is unknown; or it is float16 and the device no GPU.
    """
    check_choice("precision", precision, tuple(DTYPES))
    device = usable_device("device", device)
    if precision == "float16" and device.type != "cuda":
        raise ValueError(
            f"precision 'float16' with device {device}: float16 is for GPUs alone; expected 'float32' or 'bfloat16'."
        )
    if precision == "bfloat16" and not _multiplies_bfloat16(device):
        logger.warning(
            f"precision 'bfloat16': this {'GPU' if device.type == 'cuda' else 'processor'} has no instructions for it "
            "and emulates it: slower than float32 (a training step of RFNet on a CPU took 1.4 times as long); "
            "expected 'float32' here."
        )


def set_matmul_precision(matmul_precision: str) -> None:
    """Set how exact products of float32 matrices are, in this process, by `torch.set_float32_matmul_precision`.

    On a GPU ``high`` multiplies in TF32 (10 bits of mantissa), as cuDNN's convolutions do by default.

    Args:
        matmul_precision: ``highest``, ``high`` or ``medium``.

    Raises:
        ValueError: it is none of these, of which PyTorch would only warn.
    """
    choices = ("highest", "high", "medium")
    torch.set_float32_matmul_precision(check_choice("matmul_precision", matmul_precision, choices))


def uses_float16(precision: str) -> bool:
    """Return whether gradients are so small in a precision that the loss has to be scaled (the trainers' ``amp``)."""
    return precision == "float16"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the context in which networks compute in a precision, where `torch.autocast` finds that safe.

    In float32 nothing is cast, even within the context of another precision.
    """
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, DTYPES[precision])


def to_float32(outputs: Any) -> Any:
    """Return a tensor, or tensors in tuples, lists and dictionaries; those in half precision as float32."""
    return tree_map_only(
        torch.Tensor, lambda x: x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, outputs
    )


class PrecisionInferer(SimpleInferer):
    """Forward a training batch in a precision, on a CPU as on a GPU.

    Weights, their gradients and losses stay in float32. bfloat16 needs no scaling of the loss; processors that multiply
    it (AVX512-BF16, AMX, GPUs since Ampere) train up to 2.5 times as fast. float16 needs the trainer's ``amp`` for its
    GradScaler; ``amp_kwargs`` turn the trainer's own autocast off, which would take in the loss.

    Args:
        precision: ``float32``, ``bfloat16`` or, on a GPU, ``float16``.

    Raises:
        ValueError: the precision is unknown.
    """

    def __init__(self, precision: str = "float32") -> None:
        super().__init__()
        self.precision = check_choice("precision", precision, tuple(DTYPES))

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``network``, a tensor or tensors in tuples; those in half precision as float32."""
        with autocast(self.precision, inputs.device):
            outputs = super().__call__(inputs, network, *args, **kwargs)
        return to_float32(outputs)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
