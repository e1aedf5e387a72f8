"""Training with one process per GPU, started by torchrun; without GPUs the processes run on the CPU."""

import os

import torch
from monai.data import DistributedSampler
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset


def local_device() -> torch.device:
    """Return this process's device and make it current; raises RuntimeError without torchrun's ``LOCAL_RANK``."""
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError("LOCAL_RANK is not set; start multi_gpu_train.json with torchrun -m monai.bundle run ...")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def distributed(network: nn.Module, device: torch.device | str, find_unused_parameters: bool = False) -> nn.Module:
    """Return a module on the device, wrapped so that gradients are averaged over all processes.

    Buffers are not synchronised: no layer here has running statistics, and losses sum over their own subjects. A module
    without parameters, such as most losses, is returned unwrapped, and so is any module if there is only one process.
    ``find_unused_parameters`` is required if a step may skip parameters, such as the encoders of absent modalities.
    """
    device = torch.device(device)
    network = network.to(device)
    alone = not torch.distributed.is_initialized()
    if alone or not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    return DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        broadcast_buffers=False,
    )


def validation_sampler(dataset: Dataset) -> DistributedSampler | None:
    """Return what divides a dataset among the processes; None if it has fewer items than there are processes.

    Each then validates all items, and the mean over processes is the same.
    """
    if len(dataset) < torch.distributed.get_world_size():  # type: ignore[arg-type]
        return None
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)
