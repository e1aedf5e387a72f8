"""A report on one or several evaluations in Markdown, with its tables and figures as files beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader

from common.evaluation.metrics.results import Evaluation
from common.evaluation.report.sections import all_sections
from common.evaluation.report.slices import Slice
from common.evaluation.report.tables import Table, counted, data_in_words, made_with, markdown
from common.io.atomic import written_whole
from common.io.files import replacing
from common.modalities import LabelSet, display_name


def write_report(
    evaluations: Sequence[Evaluation],
    folder: str | Path,
    tests: pd.DataFrame | None = None,
    published: Mapping[str, Table] | None = None,
    remarks: Sequence[str] = (),
    panels: Mapping[str, Sequence[Slice]] | None = None,
    labels: LabelSet | None = None,
) -> None:
    """Write ``report.md``, and its parts as files in ``tables/`` and ``figures/``.

    All files are written or, after an error, none. If there is a ``report.md``, the files in the two folders are taken
    for parts of that earlier report and removed.

    Args:
        evaluations: one method, or several with the same cases, regions and conventions.
        tests: paired tests of the others against the first one, from `paired.compare_to_first`.
        published: result of `paper_tables.published_table`, to show in a section of its own.
        remarks: remarks to print first.
        panels: method -> slices to draw; those of several methods side by side have an empty name.
        labels: label set of the cohort, for the slices.
    """
    require_own_parts(folder)
    for evaluation in evaluations:
        _require_dice(evaluation)
    names = ", ".join(evaluation.name for evaluation in evaluations)
    subsets = counted(*(len(evaluation.subsets) for evaluation in evaluations), noun="subset")
    modalities = ", ".join(map(display_name, evaluations[0].modalities))
    sections = [*all_sections(evaluations, tests, published or {}, panels or {}, labels)]
    figures = {stem: files for section in sections for stem, files in section.rendered().items()}
    environment = Environment(loader=PackageLoader("common.evaluation.report"))
    environment.filters["markdown"] = markdown
    text = environment.get_template("report.md").render(
        title=f"Segmentation with missing modalities: {names} on {evaluations[0].cohort}",
        remarks=[*remarks, *(_trained(each) for each in evaluations if "trained_cases" in each.facts)],
        data=f"{data_in_words(evaluations)}, {subsets} of {modalities}.",
        conventions=made_with(evaluations),
        phantom=evaluations[0].cohort == "phantom",
        sections=sections,
    )
    with written_whole(folder, earlier=parts_of_report(folder)) as made:
        _write(made / "report.md", text)
        for stem, files in figures.items():
            for suffix, content in files.items():
                with replacing(made / "figures" / f"{stem}{suffix}") as temporary:
                    temporary.write_bytes(content)
        for section in sections:
            for stem, table in section.tables.items():
                write_table(table, made / "tables", stem)


def write_table(table: Table, folder: Path, stem: str) -> None:
    """Write a table as ``stem.md`` and ``stem.tex``."""
    _write(folder / f"{stem}.md", table.to_markdown())
    _write(folder / f"{stem}.tex", table.to_latex())


def parts_of_report(folder: str | Path) -> list[Path]:
    """Return the files that may be parts of an earlier report."""
    kinds = {"tables": (".md", ".tex", ".html"), "figures": (".png", ".svg", ".pdf")}  # HTML and SVG: version 0.3
    return [
        path
        for name, suffixes in kinds.items()
        for path in Path(folder, name).glob("*")
        if path.suffix in suffixes and path.is_file()
    ]


def require_own_parts(folder: str | Path) -> None:
    """Refuse a folder of which a report would replace files that no report wrote."""
    if (parts := parts_of_report(folder)) and not Path(folder, "report.md").is_file():
        raise ValueError(
            f"{parts[0]}: a report would replace it, but {folder} has no report.md, so it is not part of an earlier "
            "one. Choose another output folder, or move the file away."
        )


def _trained(evaluation: Evaluation) -> str:
    cases = evaluation.results["case"].nunique()
    number = evaluation.facts["trained_cases"]
    return f"{evaluation.name} was trained on {number} of these {cases} cases, so its results are not those of a test."


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


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
