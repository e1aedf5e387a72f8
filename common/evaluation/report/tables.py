"""Tables in the papers' layout, made from evaluations and their paired tests.

If methods lack subsets, every mean over subsets is over those that all methods have, and the notes list these. Each
function returns a `Table`, which can be written as Markdown, LaTeX and HTML; its notes explain stars and bold cells.
Functions of several evaluations raise ValueError if two have the same name, or one has other modalities or regions than
the first.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

import pandas as pd

from common.evaluation.analysis.statistics import (
    MEAN,
    is_pooled,
    mean_over_subsets,
    subset_statistics,
    with_shared_cells,
)
from common.evaluation.metrics.conventions import METRICS, Metric
from common.evaluation.metrics.results import Evaluation, require_alike, subsets_of_any
from common.evaluation.report.layout import (
    ABSENT,
    NOTHING,
    PRESENT,
    Cell,
    Column,
    Table,
    counted,
    decimal,
    with_interval,
)
from common.modalities import display_name, display_subset, subset_size

SIGNIFICANT = 0.05
Keys = frozenset[tuple[str, str, str]]
"""Method, subset and region of results that differ significantly from the first method's."""
Numbers = tuple[pd.DataFrame, pd.DataFrame]
"""A method's means and standard deviations in the units of results.csv, with a column per region."""


def subset_table(evaluations: Sequence[Evaluation], metric: str = "dice", tests: pd.DataFrame | None = None) -> Table:
    """Return the papers' table: a row per subset, a column per region and method, and the mean over subsets below.

    Stars mark differences from the first method, by ``tests``, the result of `analysis.statistics.compare_to_first`.
    """
    require_alike(evaluations)
    common, first, names = with_shared_cells(evaluations, metric), evaluations[0], subsets_of_any(evaluations)
    numbers = {
        method.name: _with_mean(subset_statistics(method, metric), subset_statistics(shared, metric)["mean"])
        for method, shared in zip(evaluations, common, strict=True)
    }
    rows = {name: [Cell(PRESENT if m in name.split("+") else ABSENT) for m in first.modalities] for name in names}
    rows[MEAN] = [Cell(MEAN, span=len(first.modalities))]
    return Table(
        title=_title(evaluations, metric),
        columns=[*(Column(display_name(m), align="c") for m in first.modalities), *_columns(numbers, first.regions)],
        rows=_grid(rows, numbers, first.regions, METRICS[metric], _stars(tests, first, metric)),
        notes=[
            f"{_averaged(evaluations, metric)} Last row: mean ± standard deviation over subsets.",
            *_lacking(evaluations, common),
            *_notes(evaluations, metric, tests, "the subsets and regions (in the row mean, for the regions)"),
        ],
        headings=len(first.modalities),
        totals=1,
    )


def missing_table(evaluations: Sequence[Evaluation], metric: str = "dice") -> Table:
    """Return a table of means over subsets by the number of modalities that they lack, with the number of subsets."""
    require_alike(evaluations)
    common, first, names = with_shared_cells(evaluations, metric), evaluations[0], subsets_of_any(evaluations)
    missing = {name: str(len(first.modalities) - subset_size(name)) for name in names}
    sizes = Counter(missing[name] for name in common[0].subsets)
    numbers = {}
    for shared in common:
        mean = subset_statistics(shared, metric)["mean"].groupby(missing).mean()
        numbers[shared.name] = mean, mean * float("nan")
    rows = {number: [Cell(number), Cell(str(sizes[number]))] for number in sorted(set(missing.values()))}
    return Table(
        title=_title(evaluations, metric, ", by number of missing modalities"),
        columns=[Column("missing"), Column("subsets"), *_columns(numbers, first.regions)],
        rows=_grid(rows, numbers, first.regions, METRICS[metric]),
        notes=[
            f"{_averaged(evaluations, metric, spread=False)} Each row is a mean over subsets.",
            *_lacking(evaluations, common),
            *_notes(evaluations, metric),
        ],
        headings=2,
    )


def comparison_table(
    evaluations: Sequence[Evaluation], metric: str = "dice", tests: pd.DataFrame | None = None
) -> Table:
    """Return a table with a row per method: its mean over the subsets, for each region and over regions.

    Beside the mean is its 95 % interval. With several methods there are also the difference from the first one and the
    number of subsets for which only this method has the best mean. For ``tests`` see `subset_table`.
    """
    require_alike(evaluations)
    common, first, shown = with_shared_cells(evaluations, metric), evaluations[0], METRICS[metric]
    totals = {evaluation.name: mean_over_subsets(evaluation, metric) for evaluation in common}
    parts, several = list(totals[first.name].index), len(evaluations) > 1
    ranked = several and shown.best is not None
    best = {
        part: _best({name: shown.factor * total.loc[part, "mean"] for name, total in totals.items()}, shown)
        for part in parts
    }
    wins = _wins(common, metric) if ranked else pd.DataFrame()
    stars = _stars(tests, first, metric)
    bounded = any(total["low"].notna().any() for total in totals.values())

    def cells(name: str, part: str) -> list[Cell]:
        mean = totals[name].loc[part]
        found = [Cell(with_interval(*(shown.factor * mean)), name in best[part], (name, MEAN, part) in stars)]
        if several:
            difference = mean["mean"] - totals[first.name].loc[part, "mean"]
            found.append(Cell(NOTHING if name == first.name else decimal(shown.factor * difference, sign="+")))
        if ranked:
            found.append(Cell(str(wins.loc[name, part]) if common[0].subsets else NOTHING))
        return found

    labels = [shown.label, *["Δ"] * several, *["won"] * ranked]
    legend = [f"Δ: difference to {first.name}."] * several
    legend += [
        f"won: number of the {counted(len(common[0].subsets), noun='subset')} in which the method is best."
    ] * ranked
    return Table(
        title=_title(evaluations, metric, ", mean over the subsets"),
        columns=[Column("method", align="l"), *(Column(label, part) for part in parts for label in labels)],
        rows=[[Cell(name), *(cell for part in parts for cell in cells(name, part))] for name in totals],
        notes=[
            _averaged(evaluations, metric, spread=False)
            + " In brackets: 95 % bootstrap interval over cases." * bounded,
            *([" ".join(legend)] if legend else []),
            *_lacking(evaluations, common),
            *_notes(evaluations, metric, tests, "the regions"),
        ],
    )


def source_table(evaluations: Sequence[Evaluation], metric: str = "dice") -> Table:
    """Return a table with a row per data set that cases come from: each method's means over the subsets."""
    require_alike(evaluations)
    first, shown = evaluations[0], METRICS[metric]
    names = sorted({source for evaluation in evaluations for source in evaluation.sources.values()})
    common, rows = with_shared_cells(evaluations, metric), {}
    numbers: dict[str, list[pd.Series]] = {evaluation.name: [] for evaluation in evaluations}
    for name in names:
        parts = [_of_source(evaluation, name) for evaluation in common]
        cases = [part.results["case"].nunique() for part in parts]
        rows[name] = [Cell(name), Cell("/".join(map(str, dict.fromkeys(cases))))]
        for part in parts:
            numbers[part.name].append(subset_statistics(part, metric)["mean"].mean().rename(name))
    tables = {name: pd.DataFrame(means) for name, means in numbers.items()}
    return Table(
        title=_title(evaluations, metric, ", by data set"),
        columns=[Column("data set", align="l"), Column("cases"), *_columns(tables, first.regions)],
        rows=_grid(rows, {name: (mean, mean * float("nan")) for name, mean in tables.items()}, first.regions, shown),
        notes=["Each number is a mean over subsets of means over the data set's cases.", *_notes(evaluations, metric)],
        headings=2,
    )


def _of_source(evaluation: Evaluation, source: str) -> Evaluation:
    there = evaluation.results["case"].map(evaluation.sources) == source
    return replace(evaluation, results=evaluation.results[there])


def statistics_table(tests: pd.DataFrame) -> Table:
    """Return the rows of `analysis.statistics.compare_to_first` as a table."""
    labels = ["n", "mean", "other mean", "difference [95 % CI]", "p", "p (Holm)", "effect"]
    return Table(
        title="Paired tests",
        columns=[
            *(Column(label, align="l") for label in ("method", "other", "metric", "subset", "region")),
            *map(Column, labels),
        ],
        rows=[_test_row(test) for _, test in tests.iterrows()],
        notes=[
            "Two-sided Wilcoxon signed-rank test over the cases that both methods have; differences of 0 are dropped. "
            "p (Holm) is corrected for the subsets and regions of a metric (in the rows mean, for the regions). "
            f"* p (Holm) < {SIGNIFICANT}.",
            "The rows mean use each case's mean over the subsets that all methods have. Tests and means are "
            "computed per case, even where other tables pool voxels.",
            "difference: method minus other, with its 95 % bootstrap interval over cases. "
            "effect: matched-pairs rank-biserial correlation, positive if the method's values are larger.",
        ],
        headings=5,
    )


def _with_mean(table: pd.DataFrame, shared: pd.DataFrame) -> Numbers:
    """Return a method's numbers, with a row for the mean over the subsets that it shares with the others."""
    mean, std = table["mean"].copy(), table["std"].copy()
    mean.loc[MEAN], std.loc[MEAN] = shared.mean(), shared.std()
    return mean, std


def _stars(tests: pd.DataFrame | None, first: Evaluation, metric: str) -> Keys:
    if tests is None or tests.empty:
        return frozenset()
    low = tests["p_holm"] < SIGNIFICANT
    chosen = tests[low & (tests["metric"] == metric) & (tests["other"] == first.name)]
    return frozenset(chosen[["method", "modalities", "region"]].itertuples(index=False, name=None))


def _columns(methods: Collection[str], regions: Sequence[str]) -> list[Column]:
    if len(methods) == 1:
        return [Column(region) for region in regions]
    return [Column(name, region) for region in regions for name in methods]


def _grid(
    rows: Mapping[str, list[Cell]],
    numbers: Mapping[str, Numbers],
    regions: Sequence[str],
    shown: Metric,
    stars: Keys = frozenset(),
) -> list[list[Cell]]:
    """Return each row's labels, then a cell per region and method (by name); the best one is bold."""
    numbers = {
        name: [shown.factor * table.reindex([*rows], columns=regions) for table in tables]
        for name, tables in numbers.items()
    }
    grid = []
    for row, labels in rows.items():
        grid.append([*labels])
        for region in regions:
            best = _best({name: mean.loc[row, region] for name, (mean, _) in numbers.items()}, shown)
            for name, (mean, std) in numbers.items():
                spread = std.loc[row, region]
                text = decimal(mean.loc[row, region]) + ("" if pd.isna(spread) else f" ± {decimal(spread)}")
                grid[-1].append(Cell(text, name in best, (name, row, region) in stars))
    return grid


def _best(values: Mapping[str, float], shown: Metric) -> set[str]:
    """Return the names of the best values, if not all are equal; values that are printed alike count as equal."""
    printed = {name: round(value, 1) for name, value in values.items() if not pd.isna(value)}
    if len(set(printed.values())) < 2 or shown.best is None:
        return set()
    best = (max if shown.higher_is_better else min)(printed.values())
    return {name for name, value in printed.items() if value == best}


def _wins(common: Sequence[Evaluation], metric: str) -> pd.DataFrame:
    """Return how many subsets each method (row) wins in each region and over regions (columns)."""
    means = {evaluation.name: subset_statistics(evaluation, metric)["mean"] for evaluation in common}
    wins = {}
    for part in (*common[0].regions, MEAN):
        table = pd.DataFrame({name: mean.mean(axis=1) if part == MEAN else mean[part] for name, mean in means.items()})
        table = table.dropna()
        best = table.max(axis=1) if METRICS[metric].higher_is_better else table.min(axis=1)
        leads = table.eq(best, axis=0)
        wins[part] = leads[leads.sum(axis=1) == 1].sum()
    return pd.DataFrame(wins)


def _test_row(test: pd.Series) -> list[Cell]:
    shown = METRICS[test["metric"]]
    subset = MEAN if test["modalities"] == MEAN else display_subset(test["modalities"])
    values = shown.factor * test[["mean", "other_mean", "difference", "low", "high"]].astype(float)
    return [
        *map(Cell, (test["method"], test["other"], f"{shown.label} ({shown.unit})", subset, test["region"])),
        *map(Cell, (str(test["n"]), decimal(values["mean"]), decimal(values["other_mean"]))),
        Cell(with_interval(*values[["difference", "low", "high"]], sign="+")),
        Cell(_p(test["p"])),
        Cell(_p(test["p_holm"]), star=test["p_holm"] < SIGNIFICANT),
        Cell(decimal(test["effect"], 2, "+")),
    ]


def _p(p: float) -> str:
    if pd.isna(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def data_in_words(evaluations: Sequence[Evaluation]) -> str:
    """Return regions, data and cases, e.g. ``WT, TC, ET: open_glioma, test part of split full, 9 cases``."""
    places = {}
    for evaluation in evaluations:
        part, split, folds = (evaluation.facts.get(key) for key in ("part", "split", "folds"))
        said = [evaluation.cohort, f"{part} part" + (f" of split {split}" if split else "") if part else ""]
        places[", ".join(filter(None, [*said, f"{folds} folds" if folds else ""]))] = None
    cases = counted(*(evaluation.results["case"].nunique() for evaluation in evaluations), noun="case")
    return f"{', '.join(evaluations[0].regions)}: {' and '.join(places)}, {cases}"


def _title(evaluations: Sequence[Evaluation], metric: str, what: str = "") -> str:
    return f"{_label(metric)} ({METRICS[metric].unit}){what}; {data_in_words(evaluations)}"


def _label(metric: str) -> str:
    """Return a metric's label with a capital letter."""
    label = METRICS[metric].label
    return label[0].upper() + label[1:]


def _averaged(evaluations: Sequence[Evaluation], metric: str, spread: bool = True) -> str:
    """Return the sentence that says what was averaged over how many cases."""
    cells = [subset_statistics(evaluation, metric)["n"].to_numpy() for evaluation in evaluations]
    everyone = [evaluation.values(metric).dropna(how="all").index.unique("case").size for evaluation in evaluations]
    cases = counted(*everyone, noun="case")
    if any((counts < size).any() for counts, size in zip(cells, everyone, strict=True)):
        cases = f"{counted(*(n for counts in cells for n in counts.flat))} of {cases} (they differ between cells)"
    if any(is_pooled(evaluation, metric) for evaluation in evaluations):
        return f"{_label(metric)} over the pooled voxels of {cases}."
    return f"Mean{' ± standard deviation' if spread and max(everyone) > 1 else ''} over {cases}."


def _lacking(evaluations: Sequence[Evaluation], common: Sequence[Evaluation]) -> list[str]:
    """Return notes on the subsets that methods lack, and on the subsets that means are therefore over."""
    names, shared = subsets_of_any(evaluations), common[0].subsets
    if len(evaluations) == 1:
        return []
    notes = [
        f"{evaluation.name} has {len(evaluation.subsets)} of the {counted(len(names), noun='subset')}."
        for evaluation in evaluations
        if len(evaluation.subsets) < len(names)
    ]
    if not shared:
        return [*notes, "No subset has results for all methods, so there are no means over subsets."]
    if len(shared) < len(names):
        which = f"{counted(len(shared), noun='subset')} that all methods have: {', '.join(map(display_subset, shared))}"
        notes.append(f"Means over subsets include only the {which}.")
    if len(common[0].results.groupby(["modalities", "region"])) < len(shared) * len(common[0].regions):
        notes.append("Where a method has no value (–), the means over subsets leave out this cell for all methods.")
    return notes


def _notes(
    evaluations: Sequence[Evaluation], metric: str, tests: pd.DataFrame | None = None, family: str = ""
) -> list[str]:
    """Return the legend of bold cells and stars (corrected for ``family``), and the conventions of the numbers."""
    notes = []
    if len(evaluations) > 1 and METRICS[metric].best is not None:
        notes.append("Bold: the best of the measured methods, unless all are equal.")
    if tests is not None:
        pooled = any(is_pooled(evaluation, metric) for evaluation in evaluations)
        notes.append(
            f"* p < {SIGNIFICANT} against {evaluations[0].name}: two-sided Wilcoxon signed-rank test over cases, "
            f"Holm-corrected for {family}." + " The tests compare cases, not pooled voxels." * pooled
        )
    return [*notes, made_with(evaluations)]


def made_with(evaluations: Sequence[Evaluation]) -> str:
    """Return the conventions in words; if cohorts or conventions differ, a warning that lists them by method."""
    users: dict[tuple[str, str], list[str]] = {}
    for evaluation in evaluations:
        settings = ", ".join(f"{key} = {value}" for key, value in asdict(evaluation.conventions).items())
        users.setdefault((evaluation.cohort, settings), []).append(evaluation.name)
    if len(users) == 1:
        return f"Conventions: {settings}."
    whose = "; ".join(f"{', '.join(names)}: {cohort}, {settings}" for (cohort, settings), names in users.items())
    return f"Not comparable, since cohorts or conventions differ. {whose}."
