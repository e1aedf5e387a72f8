"""The builder of all tables: a data frame of texts in; Markdown, LaTeX and HTML out. And the tables of evaluations.

If methods lack subsets, every mean over subsets is over those that all methods have, and the notes list these. Several
evaluations have to be comparable (see `analysis.comparable`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import isnan

import pandas as pd

from common.evaluation.analysis.statistics import (
    MEAN,
    is_pooled,
    mean_over_subsets,
    subset_statistics,
    with_shared_cells,
)
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation, subsets_of_any
from common.modalities import display_name, display_subset, subset_names

PRESENT, ABSENT, NOTHING = "●", "○", "–"
Columns = Sequence[tuple[str | tuple[str, str], Sequence[str]]]
"""Columns of texts, named by a label, or by a group and a label."""
SIGNIFICANT = 0.05
STAR = f"two-sided Wilcoxon signed-rank test over cases; * p < {SIGNIFICANT}, Holm-corrected"
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`$"} | {"<": "&lt;"})
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "±": r"$\pm$", "−": "$-$", "Δ": r"$\Delta$", "–": "--"}
    | {PRESENT: r"$\bullet$", ABSENT: r"$\circ$", "*": "$^{*}$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$"}
    | {"[": "{[}"}  # after \\ a bare [ opens an option
)


@dataclass(frozen=True)
class Table:
    """A table that can be written as Markdown, LaTeX and, for pages, HTML.

    Attributes:
        title: caption of the table.
        frame: its cells as texts; columns are named by a label, or by a group and a label, which groups share.
        notes: lines below the table.
        headings: number of columns on the left that name the row.
    """

    title: str
    frame: pd.DataFrame
    notes: Sequence[str] = ()
    headings: int = 1

    def to_markdown(self) -> str:
        """Return GitHub-flavoured Markdown, in which the single header row joins each column's group and label."""
        header = [name if isinstance(name, str) else " ".join(filter(None, name)) for name in self.frame]
        rules = [":-" if number < self.headings else "-:" for number in range(len(header))]
        texts = [[*map(markdown, row)] for row in (header, *self.frame.to_numpy())]
        grid = "\n".join(f"| {' | '.join(row)} |" for row in (texts[0], rules, *texts[1:]))
        title, *notes = map(markdown, (self.title, *self.notes))
        return "\n\n".join([f"**{title}**", grid, *notes]) + "\n"

    def to_latex(self) -> str:
        """Return a LaTeX table, shrunk if it is wider than the line. It needs the packages booktabs and adjustbox."""
        align = "l" * self.headings + "r" * (self.frame.shape[1] - self.headings)
        tabular = self._styled(lambda text: text.translate(_LATEX)).to_latex(
            hrules=True, column_format=align, multicol_align="c"
        )
        title, *notes = (text.translate(_LATEX) for text in (self.title, *self.notes))
        head = f"\\begin{{table}}\n\\centering\n\\caption{{{title}}}\n\\begin{{adjustbox}}{{max width=\\linewidth}}\n"
        foot = "".join(f"\n\\footnotesize {note}\n" for note in notes)
        return f"{head}{tabular}\\end{{adjustbox}}\n{foot}\\end{{table}}\n"

    def to_html(self) -> str:
        """Return a ``<table>`` without styles of its own, and a paragraph for each note."""
        styled = self._styled(escape).set_caption(escape(self.title))
        notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in self.notes)
        return styled.to_html(exclude_styles=True) + notes

    def _styled(self, escaped: Callable[[str], str]) -> "pd.io.formats.style.Styler":
        return self.frame.style.hide(axis="index").format(escaped).format_index(escaped, axis="columns")


def frame_table(title: str, frame: pd.DataFrame, formats: Mapping[str, Callable[[float], str]]) -> Table:
    """Return numbers as a table: columns without a format are printed by `str`, NaN as an empty cell."""
    texts = {name: ["" if pd.isna(v) else formats.get(name, str)(v) for v in frame[name]] for name in frame}
    return Table(title, pd.DataFrame(texts, dtype=object))


def subset_table(evaluations: Sequence[Evaluation], metric: str = "dice", tests: pd.DataFrame | None = None) -> Table:
    """Return the papers' table: a row per subset, a column per region and method, and the mean over subsets below.

    Stars mark differences from the first method, by ``tests``, the result of `paired.compare_to_first`.
    """
    common, first, names = with_shared_cells(evaluations, metric), evaluations[0], subsets_of_any(evaluations)
    stars, factor, numbers = _stars(tests, metric), METRICS[metric].factor, {}
    for evaluation, shared in zip(evaluations, common, strict=True):
        mean, std = (factor * subset_statistics(evaluation, metric)[part].reindex(names) for part in ("mean", "std"))
        over = factor * subset_statistics(shared, metric)["mean"]
        mean.loc[MEAN], std.loc[MEAN] = over.mean(), over.std()
        numbers[evaluation.name] = mean, std
    columns = []
    for region in first.regions:
        for name, (mean, std) in numbers.items():
            starred = [(name, row, region) in stars for row in mean.index]
            texts = [*map(with_deviation, mean[region], std[region], starred)]
            columns.append(((region, name) if len(numbers) > 1 else region, texts))
    return Table(
        _title(evaluations, metric),
        circled([*names, MEAN], first.modalities, columns),
        _notes(
            evaluations,
            common,
            metric,
            tests,
            family="the subsets and regions (in the row mean, for the regions)",
            words="±: standard deviation over cases; in the last row, over subsets.",
        ),
        len(first.modalities),
    )


def circled(names: Sequence[str], modalities: Sequence[str], columns: Columns) -> pd.DataFrame:
    """Return a frame like `framed`, whose first columns show the modalities of each row's subset as circles.

    ``names`` are subsets; another name, such as that of a mean, stands in the first of these columns.
    """
    known = subset_names(modalities)
    rows = [
        [PRESENT if modality in name.split("+") else ABSENT for modality in modalities]
        if name in known
        else [name, *[""] * (len(modalities) - 1)]
        for name in names
    ]
    grouped = any(isinstance(label, tuple) for label, _ in columns)
    labels = [("", display_name(name)) if grouped else display_name(name) for name in modalities]
    return framed([*zip(labels, zip(*rows, strict=True), strict=True), *columns])


def framed(columns: Columns) -> pd.DataFrame:
    """Return a frame of texts, from columns named by a label, or all of them by a group and a label."""
    labels = [label for label, _ in columns]
    frame = pd.DataFrame({number: [*texts] for number, (_, texts) in enumerate(columns)}, dtype=object)
    frame.columns = pd.MultiIndex.from_tuples(labels) if isinstance(labels[0], tuple) else pd.Index(labels)
    return frame


def comparison_table(
    evaluations: Sequence[Evaluation], metric: str = "dice", tests: pd.DataFrame | None = None
) -> Table:
    """Return a table with a row per method: its mean over the subsets, for each region and over regions.

    Beside the mean is its 95 % interval and, with several methods, the difference from the first one. For ``tests`` see
    `subset_table`.
    """
    common, first, factor = with_shared_cells(evaluations, metric), evaluations[0], METRICS[metric].factor
    totals = {evaluation.name: factor * mean_over_subsets(evaluation, metric) for evaluation in common}
    stars, columns = _stars(tests, metric), [(("", "method"), [*totals])]
    for part, reference in totals[first.name]["mean"].items():
        means = [
            with_interval(*total.loc[part]) + "*" * ((name, MEAN, part) in stars) for name, total in totals.items()
        ]
        columns.append(((part, METRICS[metric].label), means))
        if len(totals) > 1:
            gains = [decimal(total.loc[part, "mean"] - reference, sign="+") for total in totals.values()]
            columns.append(((part, "Δ"), [NOTHING, *gains[1:]]))
    words = "In brackets: 95 % bootstrap interval over cases." + f" Δ: difference to {first.name}." * (len(totals) > 1)
    notes = _notes(evaluations, common, metric, tests, "the regions", words)
    return Table(_title(evaluations, metric, ", mean over the subsets"), framed(columns), notes)


def statistics_table(tests: pd.DataFrame) -> Table:
    """Return the rows of `paired.compare_to_first` of one metric as a table."""
    metric = METRICS[tests["metric"].iloc[0]]
    intervals = metric.factor * tests[["difference", "low", "high"]]
    frame = pd.DataFrame(
        {
            "method": tests["method"],
            "other": tests["other"],
            "subset": [name if name == MEAN else display_subset(name) for name in tests["modalities"]],
            "region": tests["region"],
            "n": tests["n"].astype(str),
            "mean": (metric.factor * tests["mean"]).map(decimal),
            "other mean": (metric.factor * tests["other_mean"]).map(decimal),
            "difference [95 % CI]": [with_interval(mean, low, high, "+") for mean, low, high in intervals.to_numpy()],
            "p": tests["p"].map(_p),
            "p (Holm)": tests["p_holm"].map(_p) + (tests["p_holm"] < SIGNIFICANT).map({True: "*", False: ""}),
            "effect": [decimal(effect, 2, "+") for effect in tests["effect"]],
        }
    )
    return Table(f"Paired tests of {metric.label} ({metric.unit})", frame, headings=4)


def with_deviation(mean: float, std: float, star: bool = False) -> str:
    """Return a mean with its standard deviation, if there is one, and a star if it differs significantly."""
    return decimal(mean) + ("" if isnan(std) else f" ± {decimal(std)}") + "*" * star


def with_interval(value: float, low: float, high: float, sign: str = "-") -> str:
    """Return a value with its interval, e.g. ``81.2 [78.9, 83.4]``; without brackets if there is none (NaN)."""
    return decimal(value, sign=sign) + ("" if isnan(low) else f" [{decimal(low)}, {decimal(high)}]")


def decimal(value: float, places: int = 1, sign: str = "-") -> str:
    """Return a number as tables print it, or `NOTHING` for NaN; ``sign`` is Python's format option, ``+`` or ``-``."""
    return NOTHING if isnan(value) else f"{value:{sign}z.{places}f}".replace("-", "−")


def counted(*counts: int, noun: str = "") -> str:
    """Return a number of things, or the range of several numbers: ``1 case`` or ``0 to 2 cases``."""
    low, high = min(counts), max(counts)
    number = f"{low} to {high}" if low < high else str(high)
    return f"{number} {noun}{'' if number == '1' else 's'}" if noun else number


def markdown(text: str) -> str:
    """Return Markdown that shows plain text unchanged, in one line and without HTML or links."""
    return " ".join(text.splitlines()).translate(_MARKDOWN).replace("](", "]\\(")


def _stars(tests: pd.DataFrame | None, metric: str) -> set[tuple[str, str, str]]:
    """Return method, subset and region of the tests of a metric whose corrected p-value is below `SIGNIFICANT`."""
    if tests is None:
        return set()
    rows = tests[(tests["metric"] == metric) & (tests["p_holm"] < SIGNIFICANT)]
    return set(rows[["method", "modalities", "region"]].itertuples(index=False, name=None))


def _p(p: float) -> str:
    return NOTHING if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def data_in_words(evaluations: Sequence[Evaluation]) -> str:
    """Return regions, data and cases, e.g. ``WT, TC, ET: open_glioma, test part of split full, 9 cases``."""
    facts = next((e.facts for e in evaluations if e.facts.get("part") or e.facts.get("folds")), {})
    split = f" of split {facts['split']}" if facts.get("split") else ""
    part = f", {facts['part']} part{split}" if facts.get("part") else ""
    folds = f", {facts['folds']} folds" if facts.get("folds") else ""
    counts = [evaluation.results["case"].nunique() for evaluation in evaluations]
    known = max(int(evaluation.facts.get("references", 0)) for evaluation in evaluations)
    cases = f"{counted(*counts)} of {known} cases" if known > max(counts) else counted(*counts, noun="case")
    return f"{', '.join(evaluations[0].regions)}: {evaluations[0].cohort}{part}{folds}, {cases}"


def _title(evaluations: Sequence[Evaluation], metric: str, what: str = "") -> str:
    label, unit = METRICS[metric].label, METRICS[metric].unit
    return f"{label[0].upper()}{label[1:]} ({unit}){what}; {data_in_words(evaluations)}"


def _notes(
    evaluations: Sequence[Evaluation],
    common: Sequence[Evaluation],
    metric: str,
    tests: pd.DataFrame | None,
    family: str,
    words: str,
) -> list[str]:
    """Return what was averaged (and further ``words`` on it), what is left out, what stars mean, and the conventions.

    ``common`` are the results that all methods have; stars are corrected for ``family``.
    """
    first, names, shared = evaluations[0], subsets_of_any(evaluations), common[0].subsets
    counts = [int(n) for evaluation in evaluations for n in subset_statistics(evaluation, metric)["n"].to_numpy().flat]
    pooled = "the pooled voxels of " * is_pooled(first, metric)
    notes = [f"Mean over {pooled}{counted(*counts, noun='case')}. {words}"]
    cells = common[0].results[["modalities", "region"]].drop_duplicates()
    if len(evaluations) > 1 and len(cells) < len(names) * len(first.regions):
        which = ", ".join(map(display_subset, shared)) or "none"
        notes.append(
            "Means over subsets leave out what any method lacks (–), for all methods. They are over "
            f"{len(shared)} of {len(names)} subsets: {which}."
        )
    if tests is not None:
        notes.append(f"Against {first.name}: {STAR} for {family}." + " The tests compare cases." * bool(pooled))
    return [*notes, made_with(evaluations)]


def made_with(evaluations: Sequence[Evaluation]) -> str:
    """Return the conventions, which are the same for all evaluations, in words; those that are off are left out."""
    conventions = asdict(evaluations[0].conventions).items()
    settings = ", ".join(f"{key} = {value}" for key, value in conventions if value is not None)
    return f"Conventions: {settings}."
