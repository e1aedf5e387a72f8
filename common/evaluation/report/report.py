"""A report on one or several evaluations, with their tables, statistics and figures, as HTML and Markdown."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader

from common.evaluation.analysis.statistics import compare_to_first
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
    names = ", ".join(evaluation.name for evaluation in evaluations)
    cohorts = list(dict.fromkeys(evaluation.cohort for evaluation in evaluations))
    subsets = counted(*(len(evaluation.subsets) for evaluation in evaluations), noun="subset")
    modalities = ", ".join(map(display_name, evaluations[0].modalities))
    tests = compare_to_first(evaluations) if len(evaluations) > 1 and len(cohorts) == 1 else None
    sections = [*all_sections(evaluations, tests, coverage, published or {}, panels or {}, labels)]
    figures = {stem: files for section in sections for stem, files in section.rendered().items()}
    shown = {
        "title": f"Segmentation with missing modalities: {names} on {' and '.join(cohorts)}",
        "remarks": remarks,
        "data": f"{data_in_words(evaluations)}, {subsets} of {modalities}.",
        "conventions": made_with(evaluations),
        "phantom": "phantom" in cohorts,
        "sections": sections,
    }
    templates = Environment(loader=PackageLoader("common.evaluation.report"))  # the pages escape what is given
    words, html = templates.get_template("report.md"), templates.get_template("page.html")
    with written_whole(folder, earlier=parts_of_report(folder)) as made:
        _write(made / "report.md", words.render(shown, page=_Markdown()))
        body = words.render(shown, page=_Html({stem: files[".png"] for stem, files in figures.items()}))
        _write(made / "report.html", html.render(title=shown["title"], body=body))
        for stem, files in figures.items():
            for suffix, content in files.items():
                with replacing(made / "figures" / f"{stem}{suffix}") as temporary:
                    temporary.write_bytes(content)
        for section in sections:
            for stem, table in section.tables.items():
                write_table(table, made / "tables", stem)


class _Markdown:
    """Blocks of a page as Markdown; long tables are links."""

    def heading(self, text: str, level: int) -> str:
        return f"{'#' * level} {markdown(text)}\n"

    def text(self, text: str) -> str:
        return f"{markdown(text)}\n"

    def remark(self, text: str) -> str:
        return f"> **{markdown(text)}**\n"

    def figure(self, stem: str, caption: str) -> str:
        return f"![{markdown(caption)}](figures/{stem}.png)\n\n*{markdown(caption)}*\n"

    def table(self, stem: str, table: Table, folded: bool) -> str:
        return f"- [{markdown(table.title)}](tables/{stem}.md)" if folded else table.to_markdown()


class _Html:
    """Blocks of a page as HTML, which contains the figures; long tables are folded."""

    def __init__(self, images: Mapping[str, bytes]) -> None:
        self.images = images

    def heading(self, text: str, level: int) -> str:
        return f"<h{level}>{escape(text)}</h{level}>"

    def text(self, text: str) -> str:
        return f"<p>{escape(text)}</p>"

    def remark(self, text: str) -> str:
        return f'<p class="remark">{escape(text)}</p>'

    def figure(self, stem: str, caption: str) -> str:
        source, words = b64encode(self.images[stem]).decode(), escape(caption)
        return (
            f'<figure><img alt="{words}" src="data:image/png;base64,{source}"><figcaption>{words}</figcaption></figure>'
        )

    def table(self, stem: str, table: Table, folded: bool) -> str:
        html = f'<div class="wide">\n{table.to_html()}</div>'
        return f"<details><summary>{escape(table.title)}</summary>\n{html}</details>" if folded else html


def write_table(table: Table, folder: Path, stem: str) -> None:
    """Write a table as ``stem.md``, ``stem.tex`` and ``stem.html``."""
    for suffix, text in (("md", table.to_markdown()), ("tex", table.to_latex()), ("html", table.to_html())):
        _write(folder / f"{stem}.{suffix}", text)


def parts_of_report(folder: str | Path) -> list[Path]:
    """Return the files that may be parts of an earlier report."""
    kinds = {"tables": (".md", ".tex", ".html"), "figures": (".png", ".svg", ".pdf")}  # earlier versions wrote SVG
    return [
        path
        for name, suffixes in kinds.items()
        for path in Path(folder, name).glob("*")
        if path.suffix in suffixes and path.is_file()
    ]


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


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
