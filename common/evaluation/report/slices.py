"""Pictures of slices with predictions, and of M3AE's substitute image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.evaluation.metrics.overlap import region_masks
from common.evaluation.report.style import PAGE, number, styled
from common.io.files import replacing
from common.modalities import LabelSet, display_name, display_subset

OUTLINES = ("#56B4E9", "#F0E442", "#D55E00", "#CC79A7", "#009E73")
"""Lighter colours of Okabe-Ito, for regions on grey images, from the largest region to the smallest."""


@dataclass(frozen=True)
class Slice:
    """An axial slice of a case, with the prediction made from one subset of its modalities.

    Attributes:
        title: title of the row, e.g. ``worst case: Phantom_029``.
        subset: name of the subset, e.g. ``t1c+flair``.
        images: ``(M, X, Y)``, RAS; modalities outside the subset are ignored.
        reference: label map ``(X, Y)`` in the cohort's values.
        prediction: label map ``(X, Y)`` in the cohort's values.
        dice: Dice of each region over the whole case, as fractions; NaN if undefined.
        spacing: size of a pixel along x and y in mm.
    """

    title: str
    subset: str
    images: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    dice: Sequence[float]
    spacing: tuple[float, float] = (1.0, 1.0)


@styled
def slice_panels(rows: Sequence[Slice], labels: LabelSet, modalities: Sequence[str]) -> Figure:
    """Draw slices of the modalities of a subset, with outlines of the reference and of the subset's prediction.

    A row has a frame for each modality, which is empty if the subset lacks it, and then the outlines on the last
    modality of the subset. The view is radiological (the patient's left on the right) and cropped to the brain and the
    labels; black and white are each image's 1st and 99th percentile there.
    """
    crops = [_crop(row, modalities) for row in rows]
    width = PAGE / (len(modalities) + 2) - 0.06
    shapes = [row.images[0][crop].shape for row, crop in zip(rows, crops, strict=True)]
    heights = [
        0.4 + width * (shape[1] * row.spacing[1]) / (shape[0] * row.spacing[0])
        for row, shape in zip(rows, shapes, strict=True)
    ]
    figure = Figure(figsize=(PAGE, sum(heights) + 0.45), layout="constrained")
    stripes = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for stripe, row, crop in zip(stripes, rows, crops, strict=True):
        scores = [f"{name} {number(100 * value)}" for name, value in zip(labels.regions, row.dice, strict=True)]
        title = f"{row.title}, {display_subset(row.subset)}: Dice (%) {', '.join(scores)}"
        stripe.suptitle(fill(title, 110), x=0.01, ha="left", fontsize=7)
        _draw_slice(stripe.subplots(1, len(modalities) + 2), row, crop, labels, modalities)
    handles = [Line2D([], [], color=OUTLINES[i % len(OUTLINES)]) for i in range(len(labels.regions))]
    note = "Axial slices, radiological view: the patient's left is on the right."
    figure.legend(handles, list(labels.regions), loc="outside lower center", ncols=len(handles), title=note)
    return figure


def outline(axes: Axes, masks: np.ndarray, thickest: float, extent: Sequence[float] | None = None) -> None:
    """Outline regions on a plane, each with a thinner line than the one before, so that all stay visible.

    ``masks`` are bool ``(R, A, B)``, with A from left to right. The first line is ``thickest`` points wide, the last
    0.6. ``extent`` has the left, right, bottom and top of the plane; without it they are in pixels.
    """
    for i, (mask, width) in enumerate(zip(masks, np.linspace(thickest, 0.6, len(masks)), strict=True)):
        if mask.any() and not mask.all():  # otherwise there is no outline
            colour = OUTLINES[i % len(OUTLINES)]
            # An extent refers to the edges of the outer pixels; without one, pixel centres are at whole numbers.
            place = {} if extent is None else {"origin": "lower", "extent": extent}
            axes.contour(mask.T, levels=[0.5], colors=colour, linewidths=width, **place)


@styled
def substitute_figure(x_sub: torch.Tensor, modalities: Sequence[str], path: str | Path) -> None:
    """Write the central axial, coronal and sagittal slice of each modality of a substitute image as PNG.

    ``x_sub`` is ``(1, M, X, Y, Z)``, RAS, normalised intensities. Black and white are each modality's 1st and 99th
    percentile, which are printed in its title.
    """
    figure = Figure(figsize=(PAGE / 4 * len(modalities), 5.4), layout="constrained")
    grid = figure.subplots(3, len(modalities), squeeze=False)
    for column, (name, volume) in enumerate(zip(modalities, x_sub[0], strict=True)):
        low, high = torch.quantile(volume.flatten(), torch.tensor([0.01, 0.99])).tolist()
        for row, axis in enumerate((2, 1, 0)):
            plane = volume.select(axis, volume.shape[axis] // 2)
            grid[row][column].imshow(plane.T.numpy(), origin="lower", cmap="gray", vmin=low, vmax=high)
            grid[row][column].set_axis_off()
        grid[0][column].set_title(f"{display_name(name)}\n{low:.3f} to {high:.3f}")
    figure.suptitle("substitute image x_sub")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _present(row: Slice, modalities: Sequence[str]) -> list[int]:
    """Return the channels of a row's subset."""
    return [modalities.index(name) for name in row.subset.split("+")]


def _crop(row: Slice, modalities: Sequence[str]) -> tuple[slice, slice]:
    """Return the box outside which the present images and the labels all equal their corner value."""
    planes = np.stack([*row.images[_present(row, modalities)], row.reference, row.prediction])
    inside = (planes != planes[:, :1, :1]).any(axis=0)
    if not inside.any():
        return slice(None), slice(None)
    box = [np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0)]
    return slice(box[0][0], box[0][-1] + 1), slice(box[1][0], box[1][-1] + 1)


def _draw_slice(
    axes: np.ndarray, row: Slice, crop: tuple[slice, slice], labels: LabelSet, modalities: Sequence[str]
) -> None:
    present = _present(row, modalities)
    for channel, frame in enumerate(axes[: len(modalities)]):
        frame.set_title(display_name(modalities[channel]), fontsize=7)
        if channel in present:
            _show(frame, row.images[channel][crop], row.spacing)
        else:
            _show(frame, np.zeros_like(row.images[present[0]][crop]), row.spacing)
            frame.images[0].set_alpha(0.06)
            frame.text(0.5, 0.5, "missing", ha="center", va="center", transform=frame.transAxes, color="0.4")
    for frame, name, label in zip(axes[-2:], ("reference", "prediction"), (row.reference, row.prediction), strict=True):
        frame.set_title(f"{name} on {display_name(modalities[present[-1]])}", fontsize=7)
        _show(frame, row.images[present[-1]][crop], row.spacing)
        outline(frame, region_masks(label[crop].astype(np.int64), labels), 1.6)


def _show(axes: Axes, plane: np.ndarray, spacing: tuple[float, float]) -> None:
    """Draw a plane ``(X, Y)``, RAS, as radiologists see it: the patient's right on the left."""
    plane = plane.astype(np.float32)
    low, high = np.quantile(plane, (0.01, 0.99))
    axes.imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high, aspect=spacing[1] / spacing[0])
    axes.invert_xaxis()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
