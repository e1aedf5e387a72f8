"""Learning rates over a training in stages."""

import math
from collections.abc import Sequence

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class StagedCosine(LambdaLR):
    """A linear warm-up and one cosine to 0 over a training whose stages have epochs of different cost.

    The cosine falls with the time that has passed, not with the number of epochs: coarse stages have most epochs, but
    a small part of the time. To be stepped at the end of each epoch.

    Args:
        optimizer: its learning rate is the largest one.
        stage_epochs: number of epochs of each stage.
        stage_time: the planned share of each stage in the time of the training; they add up to 1.
        warmup: share of the time in which the rate rises, from a tenth.

    Raises:
        ValueError: if the numbers of epochs and shares differ, or the shares do not add up to 1.

    Examples:
        >>> import torch
        >>> from common.engines.schedule import StagedCosine
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = StagedCosine(optimizer, stage_epochs=(8, 2), stage_time=(0.5, 0.5), warmup=0.0)
        >>> [round(schedule.factor(epoch), 2) for epoch in (0, 4, 8, 9, 10)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, stage_epochs: Sequence[int], stage_time: Sequence[float], warmup: float = 0.02
    ) -> None:
        if len(stage_epochs) != len(stage_time) or not math.isclose(sum(stage_time), 1):
            raise ValueError(f"stage_time {stage_time}: expected a share for each of stage_epochs, 1 in all.")
        # Plain numbers, since a checkpoint to resume from holds the schedule's attributes.
        self.ends = np.cumsum([0, *stage_epochs]).tolist(), np.cumsum([0.0, *stage_time]).tolist()
        self.warmup = warmup
        super().__init__(optimizer, self.factor)

    def factor(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0, as a share of the largest one."""
        passed = float(np.interp(epoch, *self.ends))
        if passed < self.warmup:
            return 0.1 + 0.9 * passed / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (passed - self.warmup) / (1 - self.warmup)))
