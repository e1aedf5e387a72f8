"""Summary page of one prediction for the reader of the images: warnings, volumes and pictures, then technical details.

It prints on two pages of A4.

The input is plain data without anything that identifies the patient: no names, dates, identifiers or paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader

from common.evaluation.report.layout import NOTHING, Cell, Column, Table, decimal
from common.evaluation.report.slices import OUTLINES
from common.io.files import replacing
from common.modalities import display_name
from common.study.measurements import REGIONS, in_words, millilitres
from common.study.pictures import BRAIN_OUTLINE

MOST_WARNINGS = 6
"""Number of warnings shown at the top; further ones are among the technical remarks."""


@dataclass(frozen=True)
class UsedModality:
    """A modality that a prediction was made from.

    Attributes:
        modality: canonical name.
        source: source of the volume, e.g. ``series 7``.
        reason: reason for using it.
        confidence: confidence of the recognition, 0 to 1; None if it was set by hand or named by its file.
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
        bundle: name of the bundle.
        version: version of the bundle.
        used: modalities that the prediction was made from.
        missing: names of the other modalities that the network can use.
        volumes: region -> volume in ml, see `measurements.volumes`; larger regions first.
        intervals: region -> lower and upper limit (ml) of an interval for the true volume, and its coverage, e.g. 0.9.
        gains: missing modality -> region -> expected gain in Dice if it were added, as a fraction.
        pictures: modality -> PNG in base64; see `pictures.pictures`.
        warnings: why the result may be wrong, see `common.study.quality`; the most important one first.
        notes: notes on preparation: what was registered and how well, what was resampled.
        trained_on: short description of the training data; None if unknown.
        brain_ml: volume of the extracted brain, which is outlined in the pictures; None if none was extracted.
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
    brain_ml: float | None = None


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one self-contained HTML file; the same summary gives the same bytes."""
    templates = Environment(loader=PackageLoader("common.study"), autoescape=True)
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
    columns = [Column("Region", align="l"), Column("Volume (ml)")]
    rows = [[Cell(_heading(region)), Cell(millilitres(ml), bold=True)] for region, ml in summary.volumes.items()]
    notes = []
    if summary.intervals:
        columns.append(Column("True volume, interval (ml)"))
        for row, region in zip(rows, summary.volumes, strict=True):
            row.append(Cell(_interval(*summary.intervals[region]) if region in summary.intervals else NOTHING))
        notes.append(
            "An interval is meant to contain the true volume in the stated share of patients. Each region's was "
            "calibrated on its own, on the few cases that the model card names; it also says how often they held."
        )
    return Table("Volumes", columns, rows, notes)


def _interval(low: float, high: float, coverage: float) -> str:
    if not isfinite(high):
        return "unknown: too few calibration cases"
    return f"{millilitres(low)} to {millilitres(high)} ({100 * coverage:.0f} %)"


def _gain_table(summary: StudySummary) -> Table:
    """Return the table of expected gains, with the largest average gain first."""
    ranked = sorted(summary.gains.items(), key=lambda gain: -np.mean([*gain[1].values()]))
    regions = list(summary.volumes)
    rows = [
        [Cell(display_name(name)), *(Cell(_gain(gains.get(region))) for region in regions)] for name, gains in ranked
    ]
    return Table(
        "What a missing sequence would add",
        [Column("With", align="l"), *(Column(region, group="Expected gain in Dice (%)") for region in regions)],
        rows,
        [
            "Dice is the overlap with an expert's outline; 100 % is perfect. The numbers are means over the few cases "
            "that the model card names: a few points may be chance, and a single patient may differ."
        ],
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


def _heading(region: str) -> str:
    """Return the heading of a region's row, e.g. ``Whole tumour (WT)``."""
    return f"{REGIONS[region].capitalize()} ({region})" if region in REGIONS else region
