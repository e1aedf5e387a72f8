"""What a network costs: parameters, operations, memory, time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_facts(network: nn.Module, modalities: int, window: Sequence[int]) -> dict[str, float | int]:
    """Return the number of ``parameters`` and the ``gflops`` of one window with all modalities; a multiplication and an
    addition count as two operations.

    A substitute image that is learnt (M3AE's ``x_sub``) is no part of the parameters, as in its paper: 4.7 million at
    width 16. It is as large as the grid of the cohort's images, 35.7 million values on that of BraTS; these are the
    ``substitute_values``.

    Args:
        network: takes ``(1, M, *window)``.
        modalities: M.
        window: size in voxels.
    """
    image = torch.zeros(1, modalities, *window, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    substitute = getattr(network, "x_sub", None)
    apart = {} if substitute is None else {"substitute_values": substitute.numel()}
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters() if parameter is not substitute),
        **apart,
        "gflops": round(counter.get_total_flops() / 1e9, 3),
    }


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mb` start anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        CLEAR.write_text("5")  # resets VmHWM, see proc(5)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that was in use since the reset, MB: of a GPU's tensors, or of the process.

    NaN where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if not CLEAR.exists():
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) * 1024 / 1e6


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
