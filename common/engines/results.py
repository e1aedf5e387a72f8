"""Handlers that turn what the engines compute into files: tables, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events
from torch import nn

from common.evaluation import dice_heatmap, region_dice, subset_table, substitute_figure, write_results
from common.io.files import replacing


class SubsetResults:
    """Collect Dice per case, subset and region from an evaluator, and write ``results.csv``, ``table.md``,
    ``dice.png``.

    The evaluator's postprocessed outputs must hold region masks ``pred`` and ``label`` ``(R, X, Y, Z)``, its batches
    ``case`` and ``subset`` (see `SubsetDataset`).

    Args:
        output_dir: folder of the files.
        modalities: the cohort's modalities in order.
        regions: names of the region channels.
    """

    def __init__(self, output_dir: str, modalities: Sequence[str], regions: Sequence[str]) -> None:
        self.folder, self.modalities, self.regions = Path(output_dir), tuple(modalities), tuple(regions)
        self.rows: list[tuple[str, str, str, str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register on each iteration and on COMPLETED."""
        engine.add_event_handler(Events.STARTED, self.rows.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _collect(self, engine: Engine) -> None:
        for sample, output in zip(engine.state.batch, engine.state.output, strict=True):
            scores = region_dice(output["pred"], output["label"])
            for region, value in zip(self.regions, scores.tolist(), strict=True):
                self.rows.append((sample["case"], sample["subset"], region, "dice", value))

    def _write(self, engine: Engine) -> None:
        results = write_results(self.rows, self.folder / "results.csv")
        table = subset_table(results, self.modalities)
        with replacing(self.folder / "table.md") as temporary:
            temporary.write_text(table)
        dice_heatmap(results, self.modalities, self.folder / "dice.png")
        print(
            f"\nDice (%) over {results['case'].nunique()} cases, {self.folder / 'results.csv'}\n\n{table}", flush=True
        )


class SubstituteFigure:
    """Write the learned substitute image of an `M3AE` as a picture at the end of each epoch that is due.

    Args:
        network: the network with ``x_sub``.
        path: PNG file.
        modalities: the cohort's modalities in order.
        interval: epochs between two pictures; the final epoch is always drawn.
    """

    def __init__(self, network: nn.Module, path: str, modalities: Sequence[str], interval: int = 50) -> None:
        self.network, self.path, self.modalities, self.interval = network, path, tuple(modalities), interval

    def attach(self, engine: Engine) -> None:
        """Register on EPOCH_COMPLETED."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Draw if the epoch is due."""
        epoch = engine.state.epoch
        if epoch % self.interval == 0 or epoch == engine.state.max_epochs:
            substitute_figure(self.network.x_sub.detach().cpu(), self.modalities, self.path)
