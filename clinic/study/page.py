"""The page about one segmentation for the reader of the images: warnings, volumes, pictures, then technical details.

It prints on two pages of A4.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader

from clinic.study.formats import REGIONS, in_words, millilitres
from clinic.study.pictures import BRAIN_OUTLINE
from clinic.study.result import StudySummary
from common.evaluation.report.slices import OUTLINES
from common.evaluation.report.tables import NOTHING, Table, decimal, framed
from common.io.files import replacing
from common.modalities import display_name

CERTAIN, GUESS = 0.8, 0.5  # expected Dice from which on a region is certain, and below which it is a guess
MOST_WARNINGS = 6  # number of warnings shown at the top; further ones are among the technical remarks


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
    gains = summary.gains.items()
    columns = [(("", "With"), [display_name(name) for name, _ in gains])]
    columns += [
        (("Expected gain in Dice (%)", region), [_gain(values.get(region)) for _, values in gains])
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
