"""A simulated accelerator: tensors on PyTorch's meta device, which have a shape and a device but no values.

Code that runs on it would run on a GPU without waiting for it: reading the value of a tensor raises, except through
`common.modalities.to_host`, whose calls are counted. Operations that mix tensors of the CPU and of the device are
refused, as on a GPU. Nothing is computed, so networks and crops can have their full size.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class _OneDevice(TorchDispatchMode):
    """Refuse operations on tensors of two devices; zero-dimensional CPU tensors are allowed, as on a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        arguments = tree_leaves((args, kwargs))
        devices = {x.device.type for x in arguments if isinstance(x, torch.Tensor) and x.ndim > 0}
        if len(devices) > 1 and function not in COPIES:
            shapes = [(x.device.type, list(x.shape)) for x in arguments if isinstance(x, torch.Tensor)]
            raise AssertionError(f"{function}: tensors on several devices: {shapes}")
        return function(*args, **(kwargs or {}))


@contextmanager
def accelerator(absent: tuple[int, int] | None = None) -> Iterator[list[str]]:
    """Simulate that `DEVICE` computes; yield a list that gets one line for each value read by the host.

    All values read are 1 or True, as if all were present, but for ``absent``, the indices of a sample and a modality.
    """
    reads: list[str] = []

    def read(x: torch.Tensor) -> torch.Tensor:
        if x.device != DEVICE:
            return x
        caller = sys._getframe(1)
        reads.append(f"{caller.f_code.co_filename}:{caller.f_lineno}")
        values = torch.ones(x.shape, dtype=x.dtype)
        if absent is not None and x.ndim == 2:
            values[absent] = 0
        return values

    autocast = torch.autocast

    def no_autocast(device_type, *args, **kwargs):
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("common.") and hasattr(module, "to_host"):
                patch.setattr(module, "to_host", read)
        patch.setattr(torch, "autocast", no_autocast)
        with _OneDevice():
            yield reads
