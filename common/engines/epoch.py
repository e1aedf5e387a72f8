"""Telling a loss the epoch."""

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn


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
