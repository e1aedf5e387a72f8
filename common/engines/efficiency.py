"""The cost of a network: parameters, operations, memory, time."""

import resource
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def network_facts(network: nn.Module, modalities: int, window: Sequence[int]) -> dict[str, float | int]:
    """Return the number of ``parameters``, and the ``gflops`` of one window with all modalities.

    A multiplication and an addition count as two operations. A learned substitute image (M3AE's ``x_sub``) does not
    count as parameters, as in its paper (4.7 million at width 16). It is as large as the grid of the cohort's images
    (35.7 million values for BraTS); this number is returned as ``substitute_values``.
    """
    image = torch.zeros(1, modalities, *window, device=next(network.parameters()).device)
    # PyTorch's counter does not know the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    substitute = {name: size for name, size in sizes.items() if name.rpartition(".")[2] == "x_sub"}
    return {
        "parameters": sum(sizes.values()) - sum(substitute.values()),
        **({"substitute_values": sum(substitute.values())} if substitute else {}),
        "gflops": round(counter.get_total_flops() / 1e9, 3),
    }


def reset_peak_memory(device: torch.device) -> None:
    """Reset a GPU's counter that `peak_memory_mb` reads."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MB: of a GPU's tensors since the last reset, else of this process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
