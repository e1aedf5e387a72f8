"""Figures as PNG files. Nothing here opens a window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from common.evaluation.tables import mean_by_subset
from common.io.files import replacing
from common.modalities import display_name


def dice_heatmap(results: pd.DataFrame, modalities: Sequence[str], path: str | Path) -> None:
    """Draw the mean Dice (%) of every subset (rows) and region (columns).

    Args:
        results: long-form results (see `write_results`).
        modalities: the cohort's modalities in order.
        path: PNG file.
    """
    means = 100 * mean_by_subset(results, modalities)
    figure = Figure(figsize=(3.6 + 0.7 * len(means.columns), 1.2 + 0.32 * len(means)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means.to_numpy(), vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(means.columns)), means.columns)
    axes.set_yticks(range(len(means)), [" + ".join(map(display_name, name.split("+"))) for name in means.index])
    axes.xaxis.tick_top()
    for row, values in enumerate(means.to_numpy()):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="black" if value > 55 else "white")
    figure.colorbar(image, ax=axes, label="mean Dice (%)")
    _save(figure, path)


def substitute_figure(x_sub: torch.Tensor, modalities: Sequence[str], path: str | Path) -> None:
    """Draw the central axial, coronal and sagittal slice of each modality of a substitute image.

    Args:
        x_sub: ``(1, M, X, Y, Z)``, RAS, normalised intensities. Black and white are each modality's 1st and 99th
            percentile, which its title says.
        modalities: names of the M channels.
        path: PNG file.
    """
    figure = Figure(figsize=(2.2 * len(modalities), 6.2), layout="constrained")
    grid = figure.subplots(3, len(modalities), squeeze=False)
    for column, (name, volume) in enumerate(zip(modalities, x_sub[0], strict=True)):
        low, high = torch.quantile(volume.flatten(), torch.tensor([0.01, 0.99])).tolist()
        for row, axis in enumerate((2, 1, 0)):
            plane = volume.select(axis, volume.shape[axis] // 2)
            grid[row][column].imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high)
            grid[row][column].set_axis_off()
        grid[0][column].set_title(f"{display_name(name)}\n{low:.3f} to {high:.3f}")
    figure.suptitle("substitute image x_sub")
    _save(figure, path)


def _save(figure: Figure, path: str | Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
