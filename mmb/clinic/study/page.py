"""The page about one segmentation for the reader of the images: warnings, volumes, a viewer, then technical details.

It prints on two pages of A4, with pictures in place of the viewer. It loads nothing, and runs no script but its own.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from common.evaluation.report.slices import OUTLINES
from common.evaluation.report.tables import NOTHING, Table, framed
from common.io.files import replacing
from common.modalities import display_name
from mmb.clinic.calibration.calibration import GOOD_DICE, WIDEST
from mmb.clinic.calibration.rows import share
from mmb.clinic.study.formats import REGIONS, class_phrase, millilitres, region_phrase
from mmb.clinic.study.lesions import SMALLEST
from mmb.clinic.study.pictures import BRAIN_OUTLINE, SCALE_BAR
from mmb.clinic.study.result import StudySummary

MOST_LESIONS = 8  # number of lesions that are listed
MOST_WARNINGS = 6  # number of warnings shown at the top; further ones are among the technical remarks


def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write the summary as one self-contained HTML file; the same summary gives the same bytes."""
    templates = Environment(loader=PackageLoader("mmb.clinic.study"), autoescape=True)
    script = Path(__file__).with_name("templates").joinpath("viewer.js").read_text(encoding="utf-8")
    outlines = [OUTLINES[i % len(OUTLINES)] for i in range(len(summary.volumes))]
    brain = [] if summary.brain_ml is None else [(f"brain, cut out ({summary.brain_ml:.0f} ml)", BRAIN_OUTLINE)]
    shown = {
        "summary": summary,
        "warnings": summary.warnings[:MOST_WARNINGS],
        "remarks": summary.warnings[MOST_WARNINGS:],
        "used": [display_name(used.modality) for used in summary.used],
        "missing": [display_name(name) for name in summary.missing],
        "names": {region: region_phrase(region) for region in summary.volumes},
        "volumes": _volume_table(summary),
        "classes": {class_phrase(name): millilitres(ml) for name, ml in summary.classes.items()},
        "lesions": _lesion_table(summary) if summary.lesions else None,
        "further": _further_table(summary) if summary.with_further else None,
        "sequences": _sequence_table(summary),
        "pictures": {display_name(name): png for name, png in summary.pictures.items()},
        "outlines": dict([*zip(map(region_phrase, summary.volumes), outlines, strict=True), *brain]),
        "sheets": _viewer_data(summary) if summary.sheets else None,
        "script": script,
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "bar": SCALE_BAR,
    }
    with replacing(path) as temporary:
        temporary.write_text(templates.get_template("summary.html").render(shown), encoding="utf-8")


def _volume_table(summary: StudySummary) -> Table:
    rows, calibrated = summary.rows(), summary.calibrated_on
    columns = [
        ("Region", [_heading(row.region) for row in rows]),
        ("Volume (ml)", [millilitres(row.volume) for row in rows]),
    ]
    notes = []
    if calibrated:
        columns.append(("True volume probably (ml)", [_interval(row.interval) for row in rows]))
        notes.append(
            "Such intervals held the true volume in patients that they were not calibrated on: "
            f"{_shares(summary.intervals_held)}. None is given if it would span more than a factor of {WIDEST:g}, or "
            "if no tumour was found with confidence."
        )
    if summary.expected_dice:
        expected = [_percent(row.expected) if row.volume else NOTHING for row in rows]
        columns.append((f"Expected overlap{'' if calibrated else ', not calibrated'} (%)", expected))
    if summary.chances:
        columns.append((f"Chance of {100 * GOOD_DICE:.0f} % or more (%)", [_percent(row.chance) for row in rows]))
        notes.append(
            f"Overlap (Dice, 100 % is perfect) with an expert's outline, calibrated on {calibrated} patients. Of "
            f"the outlines called usable in patients left out of the calibration, {100 * GOOD_DICE:.0f} % or more had: "
            f"{_shares(summary.usable_right)}."
        )
    if summary.measured:
        columns.append(("Overlap in test cases (%)", [_percent(row.measured) for row in rows]))
        notes.append(f"Last column: mean of {summary.tested} test cases, segmented from the same sequences.")
    return Table("Volumes", framed(columns), notes)


def _lesion_table(summary: StudySummary) -> Table:
    shown = summary.lesions[:MOST_LESIONS]
    columns = [
        ("Lesion", [str(number) for number, _ in enumerate(shown, 1)]),
        ("Side", [lesion.side for lesion in shown]),
        ("Volume (ml)", [millilitres(lesion.volume) for lesion in shown]),
    ]
    more = ["Lesions whose oedema touches count as one."]
    if len(summary.lesions) > len(shown):
        more.append(f"Smaller lesions not listed: {len(summary.lesions) - len(shown)}.")
    if summary.specks:
        more.append(f"Left out as specks of less than {SMALLEST:g} ml: {summary.specks}.")
    return Table(f"Lesions: {len(summary.lesions)}", framed(columns), more)


def _viewer_data(summary: StudySummary) -> dict[str, Any]:
    """Return what the viewer's script needs; colours are red, green, blue and alpha of each name."""
    data = asdict(summary.sheets)
    data["images"] = {display_name(name): jpeg for name, jpeg in data["images"].items()}
    colours = [
        BRAIN_OUTLINE if name == "brain" else OUTLINES[i % len(OUTLINES)] for i, name in enumerate(data["names"])
    ]
    return data | {"bar": SCALE_BAR, "colours": [[*bytes.fromhex(colour[1:]), 255] for colour in colours]}


def _shares(counts: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{region} {share(*pair)}" for region, pair in counts.items())


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "unknown" if ends is None else f"{millilitres(ends[0])} to {millilitres(ends[1])}"


def _further_table(summary: StudySummary) -> Table:
    rows = {"none": summary.expected_dice} | {display_name(k): values for k, values in summary.with_further.items()}
    columns = [(("", "Further sequence"), [*rows])]
    columns += [
        (("Expected overlap (%)", region), [_percent(values.get(region)) for values in rows.values()])
        for region in summary.volumes
        if summary.volumes[region]
    ]
    return Table(
        "With a further sequence",
        framed(columns),
        [
            f"From the means of {summary.tested} test cases: a few points may be chance, and a single patient may "
            "differ."
        ],
    )


def _sequence_table(summary: StudySummary) -> Table:
    rows = [
        (
            display_name(used.modality),
            used.source,
            used.reason,
            used.confidence or NOTHING,
        )
        for used in summary.used
    ]
    rows += [(display_name(name), "missing", "", "") for name in summary.missing]
    labels = ("Sequence", "Taken from", "Recognised by", "Confidence")
    return Table("Sequences", framed([*zip(labels, zip(*rows, strict=True), strict=True)]))


def _heading(region: str) -> str:
    """Return the heading of a region's row, e.g. ``Whole tumour (WT)``."""
    return f"{REGIONS[region].capitalize()} ({region})" if region in REGIONS else region
