"""A paper's own table with measured values: each published number beside ours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from common.evaluation.analysis.statistics import MEAN, subset_statistics
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report.tables import Table, circled, counted, framed, made_with, with_deviation
from common.modalities import subset_names, subset_size
from mmb.experiments.paper_tables.published import cite
from mmb.experiments.paper_tables.published import published as read_published

AGGREGATES = {
    "mean of single modalities": (1,),
    "mean of pairs (N=2 missing)": (2,),
    "mean of triples (N=1 missing)": (3,),
    "mean of full and the four single modalities": (1, 4),
}
"""Description of a published row that is a mean over subsets -> numbers of modalities of these subsets."""
Numbers = Mapping[tuple[str, str, str], tuple[float, float]]
"""Metric, subset (or what was averaged) and region (or ``mean``) -> mean and standard deviation."""


@dataclass(frozen=True)
class Block:
    """A published table, or the part of one that is about one dataset.

    Attributes:
        source: paper, table and dataset as in `analysis.published.sources`.
        names: the methods to print, in order, by their names in the paper.
        trained: name in the paper -> name of the measured method. Two names may be one method (PMKL's teacher and
            students); each then has only those of its numbers that the paper prints for that name.
        unavailable: name in the paper -> reason why nothing can be measured.
    """

    source: tuple[str, str, str]
    names: tuple[str, ...]
    trained: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Line:
    """The published and the measured numbers of a method, either of which may be empty."""

    label: str
    dataset: str
    theirs: Numbers
    ours: Numbers


def paper_tables(
    blocks: Sequence[Block], evaluations: Sequence[Evaluation], modalities: Sequence[str], notes: Sequence[str] = ()
) -> dict[str, Table]:
    """Return the papers' tables by file stem, with a measured column before each published one.

    Blocks of the same paper and table make one table. If it has several subsets, these are its rows, regions and
    methods are its columns, and each metric has a table of its own. Otherwise methods are the rows, and metrics and
    regions the columns. Methods without an evaluation show published numbers alone; methods that are in no block come
    last. ``notes`` are lines below each table.
    """
    measured = {evaluation.name: evaluation for evaluation in evaluations}
    placed = {name for block in blocks for name in block.trained.values()}
    tables: dict[str, Table] = {}
    for paper, number in dict.fromkeys(block.source[:2] for block in blocks):
        parts = [block for block in blocks if block.source[:2] == (paper, number)]
        printed = pd.concat([_printed(block) for block in parts])
        lines = [line for block in parts for line in _lines(block, measured)]
        lines += [_Line(e.name, parts[-1].source[2], {}, _measured(e)) for e in evaluations if e.name not in placed]
        title = f"{paper}, {number if ' ' in number else f'Table {number}'}"
        stem = "_".join((paper, number)).lower().replace("-", "_").replace(" ", "_").replace("/", "_")
        legend = [*_legend(parts, evaluations), *notes]
        metrics = printed["metric"].unique()
        if printed["modalities"].nunique() == 1:
            tables[stem] = _by_method(title, printed, lines, legend)
        else:
            for metric in metrics:
                name = f"{stem}_{metric}" if len(metrics) > 1 else stem
                tables[name] = _by_subset(title, metric, printed, lines, modalities, legend)
    return tables


def published_table(source: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, Table]:
    """Return a published table (see `analysis.published.sources`) with measured methods, as `paper_tables` does.

    Methods of the same name as one in the paper stand beside it; the others come last.
    """
    names, ours = tuple(read_published(*source)["method"].unique()), {evaluation.name for evaluation in evaluations}
    paper, table, dataset = source
    block = Block((paper, table, dataset), names, {name: name for name in names if name in ours})
    return paper_tables([block], evaluations, evaluations[0].modalities)


def _by_subset(
    title: str,
    metric: str,
    printed: pd.DataFrame,
    lines: Sequence[_Line],
    modalities: Sequence[str],
    notes: Sequence[str],
) -> Table:
    """Return the table of a metric with a row per subset and a column per region and method."""
    printed, columns = printed[printed["metric"] == metric], []
    subsets, with_std = list(printed["modalities"].unique()), printed["std"].notna().any()
    for region in printed["region"].unique():
        keys = [(metric, subset, region) for subset in subsets]
        for line in lines:
            if line.theirs and not any(key[0] == metric for key in line.theirs):
                continue
            for label, numbers in ((line.label, line.ours), (f"{line.label}{'†' if line.ours else '‡'}", line.theirs)):
                if numbers:
                    columns.append(((region, label), [_text(numbers, key, with_std) for key in keys]))
    frame = circled(subsets, modalities, columns)
    return Table(f"{title}: {METRICS[metric].label} ({METRICS[metric].unit})", frame, notes, headings=len(modalities))


def _by_method(title: str, printed: pd.DataFrame, lines: Sequence[_Line], notes: Sequence[str]) -> Table:
    """Return the table with a row per method and a column per metric and region."""
    several = len({line.dataset for line in lines}) > 1
    columns = [(("", "dataset"), [line.dataset for line in lines])] if several else []
    columns.append((("", "method"), [f"{line.label}{'' if line.ours else '‡'}" for line in lines]))
    for (metric, subset, region), rows in printed.groupby(["metric", "modalities", "region"], sort=False):
        group, with_std = f"{METRICS[metric].label} ({METRICS[metric].unit}) {region}", rows["std"].notna().any()
        for label, kind in (("ours", "ours"), ("published†", "theirs")):
            texts = [_text(getattr(line, kind), (metric, subset, region), with_std) for line in lines]
            columns.append(((group, label), texts))
    return Table(title, framed(columns), notes, headings=1 + several)


def _text(numbers: Numbers, key: tuple[str, str, str], with_std: bool) -> str:
    """Return a mean as printed, with its standard deviation where the paper prints one."""
    mean, std = numbers.get(key, (float("nan"), float("nan")))
    factor = METRICS[key[0]].factor
    return with_deviation(factor * mean, factor * std if with_std else float("nan"))


def _printed(block: Block) -> pd.DataFrame:
    """Return the published numbers of a block's methods in metrics that are measured here, too."""
    rows = read_published(*block.source)
    return rows[rows["method"].isin(block.names) & rows["metric"].isin(METRICS)]


def _lines(block: Block, measured: Mapping[str, Evaluation]) -> list[_Line]:
    rows, methods, lines = _printed(block), list(block.trained.values()), []
    for label in block.names:
        printed = rows.loc[rows["method"] == label, ["metric", "modalities", "region", "value", "std"]]
        theirs = {tuple(key): (value, std) for *key, value, std in printed.itertuples(index=False, name=None)}
        name = block.trained.get(label, "")
        ours = _measured(measured[name]) if name in measured else {}
        if methods.count(name) > 1:
            ours = {key: value for key, value in ours.items() if key in theirs}
        lines.append(_Line(label, block.source[2], theirs, ours))
    return lines


def _measured(evaluation: Evaluation) -> Numbers:
    """Return means and standard deviations, including those of the averages that papers print.

    A mean over subsets is NaN if one is missing. Its standard deviation is over the subsets' means; the other standard
    deviations are over cases.
    """
    values: dict[tuple[str, str, str], tuple[float, float]] = {}
    everything = subset_names(evaluation.modalities)
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


def _legend(blocks: Sequence[Block], evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the explanation of the marks, and the conventions of the numbers."""
    paper, table, _ = blocks[0].source
    datasets = ", ".join(dict.fromkeys(block.source[2] for block in blocks))
    notes = [f"† Published, not measured: {cite(paper, table, datasets)}. ‡ Published numbers only."]
    notes += [f"{name}: {reason}." for block in blocks for name, reason in block.unavailable.items()]
    if not evaluations:
        return [*notes, "Nothing has been measured."]
    cases = counted(*(evaluation.results["case"].nunique() for evaluation in evaluations), noun="case")
    return [
        *notes,
        f"Without a mark: measured, mean over {cases}, then over subsets and regions.",
        made_with(evaluations),
    ]
