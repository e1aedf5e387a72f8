"""Random images and labels, the same in every run."""

import torch


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return normally distributed values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, *shape: int, seed: int = 1) -> torch.Tensor:
    """Return class indices below ``count``."""
    return torch.randint(count, shape, generator=torch.Generator().manual_seed(seed))
