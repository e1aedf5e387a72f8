"""Figures of an evaluation, drawn from given data without opening a window.

Each function returns a `matplotlib.figure.Figure` in the style of `report.style`; ordered quantities use viridis.
Means are those of `analysis.statistics.subset_statistics`; Dice is in per cent. ``metric`` is ``dice`` or
``lesion_dice``.
"""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.evaluation.analysis.statistics import (
    mean_over_subsets,
    subset_intervals,
    subset_statistics,
    with_shared_cells,
)
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import LATENT_COLUMNS, Evaluation, subsets_of_any
from common.evaluation.report.style import COLOURS, COLUMN, PAGE, dodge, mark, number, styled
from common.modalities import display_name, subset_size


@styled
def heatmap(evaluation: Evaluation, metric: str = "dice") -> Figure:
    """Draw the mean Dice for every subset (rows) and region (columns)."""
    means = _means(evaluation, metric)
    names, regions, modalities = [*means.index], [*means.columns], evaluation.modalities
    figure = Figure(figsize=(COLUMN, 0.6 + 0.19 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[len(modalities) * 0.32, len(regions) * 0.55])
    _circles(left, names, modalities, rows=True)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.85")
    image = right.imshow(means, cmap=colours, aspect="auto", vmin=0, vmax=100)
    right.set_xticks(range(len(regions)), regions)
    right.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, left=False, labelleft=False, length=0)
    right.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(means.to_numpy()):
        right.text(column, row, number(value), ha="center", va="center", color="white" if value < 50 else "black")
    figure.colorbar(image, ax=right, label=f"mean {METRICS[metric].label} (%)", fraction=0.1, aspect=30)
    return figure


@styled
def boxplots(evaluation: Evaluation) -> Figure:
    """Draw the distribution of Dice over cases for every subset, one panel per region.

    Boxes extend from the first to the third quartile, with a line at the median. Whiskers extend to the last case
    within 1.5 times that range. The white diamond is the mean. Points are cases, each at the same position in every
    box.
    """
    values = 100 * evaluation.values("dice")
    names, cases = evaluation.subsets, values.index.unique("case")
    frames, figure = _subset_panels(names, evaluation.modalities, evaluation.regions)
    for axes, region in zip(frames, evaluation.regions, strict=True):
        table = values[region].unstack("modalities").reindex(index=cases, columns=names)
        axes.boxplot(
            [table[name].dropna() for name in names],
            positions=range(len(names)),
            widths=0.7,
            manage_ticks=False,
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            boxprops={"facecolor": "#BFDFF2", "edgecolor": COLOURS[0], "linewidth": 0.8},
            medianprops={"color": COLOURS[1], "linewidth": 1.4},
            whiskerprops={"color": COLOURS[0], "linewidth": 0.8},
            capprops={"color": COLOURS[0], "linewidth": 0.8},
            meanprops={"marker": "D", "ms": 3.5, "mfc": "white", "mec": "black", "mew": 0.8},
        )
        positions = np.arange(len(names)) + dodge(len(cases), 0.6)[:, None]
        # Rasterised, since thousands of points would make the PDF large.
        axes.scatter(positions, table, s=3, color="black", alpha=0.6, linewidths=0, zorder=2, rasterized=True)
        axes.set_ylabel("Dice (%)")
    return figure


@styled
def comparison(evaluations: Sequence[Evaluation], metric: str = "dice") -> Figure:
    """Draw the mean Dice of several methods for every subset, with its 95 % interval, one panel per region."""
    first, names = evaluations[0], subsets_of_any(evaluations)
    frames, figure = _subset_panels(names, first.modalities, first.regions)
    means = [_means(evaluation, metric).reindex(names) for evaluation in evaluations]
    limits = [100 * subset_intervals(evaluation, metric).reindex(names) for evaluation in evaluations]
    positions = np.arange(len(names))
    for axes, region in zip(frames, first.regions, strict=True):
        for position in positions[::2]:
            axes.axvspan(position - 0.5, position + 0.5, color="0.95", linewidth=0, zorder=0)
        for i, (shift, table, limit) in enumerate(zip(dodge(len(means), 0.76), means, limits, strict=True)):
            axes.plot(positions + shift, table[region], linestyle="none", **mark(i))
            low, high = limit["low", region], limit["high", region]
            axes.vlines(positions + shift, low, high, color=mark(i)["color"], linewidth=0.6, alpha=0.6, zorder=1)
        axes.set_ylabel(f"mean {METRICS[metric].label} (%)")
    _legend(figure, [evaluation.name for evaluation in evaluations])
    return figure


@styled
def robustness(evaluations: Sequence[Evaluation]) -> Figure | None:
    """Draw the mean Dice against the number of modalities present, one panel per region, a line per method.

    A point is the mean over the subsets of that size; its bar is the 95 % bootstrap interval over cases (see
    `analysis.statistics.mean_over_subsets`). Points of different methods are drawn side by side. A subset that any
    method lacks is left out for all. The result is None if no subset is shared.
    """
    common = with_shared_cells(evaluations, "dice")
    first = common[0]
    if not first.subsets:
        return None
    figure = Figure(figsize=(COLUMN if len(first.regions) == 1 else PAGE, 2.3), layout="constrained")
    frames = figure.subplots(1, len(first.regions), sharey=True, squeeze=False)[0]
    for i, (shift, evaluation) in enumerate(zip(dodge(len(common), 0.4), common, strict=True)):
        parts = evaluation.results.groupby(evaluation.results["modalities"].map(subset_size))
        sizes = {size: mean_over_subsets(replace(evaluation, results=rows), "dice") for size, rows in parts}
        curves = 100 * pd.concat(sizes, names=["size"])
        for axes, region in zip(frames, first.regions, strict=True):
            curve = curves.xs(region, level="region")
            axes.plot(curve.index + shift, curve["mean"], **mark(i), linewidth=0.8)
            axes.vlines(curve.index + shift, curve["low"], curve["high"], color=mark(i)["color"], linewidth=0.8)
    for axes, region in zip(frames, first.regions, strict=True):
        axes.set_title(region)
        axes.set_xticks(range(1, len(first.modalities) + 1))
        axes.set_xlim(0.7, len(first.modalities) + 0.3)
        axes.set_xlabel("modalities present")
        axes.grid(axis="y")
    frames[0].set_ylabel("mean Dice (%)")
    _legend(figure, [evaluation.name for evaluation in evaluations])
    return figure


@styled
def embedding(latents: pd.DataFrame) -> Figure | None:
    """Draw a t-SNE of an evaluation's latents with a colour and marker per modality, or return None for too few.

    It needs at least 2 modalities, cases and features, and 4 rows. Source: van der Maaten and Hinton, JMLR 2008, as
    implemented in scikit-learn, with a fixed seed. Distances in a t-SNE mean little.
    """
    from sklearn.manifold import TSNE  # slow to import, and used only here
    from threadpoolctl import threadpool_limits

    if latents.empty:
        return None
    features = latents.drop(columns=list(LATENT_COLUMNS)).to_numpy(dtype=float)
    cases = latents["modality"].value_counts()
    if len(cases) < 2 or cases.max() < 2 or min(len(features), 2 * features.shape[1]) < 4:
        return None
    perplexity = min(30, (len(features) - 1) / 3)
    with threadpool_limits(1):  # its threads wait actively, which is 4 times slower on busy cores
        points = TSNE(perplexity=perplexity, random_state=0).fit_transform(features)
    figure = Figure(figsize=(COLUMN, 3.3), layout="constrained")
    axes = figure.subplots()
    names = list(latents["modality"].unique())
    for i, name in enumerate(names):
        chosen = points[(latents["modality"] == name).to_numpy()]
        axes.plot(*chosen.T, linestyle="none", alpha=0.8, **mark(i))
    axes.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    _legend(figure, [display_name(name) for name in names])
    return figure


def _means(evaluation: Evaluation, metric: str) -> pd.DataFrame:
    """Return the mean Dice, a row per subset, a column per region."""
    return 100 * subset_statistics(evaluation, metric)["mean"]


def _subset_panels(
    names: Sequence[str], modalities: Sequence[str], regions: Sequence[str]
) -> tuple[np.ndarray, Figure]:
    """Return a panel for each region, and their figure; circles below them show which modalities a subset has."""
    heights = [1.4] * len(regions) + [0.16 * len(modalities)]
    figure = Figure(figsize=(COLUMN if len(names) < 8 else PAGE, sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for panel in axes[1:-1]:
        panel.sharey(axes[0])
    _circles(axes[-1], names, modalities)
    for panel, region in zip(axes, regions, strict=False):
        panel.set_title(region)
        panel.tick_params(bottom=False, labelbottom=False)
        panel.grid(axis="y")
        sizes = [subset_size(name) for name in names]
        for position in np.flatnonzero(np.diff(sizes)):
            panel.axvline(position + 0.5, color="0.6", linewidth=0.6, linestyle=":")
    axes[-1].set_xlim(-0.5, len(names) - 0.5)
    return axes[:-1], figure


def _circles(axes: Axes, names: Sequence[str], modalities: Sequence[str], rows: bool = False) -> None:
    """Draw circles as in the papers, filled if a modality is present: a column per subset, or a row."""
    present = np.array([[modality in name.split("+") for modality in modalities] for name in names])
    subset, modality = np.indices(present.shape)
    x, y = (modality, subset) if rows else (subset, modality)
    axes.scatter(x, y, s=20, c=np.where(present.ravel(), "black", "white"), edgecolors="black", linewidths=0.7)
    shown = [display_name(name) for name in modalities]
    if rows:
        axes.set_xticks(range(len(shown)), shown)
        axes.set(yticks=[], xlim=(-0.6, len(shown) - 0.4))
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    else:
        axes.set_yticks(range(len(shown)), shown)
        axes.set(xticks=[], ylim=(len(shown) - 0.4, -0.6))
        axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    """Add a legend above the panels, in as many columns as fit; the figure grows by its height."""
    names = [fill(name, 50) for name in names]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = np.clip(int(figure.get_figwidth() / (0.06 * longest + 0.5)), 1, len(names))
    handles = [Line2D([], [], linestyle="none", **mark(i)) for i in range(len(names))]
    legend = figure.legend(handles, names, loc="outside upper center", ncols=columns)
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)
