"""PASSION's balance between modalities, epoch by epoch."""

from pathlib import Path

import ignite.distributed as idist
import pandas as pd
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.evaluation.report.style import COLUMN, mark, styled
from common.io.files import replacing
from common.losses.passion import PassionLoss
from common.modalities import display_name


class PreferenceBalancer:
    """Let a `PassionLoss` update its coefficients after each epoch, and record the teacher's relative preference.

    ``rp_<modality>`` (of the epoch) and ``beta_<modality>`` (from the next epoch on) go into ``engine.state.metrics``.
    Attach this handler before those that print and log metrics, and before the checkpoints. In the output folder,
    ``preference.csv`` has the whole history (columns epoch, modality, relative_preference, beta; epochs count from 1)
    and ``preference.png`` its curves, as in the paper's Fig. 6. Rank 0 replaces both in each epoch; a resumed run keeps
    the rows of earlier epochs.
    """

    def __init__(self, loss: PassionLoss, folder: str) -> None:
        self.loss, self.folder = loss, Path(folder)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for sums in (self.loss.sums, self.loss.counts):
            sums.copy_(idist.all_reduce(sums))
        values = self.loss.end_epoch(engine.state.epoch - 1)  # the authors count from 0
        engine.state.metrics.update(values)
        if idist.get_rank() == 0:
            self._write(engine.state.epoch, values)

    @styled
    def _write(self, epoch: int, values: dict[str, float]) -> None:
        rows = [(epoch, name, values[f"rp_{name}"], values[f"beta_{name}"]) for name in self.loss.modalities]
        history = pd.DataFrame(rows, columns=["epoch", "modality", "relative_preference", "beta"])
        path = self.folder / "preference.csv"
        if epoch > 1 and path.is_file():
            before = pd.read_csv(path)
            history = pd.concat([before[before["epoch"] < epoch], history], ignore_index=True)
        with replacing(path) as temporary:
            history.to_csv(temporary, index=False)
        with replacing(self.folder / "preference.png") as temporary:
            preference_figure(history).savefig(temporary, dpi=150)


@styled
def preference_figure(history: pd.DataFrame) -> Figure:
    """Draw each modality's relative preference over the epochs, from ``preference.csv``; below 0, it is neglected."""
    figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.6", linewidth=0.6)
    for i, (name, rows) in enumerate(history.groupby("modality", sort=False)):
        axes.plot(
            rows["epoch"],
            rows["relative_preference"],
            markevery=max(len(rows) // 10, 1),
            label=display_name(name),
            **mark(i),
        )
    axes.set(xlabel="epoch", ylabel="relative preference")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    figure.legend(loc="outside upper center", ncols=history["modality"].nunique())
    return figure
