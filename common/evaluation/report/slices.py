"""Pictures of slices with predictions, and of M3AE's substitute image."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill, wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.evaluation.metrics.overlap import region_masks
from common.evaluation.report.style import PAGE, styled
from common.modalities import LabelSet, display_subset

OUTLINES = ("#56B4E9", "#F0E442", "#D55E00", "#CC79A7", "#009E73")
"""Lighter colours of Okabe-Ito, for regions on grey images, from the largest region to the smallest."""


@dataclass(frozen=True)
class Slice:
    """An axial slice of a case, with the prediction made from one subset of its modalities.

    Attributes:
        title: title of the case, e.g. ``worst case: Phantom_029``.
        subset: name of the subset, e.g. ``t1c+flair``.
        images: ``(M, X, Y)``, RAS; modalities outside the subset are ignored.
        reference: label map ``(X, Y)`` in the cohort's values.
        prediction: label map ``(X, Y)`` in the cohort's values.
        dice: Dice of each region over the whole case, as fractions; NaN if undefined.
        spacing: size of a pixel along x and y in mm.
        method: name of the method, where several are shown side by side.
    """

    title: str
    subset: str
    images: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    dice: Sequence[float]
    spacing: tuple[float, float] = (1.0, 1.0)
    method: str = ""


@styled
def slice_panels(rows: Sequence[Slice], labels: LabelSet, modalities: Sequence[str]) -> Figure:
    """Draw each case in a row: a frame for its reference, then one for each prediction, as outlines.

    Slices with the same title are of one case. A prediction is drawn on the last modality of its subset, the reference
    on that of the case's last subset. The view is radiological (the patient's left is on the right) and cropped to the
    brain and the labels. Black and white are each image's 1st and 99th percentile there.
    """
    cases = [[row for row in rows if row.title == title] for title in dict.fromkeys(row.title for row in rows)]
    columns = 1 + max(map(len, cases))
    crops = [_crop(case, modalities) for case in cases]
    heights = [0.6 + _ratio(*parts) * PAGE / columns for parts in zip(cases, crops, strict=True)]
    figure = Figure(figsize=(PAGE, sum(heights) + 0.4), layout="constrained")
    stripes = figure.subfigures(len(cases), 1, height_ratios=heights, squeeze=False)[:, 0]
    for stripe, case, crop in zip(stripes, cases, crops, strict=True):
        stripe.suptitle(fill(case[0].title, 110), x=0.01, ha="left", fontsize=7)
        frames = stripe.subplots(1, columns, squeeze=False)[0]
        shown = [("reference", case[-1], case[-1].reference)]
        shown += [(_title(row, labels, 90 // columns), row, row.prediction) for row in case]
        for frame, (title, row, label) in zip(frames, shown, strict=False):
            frame.set_title(title, fontsize=7)
            _show(frame, row.images[_present(row, modalities)[-1]][crop], row.spacing)
            outline(frame, region_masks(label[crop].astype(np.int64), labels), 1.6)
        for frame in frames[len(shown) :]:
            frame.remove()
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
            position: dict[str, Any] = {} if extent is None else {"origin": "lower", "extent": extent}
            axes.contour(mask.T, levels=[0.5], colors=colour, linewidths=width, **position)


def _present(row: Slice, modalities: Sequence[str]) -> list[int]:
    """Return the channels of a row's subset."""
    return [modalities.index(name) for name in row.subset.split("+")]


def _crop(case: Sequence[Slice], modalities: Sequence[str]) -> tuple[slice, slice]:
    """Return the box outside which the images that are present and the labels all equal their corner value."""
    planes = [
        plane for row in case for plane in (*row.images[_present(row, modalities)], row.reference, row.prediction)
    ]
    inside = np.any([plane != plane[:1, :1] for plane in planes], axis=0)
    if not inside.any():
        return slice(None), slice(None)
    box = [np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0)]
    return slice(box[0][0], box[0][-1] + 1), slice(box[1][0], box[1][-1] + 1)


def _title(row: Slice, labels: LabelSet, width: int) -> str:
    """Return the method, or else the subset, and its Dice (%), in lines of some characters at most."""
    dice = ["n/a" if np.isnan(value) else f"{100 * value:.0f}" for value in row.dice]
    scores = ", ".join(f"{name} {value}" for name, value in zip(labels.regions, dice, strict=True))
    name = row.method or display_subset(row.subset).replace(" ", "")
    return "\n".join([*wrap(name, width), *wrap(scores, width)])


def _ratio(case: Sequence[Slice], crop: tuple[slice, slice]) -> float:
    """Return the height of a case's frames as a multiple of their width."""
    (across, along), spacing = case[0].reference[crop].shape, case[0].spacing
    return along * spacing[1] / (across * spacing[0])


def _show(axes: Axes, plane: np.ndarray, spacing: tuple[float, float]) -> None:
    """Draw a plane ``(X, Y)``, RAS, as radiologists see it: the patient's right on the left."""
    plane = plane.astype(np.float32)
    low, high = np.quantile(plane, (0.01, 0.99))
    axes.imshow(plane.T, origin="lower", cmap="gray", vmin=low, vmax=high, aspect=spacing[1] / spacing[0])
    axes.invert_xaxis()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
