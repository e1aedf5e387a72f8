"""What changes with the epoch: a loss that is told its number, a training that starts anew from its own weights."""

from __future__ import annotations

import copy

import torch
from ignite.engine import Engine, Events
from torch import nn

from common.io.settings import check_counts


class SetEpoch:
    """Set ``loss.epoch``, from 0, as each epoch starts; a resumed run goes on with the trainer's count.

    Args:
        loss: with weights that depend on the epoch, e.g. an `ACNLoss`.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def attach(self, engine: Engine) -> None:
        """Register on EPOCH_STARTED."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Tell the loss."""
        self.loss.epoch = engine.state.epoch - 1


class Rounds:
    """Train in rounds: each starts from the weights at the end of the round before, with optimiser and schedule anew.

    Attach it before anything is trained or resumed: what it starts again from is the schedule's state at that moment.

    Source: Qiu et al., "Scratch Each Other's Back", ICCV 2023, section 4.1 (GSS reloads its weights four times).

    Args:
        optimizer: of the trainer; its moments are dropped.
        lr_scheduler: of the optimiser, stepped once per epoch.
        epochs: of a round.
        rounds: how many; the trainer runs ``rounds * epochs`` epochs.

    Raises:
        ValueError: not at least one round of one epoch.
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
        """Register on EPOCH_STARTED."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Start anew if a round begins, other than the first one."""
        done = engine.state.epoch - 1
        if done == 0 or done % self.epochs:
            return
        self.optimizer.state.clear()
        self.lr_scheduler.load_state_dict(copy.deepcopy(self._schedule))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
