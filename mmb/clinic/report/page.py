"""The page about one segmentation for the reader of the images: the answer, warnings, a viewer, volumes, then details.

It prints on two pages of A4, with pictures in place of the viewer. It loads nothing, and runs no script but its own.
"""

from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from common.evaluation.report.slices import OUTLINES
from common.evaluation.report.tables import NOTHING, Table
from common.io.files import replacing
from common.modalities import display_name
from mmb.clinic.report.formats import class_phrase, millilitres, region_phrase
from mmb.clinic.report.lesions import SMALLEST
from mmb.clinic.report.pictures import BRAIN_OUTLINE, SCALE_BAR
from mmb.clinic.report.result import StudySummary
from mmb.clinic.report.sheets import Sheets
from mmb.clinic.report.verdicts import WORD_USABLE

MOST_LESIONS = 8  # number of lesions that are listed
MOST_WARNINGS = 6  # number of warnings shown at the top; further ones are among the technical remarks


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one self-contained HTML file; the same summary gives the same bytes."""
    loader = PackageLoader("mmb.clinic.report")
    templates = Environment(loader=loader, autoescape=True)
    script, _, _ = loader.get_source(templates, "viewer.js")
    outlines = dict(zip(map(region_phrase, summary.volumes), cycle(OUTLINES), strict=False))
    if summary.brain_ml is not None:
        outlines[f"brain, cut out ({summary.brain_ml:.0f} ml)"] = BRAIN_OUTLINE
    shown = {
        "summary": summary,
        "warnings": summary.warnings[:MOST_WARNINGS],
        "remarks": summary.warnings[MOST_WARNINGS:],
        "used": [display_name(used.modality) for used in summary.used],
        "missing": [display_name(name) for name in summary.missing],
        "names": {region: region_phrase(region) for region in summary.volumes},
        "volumes": _volume_table(summary),
        "classes": [_class(summary, name) for name in summary.classes],
        "lesions": _lesion_table(summary) if summary.lesions else None,
        "sequences": _sequence_table(summary),
        "pictures": {display_name(name): png for name, png in summary.pictures.items()},
        "outlines": outlines,
        "sheets": _viewer_data(summary.sheets) if summary.sheets else None,
        "script": script,
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "bar": SCALE_BAR,
    }
    with replacing(path) as temporary:
        temporary.write_text(templates.get_template("summary.html").render(shown), encoding="utf-8")


def _class(summary: StudySummary, name: str) -> str:
    """Return a class's volume, with its verdict unless it is usable: ``oedema 12 ml (not reliable)``."""
    given = summary.class_verdicts.get(name)
    word = f" ({given.word})" if given and given.word != WORD_USABLE else ""
    return f"{class_phrase(name)} {millilitres(summary.classes[name])} ml{word}"


def _volume_table(summary: StudySummary) -> Table:
    rows, calibrated = summary.rows(), summary.calibrated_on
    texts = {"Region": [row.heading for row in rows], "Volume (ml)": [millilitres(row.volume) for row in rows]}
    if calibrated:
        texts["True volume probably (ml)"] = [_interval(row.interval) for row in rows]
    if summary.expected_dice:
        heading = f"Expected overlap{'' if calibrated else ', not calibrated'} (%)"
        texts[heading] = [_percent(row.expected) if row.volume else NOTHING for row in rows]
    return Table("Volumes", pd.DataFrame(texts))


def _lesion_table(summary: StudySummary) -> Table:
    shown = summary.lesions[:MOST_LESIONS]
    rows = [(str(number), each.side, millilitres(each.volume)) for number, each in enumerate(shown, 1)]
    more = ["Lesions whose oedema touches count as one."]
    if len(summary.lesions) > len(shown):
        more.append(f"Smaller lesions not listed: {len(summary.lesions) - len(shown)}.")
    if summary.specks:
        more.append(f"Left out as specks of less than {SMALLEST:g} ml: {summary.specks}.")
    frame = pd.DataFrame(rows, columns=("Lesion", "Side", "Volume (ml)"))
    return Table(f"Lesions: {len(summary.lesions)}", frame, more)


def _viewer_data(sheets: Sheets) -> dict[str, Any]:
    """Return what the viewer's script needs; colours are red, green, blue and alpha of each name."""
    data = asdict(sheets)
    data["images"] = {display_name(name): jpeg for name, jpeg in data["images"].items()}
    colours = [
        BRAIN_OUTLINE if name == "brain" else OUTLINES[i % len(OUTLINES)] for i, name in enumerate(data["names"])
    ]
    return data | {"bar": SCALE_BAR, "colours": [[*bytes.fromhex(colour[1:]), 255] for colour in colours]}


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "unknown" if ends is None else f"{millilitres(ends[0])} to {millilitres(ends[1])}"


def _sequence_table(summary: StudySummary) -> Table:
    rows = [
        (display_name(each.modality), each.source, each.reason, each.confidence or NOTHING) for each in summary.used
    ]
    rows += [(display_name(name), "missing", "", "") for name in summary.missing]
    columns = ("Sequence", "Taken from", "Recognised by", "Confidence")
    return Table("Sequences", pd.DataFrame(rows, columns=columns))
