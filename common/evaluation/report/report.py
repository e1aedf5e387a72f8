"""A report on one or several evaluations, with their tables, statistics and figures, as HTML and Markdown."""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from common.evaluation.analysis.statistics import compare_to_first
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report import sections
from common.evaluation.report.layout import Table, counted, markdown
from common.evaluation.report.slices import Slice
from common.evaluation.report.style import write as write_figure
from common.evaluation.report.tables import data_in_words
from common.io.atomic import written_whole
from common.io.files import replacing
from common.modalities import LabelSet, display_name


def write_report(
    evaluations: Sequence[Evaluation],
    folder: str | Path,
    coverage: float,
    published: Mapping[str, Table] | None = None,
    remarks: Sequence[str] = (),
    panels: Mapping[str, Sequence[Slice]] | None = None,
    labels: LabelSet | None = None,
) -> None:
    """Write ``report.html`` (self-contained) and ``report.md``; ``tables/`` and ``figures/`` hold their parts as files.

    All files are written or, after an error, none. If there is a ``report.html``, the files in the two folders are
    taken for parts of that earlier report and removed. Methods are tested against the first one if they have the same
    cohort. Raises ValueError if a method has other modalities or regions than the first, no case in common with it, or
    no Dice; or if ``tables/`` or ``figures/`` holds files that no report wrote.

    Args:
        evaluations: one method, or several on the same cases.
        coverage: level of the volume intervals, e.g. 0.9.
        published: result of `paper_tables.published_table`, to show in a section of its own.
        remarks: remarks to print first.
        panels: method -> slices to draw.
        labels: label set of the cohort, for the slices.
    """
    require_own_parts(folder)
    for evaluation in evaluations:
        _require_dice(evaluation)
    draw = sections.Drawer(f"{data_in_words(evaluations)}.")
    stems = sections.stems(evaluation.name for evaluation in evaluations)
    tests = compare_to_first(evaluations) if len(evaluations) > 1 and len(_cohorts(evaluations)) == 1 else None
    parts = [
        *sections.accuracy(evaluations, tests, stems, draw),
        *([sections.Section("Published numbers", tables=dict(published))] if published else ()),
        *(sections.statistics(tests) if tests is not None else ()),
        *(part for e in evaluations for part in sections.attribution(e, stems[e.name], draw)),
        *sections.entropy(evaluations),
        *(part for e in evaluations for part in sections.reliability(e, coverage, stems[e.name], draw)),
        *sections.efficiency(evaluations, draw),
        *sections.panels(panels or {}, labels, evaluations[0].modalities, stems, draw),
    ]
    figures = draw.rendered()
    shown = {
        "title": _title(evaluations),
        "remarks": remarks,
        "preface": _preface(evaluations),
        "sections": parts,
        "images": {stem: b64encode(files[".png"]).decode() for stem, files in figures.items()},
    }
    templates = Environment(
        loader=PackageLoader("common.evaluation.report"), autoescape=lambda name: name.endswith(".html")
    )
    templates.filters["markdown"] = markdown
    with written_whole(folder, earlier=parts_of_report(folder)) as made:
        for name in ("report.html", "report.md"):
            _write(made / name, templates.get_template(name).render(shown))
        for stem, files in figures.items():
            write_figure(files, made / "figures" / stem)
        for section in parts:
            for stem, table in section.tables.items():
                write_table(table, made / "tables", stem)


def write_table(table: Table, folder: Path, stem: str) -> None:
    """Write a table as ``stem.md``, ``stem.tex`` and ``stem.html``."""
    for suffix, text in (("md", table.to_markdown()), ("tex", table.to_latex()), ("html", table.to_html())):
        _write(folder / f"{stem}.{suffix}", text)


def parts_of_report(folder: str | Path) -> list[Path]:
    """Return the files that may be parts of an earlier report."""
    kinds = {"tables": (".md", ".tex", ".html"), "figures": (".png", ".svg", ".pdf")}
    found = ((path, kind) for name, kind in kinds.items() for path in Path(folder, name).glob("*"))
    return [path for path, kind in found if path.suffix in kind and path.is_file()]


def require_own_parts(folder: str | Path) -> None:
    """Refuse a folder of which a report would replace files that no report wrote."""
    if (parts := parts_of_report(folder)) and not Path(folder, "report.html").is_file():
        raise ValueError(
            f"{parts[0]}: a report would replace it, but {folder} has no report.html, so it is not part of an earlier "
            "one. Choose another output folder, or move the file away."
        )


def _require_dice(evaluation: Evaluation) -> None:
    if evaluation.results.empty:
        raise ValueError(
            f"{evaluation.name}: no case has all modalities of any of the subsets, so there is nothing to report; "
            "choose subsets of the modalities that the cases have."
        )
    if evaluation.values("dice").isna().all(axis=None):
        raise ValueError(
            f"{evaluation.name}: no case has a Dice (convention empty: {evaluation.conventions.empty}), so there is "
            "nothing to report; no reference seems to have any of the regions."
        )


def _title(evaluations: Sequence[Evaluation]) -> str:
    names = ", ".join(evaluation.name for evaluation in evaluations)
    return f"Segmentation with missing modalities: {names} on {' and '.join(_cohorts(evaluations))}"


def _cohorts(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(evaluation.cohort for evaluation in evaluations))


def _preface(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the data and conventions of the evaluations; if methods differ, with their names."""
    modalities = ", ".join(map(display_name, evaluations[0].modalities))
    data, meaning = defaultdict(list), defaultdict(list)
    for e in evaluations:
        cases, subsets = counted(e.results["case"].nunique(), noun="case"), counted(len(e.subsets), noun="subset")
        data[f"{cases}, {subsets} of {modalities}."].append(e.name)
        meaning[_conventions_in_words(e.conventions)].append(e.name)
    lines = _per_method(data)
    if "phantom" in _cohorts(evaluations):
        lines.append(
            "The phantom cohort is synthetic: its numbers show that the software works, and nothing about patients."
        )
    return [*lines, *_per_method(meaning), "Research only; not for clinical use."]


def _per_method(said: Mapping[str, Sequence[str]]) -> list[str]:
    return list(said) if len(said) == 1 else [f"{', '.join(names)}: {text}" for text, names in said.items()]


def _conventions_in_words(conventions: Conventions) -> str:
    empty = {
        "brats": "both empty is perfect, one empty is the worst (Dice 0, distances 373.13 mm)",
        "released": "both empty is perfect, one empty is Dice 0 and distances of 1 mm",
        "nan": "undefined values are left out of means",
        "skip": "cases whose reference lacks a region have no score for it",
    }[conventions.empty]
    hd95 = {
        "max": "the larger of the two directed 95th percentiles",
        "pooled": "the 95th percentile of the distances of both directions together",
    }[conventions.hd95]
    average = {
        "case": "Means are over cases, then over subsets.",
        "voxel": "Overlap metrics are of the voxels of all cases together; distances are means over cases.",
    }[conventions.average]
    small = conventions.et_min_voxels
    rule = f"Predicted enhancing tumour below {small} voxels counts as necrosis." if small else "No post-processing."
    return (
        f"Empty regions ({conventions.empty}): {empty}. HD95 ({conventions.hd95}): {hd95}. Surface Dice at "
        f"{conventions.surface_tolerance:g} mm. {rule} {average}"
    )


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
