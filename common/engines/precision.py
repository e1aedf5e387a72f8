"""The numerical precision of networks, and the order of their values in memory."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SimpleInferer

from common.io.settings import check_choice, named_device, usable_device

logger = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Value of the key ``precision`` -> data type."""
CPU_FACTS = Path("/proc/cpuinfo")


def check_device(device: str | torch.device, precision: str) -> None:
    """Refuse a device that is not available, an unknown precision, and float16 without a GPU; warn of slow bfloat16."""
    check_choice("precision", precision, tuple(DTYPES))
    device = usable_device("device", device)
    if precision == "float16" and device.type != "cuda":
        raise ValueError(
            f"precision 'float16' with device {device}: float16 requires a GPU; expected 'float32' or 'bfloat16'."
        )
    if precision == "bfloat16" and device.type == "cpu" and fast_precision(device) == "float32":
        logger.warning("precision 'bfloat16': this CPU only emulates it, which can take 20 times as long; use float32.")


def fast_precision(device: str | torch.device) -> str:
    """Return ``bfloat16`` for a CPU that has instructions for it, else ``float32``, as the papers train on a GPU.

    In bfloat16 a step of the bundles' networks takes 65 to 78 % of the time of float32 on the phantom, and 56 to 64 %
    at 48 x 64 x 48 voxels (AMD Zen 5, one core). Emulated, it can take 20 times as long (AVX2).
    """
    if named_device("device", device).type != "cpu" or not CPU_FACTS.is_file():
        return "float32"
    return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", CPU_FACTS.read_text()) else "float32"


def fast_memory_format(device: str | torch.device, crop: Sequence[int]) -> torch.memory_format:
    """Return the order of values in memory in which the device trains fastest; results differ by rounding.

    For 3D networks (three sizes in ``crop``) on a CPU this is channels-last. A step of the bundles' networks on the
    phantom then takes 69 to 89 % of the time in float32 (AMX processor) and 65 to 84 % in bfloat16 (AMD Zen 5).
    """
    fast = named_device("device", device).type == "cpu" and len(crop) == 3
    return torch.channels_last_3d if fast else torch.contiguous_format


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return a context in which networks compute in a precision wherever `torch.autocast` considers that safe.

    For float32 it disables casting, even inside a context of another precision.
    """
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, DTYPES[precision])


def to_float32(outputs: Any) -> Any:
    """Return a tensor, or nested tuples, lists and dictionaries of tensors, with half precision cast to float32."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
    if isinstance(outputs, Mapping):
        return {key: to_float32(value) for key, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        values = [to_float32(value) for value in outputs]
        return type(outputs)(*values) if hasattr(outputs, "_fields") else type(outputs)(values)
    return outputs


class PrecisionInferer(SimpleInferer):
    """Run a training batch in ``float32``, ``bfloat16`` or, on a GPU, ``float16``.

    Weights, gradients and losses stay in float32. bfloat16 needs no loss scaling; processors with bfloat16 instructions
    (AVX512-BF16, AMX, GPUs since Ampere) train up to 2.5 times as fast. MONAI's ``amp`` casts on a GPU alone, and the
    loss too: float16 needs it for its GradScaler, and ``amp_kwargs`` then have to disable its casting.
    """

    def __init__(self, precision: str = "float32") -> None:
        super().__init__()
        self.precision = check_choice("precision", precision, tuple(DTYPES))

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of ``network``, a tensor or nested tensors, with half precision cast to float32."""
        with autocast(self.precision, inputs.device):
            outputs = super().__call__(inputs, network, *args, **kwargs)
        return to_float32(outputs)
