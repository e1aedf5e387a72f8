"""Handlers that act at the start of an epoch: telling an object the epoch's number, and restarting in rounds."""

import copy

import torch
from ignite.engine import Engine, Events
from torch import nn

from common.io.settings import check_counts
from common.transforms import StagedDataset


class SetEpoch:
    """Set ``epoch`` of a loss or a `StagedDataset`, counted from 0, at the start of each epoch.

    A resumed run continues the count.
    """

    def __init__(self, target: nn.Module | StagedDataset) -> None:
        self.target = target

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.target.epoch = engine.state.epoch - 1


class Rounds:
    """Train in rounds: each starts from the final weights of the round before, with a new optimiser and schedule.

    The trainer runs ``rounds * epochs`` epochs, and the schedule is stepped once per epoch. Construct this handler
    before training or resuming, since it saves the schedule's initial state then.

    Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023, section 4.2 (GSS reloads its weights four times).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        epochs: int,
        rounds: int,
    ) -> None:
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        check_counts(epochs=epochs, rounds=rounds)
        self.epochs, self.rounds = epochs, rounds
        self._schedule = copy.deepcopy(lr_scheduler.state_dict())
        self._rates = [group["lr"] for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        done = engine.state.epoch - 1
        if done == 0 or done % self.epochs:
            return
        self.optimizer.state.clear()
        self.lr_scheduler.load_state_dict(copy.deepcopy(self._schedule))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
