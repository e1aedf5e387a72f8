"""A paper's own table with measured values: each published number beside ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from common.evaluation.analysis.published import cite
from common.evaluation.analysis.published import published as read_published
from common.evaluation.analysis.statistics import MEAN, paired_tests, subset_statistics
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report.tables import (
    STAR,
    Table,
    circled,
    counted,
    framed,
    made_with,
    significant,
    with_deviation,
)
from common.modalities import subset_names, subset_size

AGGREGATES = {
    "mean of single modalities": (1,),
    "mean of pairs (N=2 missing)": (2,),
    "mean of triples (N=1 missing)": (3,),
    "mean of full and the four single modalities": (1, 4),
}
"""Description of a published row that is a mean over subsets -> numbers of modalities of these subsets."""
Key = tuple[str, str, str]
"""Metric, subset (or what was averaged) and region (or ``mean``) of a number."""


@dataclass(frozen=True)
class Block:
    """A published table, or the part of one that is about one dataset.

    Attributes:
        source: paper, table and dataset as in `analysis.published.sources`.
        names: the methods to print, in order, by their names in the paper.
        trained: name in the paper -> name of the measured method. Two names may be one method (PMKL's teacher and
            students); each then has only those of its numbers that the paper prints for that name.
        unavailable: name in the paper -> reason why nothing was measured; may be empty.
    """

    source: tuple[str, str, str]
    names: tuple[str, ...]
    trained: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)


def paper_tables(
    blocks: Sequence[Block], evaluations: Sequence[Evaluation], modalities: Sequence[str], notes: Sequence[str] = ()
) -> dict[str, Table]:
    """Return the papers' tables by file stem, with a measured column before each published one.

    Blocks of the same paper and table make one table. If it has several subsets, these are its rows, regions and
    methods are its columns, and each metric has a table of its own. Otherwise methods are the rows, and metrics and
    regions the columns. Methods that are in no block come last; methods without an evaluation get a dash. Stars mark
    differences from the first evaluation. ``notes`` are lines below each table.
    """
    placed = {name for block in blocks for name in block.trained.values()}
    measured = {evaluation.name: evaluation for evaluation in evaluations}
    tables: dict[str, Table] = {}
    for paper, number in dict.fromkeys(block.source[:2] for block in blocks):
        parts = [block for block in blocks if block.source[:2] == (paper, number)]
        lines = [line for block in parts for line in _lines(block, measured)]
        others = {name: e for name, e in measured.items() if name not in placed}
        lines += [_Line(name, parts[-1].source[2], {}, _measured(e), name) for name, e in others.items()]
        rows = [read_published(*block.source) for block in parts]
        printed = pd.concat([part[part["method"].isin(block.names)] for part, block in zip(rows, parts, strict=True)])
        title = f"{paper}, {number if ' ' in number else f'Table {number}'}"
        made = _Maker(title, printed, lines, [*_legend(parts, lines, evaluations), *notes], evaluations)
        stem = "_".join((paper, number)).lower().replace("-", "_").replace(" ", "_").replace("/", "_")
        if len(made.subsets) == 1:
            tables[stem] = made.by_method()
        else:
            several = len(made.metrics) > 1
            tables |= {f"{stem}_{m}" if several else stem: made.by_subset(m, modalities) for m in made.metrics}
    return tables


def published_table(source: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, Table]:
    """Return a published table (see `analysis.published.sources`) with measured methods, as `paper_tables` does.

    Methods of the same name as one in the paper stand beside it; the others come last.
    """
    names, ours = tuple(read_published(*source)["method"].unique()), {evaluation.name for evaluation in evaluations}
    trained = {name: name for name in names if name in ours}
    block = Block(tuple(source), names, trained, {name: "" for name in names if name not in ours})
    return paper_tables([block], evaluations, evaluations[0].modalities)


@dataclass(frozen=True)
class _Line:
    """The published and the measured means and standard deviations of a method, either of which may be missing."""

    label: str
    dataset: str
    theirs: Mapping[Key, tuple[float, float]]
    ours: Mapping[Key, tuple[float, float]]
    name: str = ""
    """Name of the measured method; empty if nothing has been measured."""
    unavailable: bool = False


class _Maker:
    """Builder of the tables for one table number of a paper."""

    def __init__(
        self,
        title: str,
        printed: pd.DataFrame,
        lines: Sequence[_Line],
        notes: Sequence[str],
        evaluations: Sequence[Evaluation],
    ) -> None:
        self.title, self.lines, self.notes = title, lines, notes
        self.printed = printed[printed["metric"].isin(METRICS)]
        self.subsets, self.metrics = list(self.printed["modalities"].unique()), list(self.printed["metric"].unique())
        self.with_std = set(self.printed["metric"][self.printed["std"].notna()])
        self.stars = {cell for metric in self.metrics for cell in _significant(evaluations, metric)}

    def by_subset(self, metric: str, modalities: Sequence[str]) -> Table:
        """Return the table of a metric with a row per subset and a column per region and method."""
        printed = self.printed[self.printed["metric"] == metric]
        lines = [line for line in self.lines if not line.theirs or any(key[0] == metric for key in line.theirs)]
        subsets, columns = list(printed["modalities"].unique()), []
        for region in printed["region"].unique():
            for line in lines:
                keys = [(metric, subset, region) for subset in subsets]
                if not line.unavailable:
                    columns.append(((region, line.label), [self._cell(line, False, key) for key in keys]))
                if line.theirs:
                    label = f"{line.label}{'‡' if line.unavailable else '†'}"
                    columns.append(((region, label), [self._cell(line, True, key) for key in keys]))
        title = f"{self.title}: {METRICS[metric].label} ({METRICS[metric].unit})"
        return Table(title, circled(subsets, modalities, columns), self.notes, headings=len(modalities))

    def by_method(self) -> Table:
        """Return the table with a row per method and a column per metric and region."""
        several = len({line.dataset for line in self.lines}) > 1
        labels = [f"{line.label}{'‡' if line.unavailable else ''}" for line in self.lines]
        columns = [(("", "dataset"), [line.dataset for line in self.lines])] * several + [(("", "method"), labels)]
        for metric in self.metrics:
            for region in self.printed["region"][self.printed["metric"] == metric].unique():
                group = f"{METRICS[metric].label} ({METRICS[metric].unit}) {region}"
                for label, theirs in (("ours", False), ("published†", True)):
                    cells = [self._cell(line, theirs, (metric, self.subsets[0], region)) for line in self.lines]
                    columns.append(((group, label), cells))
        return Table(self.title, framed(columns), self.notes, headings=1 + several)

    def _cell(self, line: _Line, published: bool, key: Key) -> str:
        """Return a mean as printed, with its standard deviation where the paper prints one."""
        mean, std = (line.theirs if published else line.ours).get(key, (float("nan"), float("nan")))
        factor = METRICS[key[0]].factor
        star = not published and (line.name, *key) in self.stars
        return with_deviation(factor * mean, factor * std if key[0] in self.with_std else float("nan"), star)


def _lines(block: Block, measured: Mapping[str, Evaluation]) -> list[_Line]:
    rows, methods, lines = read_published(*block.source), list(block.trained.values()), []
    for label in block.names:
        printed = rows.loc[rows["method"] == label, ["metric", "modalities", "region", "value", "std"]]
        theirs = {tuple(key): (value, std) for *key, value, std in printed.itertuples(index=False, name=None)}
        name = block.trained.get(label, "")
        ours = _measured(measured[name]) if name in measured else {}
        if methods.count(name) > 1:
            ours = {key: value for key, value in ours.items() if key in theirs}
        name = name if name in measured else ""
        lines.append(_Line(label, block.source[2], theirs, ours, name, label in block.unavailable))
    return lines


def _measured(evaluation: Evaluation) -> dict[Key, tuple[float, float]]:
    """Return means and standard deviations, including those of the averages that papers print.

    A mean over subsets is NaN if one is missing. Its standard deviation is over the subsets' means; the other standard
    deviations are over cases.
    """
    values, everything = {}, subset_names(evaluation.modalities)
    for metric in evaluation.results["metric"].unique():
        table, cases = subset_statistics(evaluation, metric), evaluation.values(metric)
        mean, std = table["mean"].copy(), table["std"].copy()
        mean[MEAN] = mean.mean(axis=1, skipna=False)
        std[MEAN] = cases.mean(axis=1, skipna=False).groupby("modalities").std()
        single = mean.copy()
        for name, sizes in ({MEAN: range(len(evaluation.modalities) + 1)} | AGGREGATES).items():
            rows = single.reindex([subset for subset in everything if subset_size(subset) in sizes])
            mean.loc[name], std.loc[name] = rows.mean(skipna=False), rows.std(skipna=False)
        values |= {(metric, s, r): (mean.loc[s, r], std.loc[s, r]) for s in mean.index for r in mean.columns}
    return values


def _significant(evaluations: Sequence[Evaluation], metric: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield method, metric, subset and region of numbers that differ significantly from the first method's."""
    for evaluation in evaluations[1:]:
        pair = (evaluation, evaluations[0])
        if evaluation.cohort != pair[1].cohort or not all(metric in set(part.results["metric"]) for part in pair):
            continue
        for method, subset, region in significant(paired_tests(*pair, metric).assign(method=evaluation.name)):
            yield method, metric, subset, region


def _legend(blocks: Sequence[Block], lines: Sequence[_Line], evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the explanation of the marks, and the conventions of the numbers."""
    first = blocks[0].source
    datasets = ", ".join(dict.fromkeys(block.source[2] for block in blocks))
    notes = [f"† Published, not measured: {cite(first[0], first[1], datasets)}."]
    reasons = {name: reason for block in blocks for name, reason in block.unavailable.items()}
    if reasons:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        notes.append("‡ Published numbers only." + (f" {why}." if why else ""))
    if not evaluations:
        return [*notes, "Nothing has been measured."]
    sizes = [evaluation.results["case"].nunique() for evaluation in evaluations]
    notes.append(f"Without a mark: measured, mean over {counted(*sizes, noun='case')}, then over subsets and regions.")
    absent = [line.label for line in lines if not (line.name or line.unavailable)]
    if absent:
        notes.append(f"Not measured (yet): {', '.join(absent)}.")
    if len(evaluations) > 1:
        notes.append(f"Against {evaluations[0].name}: {STAR}; the papers' own marks are left out.")
    return [*notes, made_with(evaluations)]
