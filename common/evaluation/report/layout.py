"""A table as rows of cells, and its three renderings: Markdown, LaTeX and HTML. The contents come from `tables`."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from math import isnan

PRESENT, ABSENT, NOTHING = "●", "○", "–"
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`$"} | {"<": "&lt;"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$", "–": "--"}
    | {PRESENT: r"$\bullet$", ABSENT: r"$\circ$", "*": "$^{*}$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$"}
    | {"[": "{[}"}  # after \\ a bare [ opens an option
)
_MARKDOWN_ALIGN = {"l": ":-", "c": ":-:", "r": "-:"}


@dataclass(frozen=True)
class Cell:
    """A cell of a `Table`: plain text, and the number of columns that it covers."""

    text: str = ""
    bold: bool = False
    """Whether it is the best of its row or column."""
    star: bool = False
    """Whether it differs significantly from the reference method."""
    span: int = 1


@dataclass(frozen=True)
class Column:
    """A column of a `Table`: its header, and ``l``, ``c`` or ``r``."""

    label: str
    group: str = ""
    """Header over neighbouring columns of the same group; empty for none."""
    align: str = "r"
    published: bool = False
    """Whether its numbers are copied from a paper, not measured."""


@dataclass(frozen=True)
class Table:
    """A table that can be written as Markdown, LaTeX and HTML.

    Attributes:
        title: caption of the table.
        columns: columns from left to right.
        rows: rows of cells from left to right; their spans add up to the number of columns.
        notes: lines below the table.
        headings: number of columns on the left that name the row.
        totals: number of rows at the bottom that are set apart.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    headings: int = 1
    totals: int = 0

    def to_markdown(self) -> str:
        """Return GitHub-flavoured Markdown, in which the single header row joins each column's group and label."""
        header = [markdown(" ".join(filter(None, (column.group, column.label)))) for column in self.columns]
        rows = [[part for cell in row for part in (_markdown(cell), *[""] * (cell.span - 1))] for row in self.rows]
        lines = [header, [_MARKDOWN_ALIGN[column.align] for column in self.columns], *rows]
        grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        around = [markdown(text) for text in (self.title, *self.notes)]
        return "\n\n".join([f"**{around[0]}**", grid, *around[1:]]) + "\n"

    def to_latex(self) -> str:
        """Return a LaTeX table, shrunk if it is wider than the line. It needs the packages booktabs and adjustbox."""
        grouped, rules, start = [], [], 1
        for group, size in self._groups():
            end = start + size - 1
            grouped.append(f"\\multicolumn{{{size}}}{{c}}{{{group.translate(_LATEX)}}}")
            rules += [f"\\cmidrule(lr){{{start}-{end}}}"] if group else []
            start = end + 1
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in self.rows]
        if self.totals:
            lines.insert(-self.totals, r"\midrule")
        groups = [" & ".join(grouped) + r" \\", "".join(rules)] if rules else []
        labels = " & ".join(column.label.translate(_LATEX) for column in self.columns) + r" \\"
        head = [r"\begin{table}", r"\centering", f"\\caption{{{self.title.translate(_LATEX)}}}"]
        head += [r"\begin{adjustbox}{max width=\linewidth}"]
        head += [f"\\begin{{tabular}}{{{''.join(column.align for column in self.columns)}}}", r"\toprule"]
        foot = [r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}"]
        foot += [f"\n\\footnotesize {note.translate(_LATEX)}" for note in self.notes]
        return "\n".join([*head, *groups, labels, r"\midrule", *lines, *foot, r"\end{table}", ""])

    def to_html(self) -> str:
        """Return a ``<table class="results">``; see the style sheet in ``templates/report.html`` for its classes."""
        rows = [self._html_row(row) for row in self.rows]
        split = len(rows) - self.totals
        parts = [f"<caption>{escape(self.title)}</caption>", f"<thead>\n{self._html_header()}</thead>"]
        parts.append(f"<tbody>\n{''.join(rows[:split])}</tbody>")
        if self.totals:
            parts.append(f'<tbody class="total">\n{"".join(rows[split:])}</tbody>')
        if self.notes:
            notes = "<br>\n".join(map(escape, self.notes))
            parts.append(f'<tfoot>\n<tr><td class="note" colspan="{len(self.columns)}">{notes}</td></tr>\n</tfoot>')
        return '<table class="results">\n' + "\n".join(parts) + "\n</table>\n"

    def _groups(self) -> list[tuple[str, int]]:
        """Return the groups from left to right, with their numbers of columns."""
        return [(group, len(list(columns))) for group, columns in groupby(column.group for column in self.columns)]

    def _html_header(self) -> str:
        labels = [
            f'<th scope="col"{_classes(published=column.published)}>{escape(column.label)}</th>'
            for column in self.columns
        ]
        groups = [
            f'<th scope="colgroup" colspan="{size}">{escape(group)}</th>' if group else f'<td colspan="{size}"></td>'
            for group, size in self._groups()
        ]
        rows = [groups, labels] if any(column.group for column in self.columns) else [labels]
        return "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)

    def _html_row(self, row: Sequence[Cell]) -> str:
        cells, start = [], 0
        for cell in row:
            tag = 'th scope="row"' if start < self.headings else "td"
            classes = _classes(
                best=cell.bold,
                significant=cell.star,
                published=self.columns[start].published,
                present=cell.text == PRESENT,
                absent=cell.text == ABSENT,
            )
            span = f' colspan="{cell.span}"' if cell.span > 1 else ""
            text = f"<strong>{escape(cell.text)}</strong>" if cell.bold else escape(cell.text)
            cells.append(f"<{tag}{span}{classes}>{text}{'<sup>*</sup>' if cell.star else ''}</{tag[:2]}>")
            start += cell.span
        return f"<tr>{''.join(cells)}</tr>\n"


def decimal(value: float, places: int = 1, sign: str = "-") -> str:
    """Return a number as tables print it, or `NOTHING` for NaN; ``sign`` is Python's format option, ``+`` or ``-``."""
    return NOTHING if isnan(value) else f"{value:{sign}z.{places}f}".replace("-", "−")


def counted(*counts: int, noun: str = "") -> str:
    """Return a number of things, or the range of several numbers: ``1 case`` or ``0 to 2 cases``."""
    low, high = min(counts), max(counts)
    number = f"{low} to {high}" if low < high else str(high)
    return f"{number} {noun}{'' if number == '1' else 's'}" if noun else number


def with_interval(value: float, low: float, high: float, sign: str = "-") -> str:
    """Return a value with its interval, e.g. ``81.2 [78.9, 83.4]``; without brackets if there is none (NaN)."""
    return decimal(value, sign=sign) + ("" if isnan(low) else f" [{decimal(low)}, {decimal(high)}]")


def markdown(text: str) -> str:
    """Return Markdown that shows plain text unchanged, in one line and without HTML or links."""
    return " ".join(text.splitlines()).translate(_MARKDOWN).replace("](", "]\\(")


def _markdown(cell: Cell) -> str:
    text = markdown(cell.text)
    return (f"**{text}**" if cell.bold else text) + (r"\*" if cell.star else "")


def _latex(cell: Cell) -> str:
    text = cell.text.translate(_LATEX)
    text = (f"\\textbf{{{text}}}" if cell.bold else text) + ("$^{*}$" if cell.star else "")
    return f"\\multicolumn{{{cell.span}}}{{l}}{{{text}}}" if cell.span > 1 else text


def _classes(**given: bool) -> str:
    names = " ".join(name for name, applies in given.items() if applies)
    return f' class="{names}"' if names else ""
