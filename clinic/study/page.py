"""The page about one segmentation for the reader of the images: warnings, volumes, a viewer, then technical details.

It prints on two pages of A4, with pictures in place of the viewer. It loads nothing, and runs no script but its own.
"""

from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from clinic.study.formats import REGIONS, class_in_words, in_words, millilitres
from clinic.study.lesions import SMALLEST
from clinic.study.pictures import BRAIN_OUTLINE, SCALE_BAR
from clinic.study.result import StudySummary
from common.evaluation.report.slices import OUTLINES
from common.evaluation.report.tables import NOTHING, Table, decimal, framed
from common.io.files import replacing
from common.modalities import display_name

CERTAIN, GUESS = 0.8, 0.5  # expected Dice from which on a region is certain, and below which it is a guess
MOST_LESIONS = 8  # number of lesions that are listed
MOST_WARNINGS = 6  # number of warnings shown at the top; further ones are among the technical remarks


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one self-contained HTML file; the same summary gives the same bytes."""
    templates = Environment(loader=PackageLoader("clinic.study"), autoescape=True)
    script = Path(__file__).with_name("templates").joinpath("viewer.js").read_text(encoding="utf-8")
    outlines = [OUTLINES[i % len(OUTLINES)] for i in range(len(summary.volumes))]
    brain = [] if summary.brain_ml is None else [(f"brain, cut out ({summary.brain_ml:.0f} ml)", BRAIN_OUTLINE)]
    shown = {
        "summary": summary,
        "warnings": summary.warnings[:MOST_WARNINGS],
        "remarks": summary.warnings[MOST_WARNINGS:],
        "used": [display_name(used.modality) for used in summary.used],
        "missing": [display_name(name) for name in summary.missing],
        "names": {region: in_words(region) for region in summary.volumes},
        "volumes": _volume_table(summary),
        "classes": {class_in_words(name): millilitres(ml) for name, ml in summary.classes.items()},
        "lesions": _lesion_table(summary) if summary.lesions else None,
        "gains": _gain_table(summary) if summary.gains else None,
        "sequences": _sequence_table(summary),
        "pictures": {display_name(name): png for name, png in summary.pictures.items()},
        "outlines": dict([*zip(map(in_words, summary.volumes), outlines, strict=True), *brain]),
        "sheets": _viewer_data(summary) if summary.sheets else None,
        "script": script,
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "bar": SCALE_BAR,
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


def _lesion_table(summary: StudySummary) -> Table:
    shown = summary.lesions[:MOST_LESIONS]
    columns = [
        (("", "Lesion"), [str(number) for number, _ in enumerate(shown, 1)]),
        (("", "Side"), [lesion.side for lesion in shown]),
        (("", "Volume (ml)"), [millilitres(lesion.volume) for lesion in shown]),
    ]
    columns += [
        (("Diameters (mm)", region), [_diameters(lesion.diameters.get(region)) for lesion in shown])
        for region in summary.volumes
    ]
    more = []
    if len(summary.lesions) > len(shown):
        more.append(f"{len(summary.lesions) - len(shown)} smaller lesions are not listed.")
    if summary.specks:
        more.append(f"Left out as specks of less than {SMALLEST:g} ml: {summary.specks}.")
    note = (
        "Diameters as in RANO: the longest in any axial slice, and the longest perpendicular to it in that slice. "
        "Lesions whose oedema touches count as one."
    )
    return Table(f"Lesions: {len(summary.lesions)}", framed(columns), [note, *more])


def _diameters(pair: tuple[float, float] | None) -> str:
    return NOTHING if pair is None else f"{pair[0]:.0f} × {pair[1]:.0f}"


def _viewer_data(summary: StudySummary) -> dict[str, Any]:
    """Return what the viewer's script needs; colours are red, green, blue and alpha of each name."""
    data = asdict(summary.sheets)
    data["images"] = {display_name(name): jpeg for name, jpeg in data["images"].items()}
    colours = [
        BRAIN_OUTLINE if name == "brain" else OUTLINES[i % len(OUTLINES)] for i, name in enumerate(data["names"])
    ]
    return data | {"bar": SCALE_BAR, "colours": [[*bytes.fromhex(colour[1:]), 255] for colour in colours]}


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
