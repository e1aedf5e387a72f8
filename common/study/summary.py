"""One page on one prediction, for whoever reads the images: volumes, pictures, what they rest on, and what is doubtful.

Input is plain data. Nothing that says who the patient is belongs here: no names, dates, identifiers or paths.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from common.evaluation.metrics.case import uncertainty
from common.evaluation.report.layout import NOTHING, Cell, Column, Table, decimal
from common.evaluation.report.slices import OUTLINES, outline
from common.evaluation.report.style import number, styled
from common.io.files import replacing
from common.modalities import LabelSet, display_name, foreground

REGIONS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
"""Regions in words; others keep their names."""

LEAST_IN_LARGEST = 0.95
"""A reader is warned of a lesion in several pieces if the largest one has less than this share of its volume."""

UNSURE = 0.5
"""A reader is warned of a region whose mean entropy (nats), where it was drawn, is above this: that of probabilities of
0.80 throughout. Of the predictions for the nine test cases of open_glioma from all 15 subsets it picks out 196 of
M3AE's 394 regions, among them 159 of the 193 with a Dice below 0.5, and 153 of GSS's 405, among them 141 of 214. With
all four sequences it says less: of both 11 of 54, among them 5 of the 13 with a Dice below 0.5."""

MARGIN = 2
"""Voxels around the head in pictures."""


@dataclass(frozen=True)
class UsedModality:
    """A modality that a prediction was made from.

    Attributes:
        modality: canonical name.
        source: what was taken for it, e.g. ``series 7``.
        reason: why.
        confidence: of the recognition, 0 to 1; None where it was set by hand or named by its file.
    """

    modality: str
    source: str
    reason: str
    confidence: float | None = None


@dataclass(frozen=True)
class StudySummary:
    """What `write_summary` shows; what is empty is left out.

    Attributes:
        title: of the page.
        bundle: its name.
        version: of the bundle.
        used: modalities that the prediction was made from.
        missing: names of the other modalities that the network can use.
        volumes: region -> ml, see `volumes`; larger regions first.
        intervals: region -> low and high end (ml) of an interval for the true volume, and its coverage, e.g. 0.9.
        gains: missing modality -> region -> Dice that having it too is expected to add, a fraction.
        pictures: modality -> PNG in base64, see `pictures`.
        warnings: why the result may be wrong, see `quality_warnings`; the most important one first.
        notes: on geometry and preparation: what was registered and how well, what was resampled.
        trained_on: what the weights were trained on, in a few words; None where it is not known.
    """

    title: str
    bundle: str
    version: str
    used: Sequence[UsedModality]
    volumes: Mapping[str, float]
    missing: Sequence[str] = ()
    intervals: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    trained_on: str | None = None


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one HTML file that needs no other file; the same summary gives the same bytes."""
    templates = Environment(loader=PackageLoader("common.study"), autoescape=True)
    shown = {
        "summary": summary,
        "used": [display_name(used.modality) for used in summary.used],
        "missing": [display_name(name) for name in summary.missing],
        "volumes": _volume_table(summary),
        "gains": _gain_table(summary) if summary.gains else None,
        "sequences": _sequence_table(summary),
        "pictures": {display_name(name): png for name, png in summary.pictures.items()},
        "outlines": {_words(region): OUTLINES[i % len(OUTLINES)] for i, region in enumerate(summary.volumes)},
    }
    with replacing(path) as temporary:
        temporary.write_text(templates.get_template("summary.html").render(shown), encoding="utf-8")


def volumes(label: np.ndarray, labels: LabelSet, spacing: Sequence[float]) -> dict[str, float]:
    """Return the volume of each region in ml.

    Args:
        label: label map (X, Y, Z) in the values of ``labels``.
        labels: whose regions are meant.
        spacing: voxel size in mm.
    """
    return _volumes(_masks(label, labels), labels, spacing)


def quality_warnings(
    label: np.ndarray,
    probabilities: np.ndarray | None,
    used: Collection[str],
    labels: LabelSet,
    spacing: Sequence[float],
) -> list[str]:
    """Return in words why a prediction may be wrong, as far as it can be told without a reference.

    Args:
        label: the prediction, label map (X, Y, Z) in the values of ``labels``, RAS.
        probabilities: of the regions, (R, X, Y, Z) in [0, 1]; None where they are not known.
        used: modalities that the prediction was made from.
        labels: whose regions are meant, larger ones first.
        spacing: voxel size of the label map in mm.

    Raises:
        ValueError: the probabilities are not those of the regions on the label map's grid.
    """
    masks = _masks(label, labels)
    if probabilities is not None and probabilities.shape != masks.shape:
        raise ValueError(
            f"Probabilities of shape {probabilities.shape}; expected {masks.shape}: one for each of the regions "
            f"{', '.join(labels.regions)}, on the grid of the label map."
        )
    found, lesion = _volumes(masks, labels, spacing), masks.any(axis=0)
    said = []
    if not lesion.any():
        said.append("Nothing was segmented. That does not mean that there is no lesion.")
    if "ET" in found and "t1c" not in used:
        said.append(_without_t1c(found["ET"]))
    said += _unsure(masks, probabilities, labels)
    said += _at_the_edge(lesion)
    said += _in_pieces(lesion)
    return said


def pictures(
    images: Mapping[str, np.ndarray], label: np.ndarray, labels: LabelSet, spacing: Sequence[float]
) -> dict[str, str]:
    """Draw the axial, coronal and sagittal plane through the lesion's centre in each modality, regions outlined.

    The centre is that of the largest piece, or of the image if nothing was segmented. The view is radiological (the
    patient's right on the left, the front on the left in the sagittal plane) and cut to the head; black and white are
    each image's 1st and 99.9th percentile there.

    Args:
        images: modality -> (X, Y, Z), RAS, finite; those that were used.
        label: label map (X, Y, Z) on the same grid, in the values of ``labels``.
        labels: whose regions are outlined, each over those before it.
        spacing: voxel size in mm.

    Returns:
        Modality -> PNG in base64.
    """
    masks = _masks(label, labels)
    box = _head(images, masks.any(axis=0))
    masks = masks[:, *box]
    centre = _centre(masks.any(axis=0), spacing)
    return {name: _picture(image[box], masks, centre, spacing) for name, image in images.items()}


def _masks(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Return the regions of a label map, bool (R, X, Y, Z)."""
    return labels.to_regions(torch.from_numpy(label.astype(np.int64))[None]).numpy() > 0


def _volumes(masks: np.ndarray, labels: LabelSet, spacing: Sequence[float]) -> dict[str, float]:
    voxel = float(np.prod(spacing)) / 1000
    return {region: float(voxel * np.count_nonzero(mask)) for region, mask in zip(labels.regions, masks, strict=True)}


def _without_t1c(enhancing: float) -> str:
    if enhancing:
        return f"No T1c: the enhancing tumour ({_ml(enhancing)} ml) is a guess from sequences that do not show it."
    return "No T1c: no enhancing tumour was found, but without contrast it cannot be ruled out."


def _unsure(masks: np.ndarray, probabilities: np.ndarray | None, labels: LabelSet) -> list[str]:
    """Name the regions that the network is unsure of where it drew them."""
    if probabilities is None:
        return []
    drawn = [part for part in zip(labels.regions, masks, probabilities, strict=True) if part[1].any()]
    entropies = {region: uncertainty(p[mask], np.nan)["entropy"] for region, mask, p in drawn}
    unsure = [f"{_words(region)} ({value:.2f})" for region, value in entropies.items() if value > UNSURE]
    if not unsure:
        return []
    return [
        f"The network is unsure of what it drew as {', '.join(unsure)}. In brackets the mean entropy in nats; more "
        f"than {UNSURE:.2f} is warned of, and 0.69 is a coin toss."
    ]


def _at_the_edge(lesion: np.ndarray) -> list[str]:
    ends = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
    sides = [
        side
        for axis, pair in enumerate(ends)
        for side, end in zip(pair, (0, -1), strict=True)
        if lesion.take(end, axis).any()
    ]
    if not sides:
        return []
    return [f"The lesion reaches the edge of the image ({', '.join(sides)}): what lies beyond is not measured."]


def _in_pieces(lesion: np.ndarray) -> list[str]:
    """Doubt a lesion of which the largest piece has less than `LEAST_IN_LARGEST`, however many the others are."""
    sizes = _pieces(lesion)[1]
    if not len(sizes) or sizes.max() >= LEAST_IN_LARGEST * sizes.sum():
        return []
    return [
        f"The lesion is in {len(sizes)} separate pieces, the largest with {100 * sizes.max() / sizes.sum():.0f} % of "
        "its volume: a multifocal tumour, or false positives. Check the small ones."
    ]


def _pieces(lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the piece (1, 2, ...) that each voxel is in, and the pieces' sizes in voxels.

    Voxels that share a corner are in one piece.
    """
    numbers, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    return numbers, np.bincount(numbers.ravel())[1:]


def _head(images: Mapping[str, np.ndarray], lesion: np.ndarray) -> tuple[slice, ...]:
    """Return the box of what is above the background in any image, or in the lesion, and `MARGIN` voxels around it."""
    stacked = torch.from_numpy(np.stack([*images.values()]).astype(np.float32))
    inside = foreground(stacked[None])[0].any(dim=0).numpy() | lesion
    if not inside.any():
        return (slice(None),) * 3
    (box,) = ndimage.find_objects(inside.astype(np.uint8))
    return tuple(slice(max(part.start - MARGIN, 0), part.stop + MARGIN) for part in box)


def _centre(lesion: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the voxel of the lesion's largest piece that is nearest to that piece's centre of mass."""
    numbers, sizes = _pieces(lesion)
    if len(sizes) == 0:
        return tuple(size // 2 for size in lesion.shape)
    voxels = np.argwhere(numbers == 1 + sizes.argmax())
    distance = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1)
    return tuple(int(index) for index in voxels[distance.argmin()])


@styled
def _picture(image: np.ndarray, masks: np.ndarray, centre: Sequence[int], spacing: Sequence[float]) -> str:
    """Return a PNG in base64: the axial plane, and beside it the coronal one above the sagittal one."""
    image = image.astype(np.float32)
    window = np.quantile(image, (0.01, 0.999))
    figure = Figure(figsize=(3.9, 2.55), facecolor="black")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1), left=0, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    for place, axis, side in ((grid[:, 0], 2, "R"), (grid[0, 1], 1, "R"), (grid[1, 1], 0, "A")):
        rest = [other for other in range(3) if other != axis]
        _draw_plane(
            figure.add_subplot(place),
            image.take(centre[axis], axis),
            masks.take(centre[axis], axis + 1),
            [spacing[other] for other in rest],
            window,
            side,
        )
    png = BytesIO()
    figure.savefig(png, dpi=220, metadata={"Software": None})
    return base64.b64encode(png.getvalue()).decode("ascii")


def _draw_plane(
    axes: Axes, plane: np.ndarray, masks: np.ndarray, spacing: Sequence[float], window: Sequence[float], side: str
) -> None:
    """Draw a plane (A, B) whose first axis runs to the patient's right or front, which is drawn on the left."""
    extent = (0, plane.shape[0] * spacing[0], 0, plane.shape[1] * spacing[1])
    axes.imshow(plane.T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent)
    outline(axes, masks, 1.4, extent)
    axes.invert_xaxis()
    axes.set_axis_off()
    axes.text(0.01, 0.5, side, transform=axes.transAxes, color="white", va="center")


def _volume_table(summary: StudySummary) -> Table:
    columns = [Column("Region", align="l"), Column("Volume (ml)")]
    rows = [[Cell(_heading(region)), Cell(_ml(ml), bold=True)] for region, ml in summary.volumes.items()]
    notes = []
    if summary.intervals:
        columns.append(Column("True volume, interval (ml)"))
        for row, region in zip(rows, summary.volumes, strict=True):
            row.append(Cell(_interval(*summary.intervals[region]) if region in summary.intervals else NOTHING))
        notes.append("Calibrated on other cases; the model card says on how many, and how often such intervals held.")
    return Table("Volumes", columns, rows, notes)


def _interval(low: float, high: float, coverage: float) -> str:
    if not isfinite(high):
        return "not known: too few calibration cases"
    return f"{_ml(low)} to {_ml(high)} ({100 * coverage:.0f} %)"


def _gain_table(summary: StudySummary) -> Table:
    """Return the table of expected gains, the modality that would add most on average first."""
    ranked = sorted(summary.gains.items(), key=lambda gain: -np.mean([*gain[1].values()]))
    regions = list(summary.volumes)
    rows = [
        [Cell(display_name(name)), *(Cell(_gain(gains.get(region))) for region in regions)] for name, gains in ranked
    ]
    return Table(
        "What a missing sequence would add",
        [Column("With", align="l"), *(Column(region, group="Expected gain in Dice (%)") for region in regions)],
        rows,
        ["Mean over calibration cases; in a single patient it can be otherwise."],
    )


def _gain(gain: float | None) -> str:
    return NOTHING if gain is None else decimal(100 * gain, sign="+")


def _sequence_table(summary: StudySummary) -> Table:
    rows = [
        [
            Cell(display_name(used.modality)),
            Cell(used.source),
            Cell(used.reason),
            Cell(NOTHING if used.confidence is None else f"{100 * used.confidence:.0f} %"),
        ]
        for used in summary.used
    ]
    rows += [[Cell(display_name(name)), Cell("missing", span=3)] for name in summary.missing]
    columns = [Column("Sequence", align="l"), Column("Taken from"), Column("Recognised by"), Column("Confidence")]
    return Table("Sequences", columns, rows)


def _words(region: str) -> str:
    return REGIONS.get(region, region)


def _heading(region: str) -> str:
    """Return a region as a row's heading: ``Whole tumour (WT)``."""
    return f"{REGIONS[region].capitalize()} ({region})" if region in REGIONS else region


def _ml(volume: float) -> str:
    return "< 0.1" if 0 < volume < 0.05 else number(volume)
