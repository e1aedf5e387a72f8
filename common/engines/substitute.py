"""A picture of M3AE's substitute image during training."""

from collections.abc import Sequence

import ignite.distributed as idist
from ignite.engine import Engine, Events

from common.evaluation.report.slices import substitute_figure
from common.networks import M3AE

INTERVAL = 50  # number of epochs between two pictures


class SubstituteFigure:
    """Draw the learned substitute image of an `M3AE` into a PNG file, every 50 epochs and after the last one."""

    def __init__(self, network: M3AE, path: str, modalities: Sequence[str]) -> None:
        self.network, self.path, self.modalities = network, path, tuple(modalities)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if idist.get_rank() == 0 and (epoch % INTERVAL == 0 or epoch == engine.state.max_epochs):
            substitute_figure(self.network.x_sub.detach().cpu(), self.modalities, self.path)
