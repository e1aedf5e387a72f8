"""The page about one segmentation for the reader of the images: warnings, volumes, pictures, then technical details.

It prints on two pages of A4. Its contents, a `StudySummary`, are plain data without anything that identifies the
patient: no names, dates, identifiers or paths.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clinic.study.grid import box, connected_pieces
from clinic.study.quality import REGIONS, in_words, millilitres
from common.evaluation.report.slices import OUTLINES, outline
from common.evaluation.report.style import styled
from common.evaluation.report.tables import NOTHING, Table, decimal, framed
from common.io.files import replacing
from common.modalities import display_name, foreground

MARGIN = 2  # margin in voxels around the head in pictures
BRAIN_OUTLINE = OUTLINES[3]  # colour of the outline of the extracted brain
CERTAIN, GUESS = 0.8, 0.5  # expected Dice from which on a region is certain, and below which it is a guess
MOST_WARNINGS = 6  # number of warnings shown at the top; further ones are among the technical remarks


@dataclass(frozen=True)
class UsedModality:
    """A modality that a prediction was made from.

    The fields are those of `Study`: the source is e.g. ``series 7``; the confidence is None if the modality was set by
    hand or named by its file.
    """

    modality: str
    source: str
    reason: str
    confidence: float | None = None


@dataclass(frozen=True)
class StudySummary:
    """Contents of the page that `write_summary` writes; empty parts are left out.

    Attributes:
        title: title of the page.
        bundle: name of the bundle, or of the method of other weights.
        version: version of the bundle.
        weights: name of the weights' file and its SHA-256.
        used: modalities that the prediction was made from.
        missing: names of the other modalities that the network can use.
        volumes: region -> volume in ml, larger regions first.
        volume_note: where the volumes come from, if they are not those of the outlines; else empty.
        expected_dice: region -> Dice that the network expects between its outline and the truth, in [0, 1].
        intervals: region -> lower and upper limit (ml) of an interval for the true volume, and its coverage, e.g. 0.9.
        gains: missing modality -> region -> expected gain in Dice if it were added, as a fraction.
        pictures: modality -> PNG in base64; see `pictures`.
        warnings: why the result may be wrong, the most important reason first; see `clinic.study.quality`.
        notes: notes on preparation: what was registered and how well, what was resampled.
        trained_on: short description of the training data; None if unknown.
        brain_ml: volume of the extracted brain, which is outlined in the pictures; None if none was extracted.
    """

    title: str
    bundle: str
    version: str
    weights: str
    used: Sequence[UsedModality]
    volumes: Mapping[str, float]
    missing: Sequence[str] = ()
    volume_note: str = ""
    expected_dice: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    trained_on: str | None = None
    brain_ml: float | None = None


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one self-contained HTML file; the same summary gives the same bytes."""
    templates = Environment(loader=PackageLoader("clinic.study"), autoescape=True)
    shown = {
        "summary": summary,
        "warnings": summary.warnings[:MOST_WARNINGS],
        "remarks": summary.warnings[MOST_WARNINGS:],
        "used": [display_name(used.modality) for used in summary.used],
        "missing": [display_name(name) for name in summary.missing],
        "volumes": _volume_table(summary),
        "gains": _gain_table(summary) if summary.gains else None,
        "sequences": _sequence_table(summary),
        "pictures": {display_name(name): png for name, png in summary.pictures.items()},
        "outlines": {in_words(region): OUTLINES[i % len(OUTLINES)] for i, region in enumerate(summary.volumes)}
        | ({} if summary.brain_ml is None else {f"brain, cut out ({summary.brain_ml:.0f} ml)": BRAIN_OUTLINE}),
    }
    with replacing(path) as temporary:
        temporary.write_text(templates.get_template("summary.html").render(shown), encoding="utf-8")


def _volume_table(summary: StudySummary) -> Table:
    volumes = summary.volumes
    columns = [("Region", [*map(_heading, volumes)]), ("Volume (ml)", [*map(millilitres, volumes.values())])]
    notes = [summary.volume_note] if summary.volume_note else []
    if summary.expected_dice:
        certainties = [_certainty(summary.expected_dice[region]) if ml else NOTHING for region, ml in volumes.items()]
        columns.append(("The outline is", certainties))
        notes.append(
            "In brackets: the overlap (Dice, 100 % is perfect) with an expert's outline that the network itself "
            "expects. It may be wrong."
        )
    if summary.intervals:
        intervals = [_interval(*summary.intervals[r]) if r in summary.intervals else NOTHING for r in volumes]
        columns.append(("True volume, interval (ml)", intervals))
        notes.append(
            "An interval is meant to contain the true volume in the stated share of patients. Each region's was "
            "calibrated on its own, on the few cases that the model card names; it also says how often they held."
        )
    return Table("Volumes", framed(columns), notes)


def _certainty(expected: float) -> str:
    if expected == 0:
        return "left out: improbable"
    words = "certain" if expected >= CERTAIN else "a guess" if expected < GUESS else "uncertain"
    return f"{words} ({100 * expected:.0f} %)"


def _interval(low: float, high: float, coverage: float) -> str:
    return f"{millilitres(low)} to {millilitres(high)} ({100 * coverage:.0f} %)"


def _gain_table(summary: StudySummary) -> Table:
    """Return the table of expected gains, with the largest average gain first."""
    ranked = sorted(summary.gains.items(), key=lambda gain: -np.mean([*gain[1].values()]))
    columns = [(("", "With"), [display_name(name) for name, _ in ranked])]
    columns += [
        (("Expected gain in Dice (%)", region), [_gain(gains.get(region)) for _, gains in ranked])
        for region in summary.volumes
    ]
    return Table(
        "What a missing sequence would add",
        framed(columns),
        [
            "Dice is the overlap with an expert's outline; 100 % is perfect. The numbers are means over the few cases "
            "that the model card names: a few points may be chance, and a single patient may differ."
        ],
    )


def _gain(gain: float | None) -> str:
    return NOTHING if gain is None else decimal(100 * gain, sign="+")


def _sequence_table(summary: StudySummary) -> Table:
    rows = [
        (
            display_name(used.modality),
            used.source,
            used.reason,
            NOTHING if used.confidence is None else f"{100 * used.confidence:.0f} %",
        )
        for used in summary.used
    ]
    rows += [(display_name(name), "missing", "", "") for name in summary.missing]
    labels = ("Sequence", "Taken from", "Recognised by", "Confidence")
    return Table("Sequences", framed([*zip(labels, zip(*rows, strict=True), strict=True)]))


def _heading(region: str) -> str:
    """Return the heading of a region's row, e.g. ``Whole tumour (WT)``."""
    return f"{REGIONS[region].capitalize()} ({region})" if region in REGIONS else region


def pictures(
    images: Mapping[str, np.ndarray], masks: np.ndarray, spacing: Sequence[float], brain: np.ndarray | None = None
) -> dict[str, str]:
    """Return a PNG in base64 of each modality: three planes through the lesion's centre, with the regions outlined.

    The centre is that of the largest piece, or of the image if nothing was segmented. The view is radiological (the
    patient's right on the left, the front on the left in the sagittal plane) and cropped to the head. Black is each
    image's 1st percentile within the crop. White is its 99.9th percentile, taken within the brain mask if there is one,
    since fat can be much brighter.

    ``images`` are the modalities used, ``(X, Y, Z)``, RAS, finite. ``masks`` are the regions on the same grid, bool
    ``(R, X, Y, Z)``; each is outlined over those before it. An extracted ``brain`` is outlined as well.
    """
    head = _head(images, masks.any(axis=0))
    masks = masks[:, *head]
    centre = _centre(masks.any(axis=0), spacing)
    brain = None if brain is None else brain[head]
    return {name: _picture(image[head], masks, brain, centre, spacing) for name, image in images.items()}


def _head(images: Mapping[str, np.ndarray], lesion: np.ndarray) -> tuple[slice, ...]:
    """Return the box of the foreground of all images and of the lesion, with a margin of `MARGIN` voxels."""
    inside = lesion.copy()
    for image in images.values():
        inside |= foreground(torch.from_numpy(image.astype(np.float32))[None, None])[0, 0].numpy()
    return box(inside, MARGIN)


def _centre(lesion: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the voxel of the lesion's largest piece that is nearest to that piece's centre of mass."""
    numbers, sizes = connected_pieces(lesion)
    if len(sizes) == 0:
        return tuple(size // 2 for size in lesion.shape)
    voxels = np.argwhere(numbers == 1 + sizes.argmax())
    distance = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing, axis=1)
    return tuple(int(index) for index in voxels[distance.argmin()])


@styled
def _picture(
    image: np.ndarray, masks: np.ndarray, brain: np.ndarray | None, centre: Sequence[int], spacing: Sequence[float]
) -> str:
    """Return a PNG in base64: the axial plane on the left, the coronal above the sagittal one on the right."""
    some = (slice(None, None, 2),) * 3  # an eighth of the voxels is enough for percentiles
    shown = image[some]
    window = np.quantile(shown, 0.01), np.quantile(shown if brain is None else shown[brain[some]], 0.999)
    figure = Figure(figsize=(3.9, 2.55), facecolor="black")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1), left=0, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    for place, axis, side in ((grid[:, 0], 2, "R"), (grid[0, 1], 1, "R"), (grid[1, 1], 0, "A")):
        rest = [other for other in range(3) if other != axis]
        _draw_plane(
            figure.add_subplot(place),
            image.take(centre[axis], axis),
            masks.take(centre[axis], axis + 1),
            None if brain is None else brain.take(centre[axis], axis),
            [spacing[other] for other in rest],
            window,
            side,
        )
    png = BytesIO()
    figure.savefig(png, dpi=220, metadata={"Software": None})
    return base64.b64encode(png.getvalue()).decode("ascii")


def _draw_plane(
    axes: Axes,
    plane: np.ndarray,
    masks: np.ndarray,
    brain: np.ndarray | None,
    spacing: Sequence[float],
    window: Sequence[float],
    side: str,
) -> None:
    """Draw a plane (A, B) whose first axis runs to the patient's right or front; this side is drawn on the left."""
    extent = (0, plane.shape[0] * spacing[0], 0, plane.shape[1] * spacing[1])
    axes.imshow(plane.T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent)
    if brain is not None:
        axes.contour(brain.T, levels=[0.5], colors=BRAIN_OUTLINE, linewidths=0.6, origin="lower", extent=extent)
    outline(axes, masks, 1.4, extent)
    axes.invert_xaxis()
    axes.set_axis_off()
    axes.text(0.01, 0.5, side, transform=axes.transAxes, color="white", va="center")
