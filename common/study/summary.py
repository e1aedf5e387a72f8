"""One prediction for whoever reads the images: whether to trust it, volumes, pictures; then what they rest on.

It prints on two pages of A4.

Input is plain data. Nothing that says who the patient is belongs here: no names, dates, identifiers or paths.
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
"""So many are read; the others stand with the technical remarks."""


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
        volumes: region -> ml, see `measurements.volumes`; larger regions first.
        intervals: region -> low and high end (ml) of an interval for the true volume, and its coverage, e.g. 0.9.
        gains: missing modality -> region -> Dice that having it too is expected to add, a fraction.
        pictures: modality -> PNG in base64, see `pictures.pictures`.
        warnings: why the result may be wrong, see `common.study.quality`; the most important one first.
        notes: on geometry and preparation: what was registered and how well, what was resampled.
        trained_on: what the weights were trained on, in a few words; None where it is not known.
        brain_ml: volume of the brain that was cut out of the head and is outlined in the pictures; None: it was not.
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
    """Write the summary as one HTML file that needs no other file; the same summary gives the same bytes."""
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
        notes.append("Calibrated on other cases; the model card says on how many, and how often such intervals held.")
    return Table("Volumes", columns, rows, notes)


def _interval(low: float, high: float, coverage: float) -> str:
    if not isfinite(high):
        return "not known: too few calibration cases"
    return f"{millilitres(low)} to {millilitres(high)} ({100 * coverage:.0f} %)"


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


def _heading(region: str) -> str:
    """Return a region as a row's heading: ``Whole tumour (WT)``."""
    return f"{REGIONS[region].capitalize()} ({region})" if region in REGIONS else region
