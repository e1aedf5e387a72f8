"""The sections of a report: which tables and figures they hold. Their words are in ``templates/report.md``."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from common.evaluation.analysis.attribution import shapley_summary, shapley_values
from common.evaluation.analysis.reliability import calibration_error
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report import figures
from common.evaluation.report.slices import Slice, slice_panels
from common.evaluation.report.style import rendered
from common.evaluation.report.tables import (
    Table,
    comparison_table,
    frame_table,
    statistics_table,
    subset_table,
    with_interval,
)
from common.modalities import LabelSet, display_name, display_subset

FURTHER_METRICS = ("surface_dice", "assd", "hd", "sensitivity", "precision", "volume")
"""Metrics of the section that is folded by default."""
ENTROPY_METRICS = ("entropy", "divergence")
"""Metrics of probabilities, which label maps and older results lack."""
COSTS = {
    "parameters": ("parameters (million)", 1e-6),
    "gflops": ("GFLOPs per window", 1),
    "memory_mb": ("memory (MB)", 1),
    "seconds": ("time per prediction (s)", 1),
    "substitute_values": ("substitute image (million values)", 1e-6),
}
"""Facts in the table of costs: key of an evaluation's facts -> label, factor."""


@dataclass
class Section:
    """A part of the report.

    Attributes:
        kind: which words of the template head and explain it.
        method: name of the method that it is about; empty if it is about all of them.
        tables: tables by file stem.
        figures: file stem -> name of the method (empty for all of them) and the figure.
        facts: numbers that its words mention.
        folded: whether its tables are shown on demand alone.
    """

    kind: str
    method: str = ""
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, tuple[str, Figure]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    folded: bool = False

    def rendered(self) -> dict[str, dict[str, bytes]]:
        """Return file stem -> the content of the figure's files by suffix."""
        return {stem: rendered(figure) for stem, (_, figure) in self.figures.items()}


def stems(names: Iterable[str]) -> dict[str, str]:
    """Return unique names of the methods for files: lower-case letters, digits and underscores."""
    chosen: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "method"
        numbered = chain([stem], (f"{stem}_{number}" for number in count(2)))
        chosen[name] = next(free for free in numbered if free not in chosen.values())
    return chosen


def all_sections(
    evaluations: Sequence[Evaluation],
    tests: pd.DataFrame | None,
    published: Mapping[str, Table],
    panels: Mapping[str, Sequence[Slice]],
    labels: LabelSet | None,
) -> Iterator[Section]:
    """Yield all sections for which there is something to show; see `report.write_report` for the arguments."""
    files = stems(evaluation.name for evaluation in evaluations)
    yield from accuracy(evaluations, tests, files)
    if published:
        yield Section("published", tables=dict(published))
    if tests is not None:
        per_metric = tests.groupby("metric", sort=False)
        yield Section("tests", tables={f"tests_{m}": statistics_table(rows) for m, rows in per_metric}, folded=True)
    for evaluation in evaluations:
        yield from attribution(evaluation, files[evaluation.name])
    known = {m: [e for e in evaluations if e.values(m).notna().any(axis=None)] for m in ENTROPY_METRICS}
    if tables := {metric: subset_table(measured, metric) for metric, measured in known.items() if measured}:
        yield Section("entropy", tables=tables, folded=True)
    for evaluation in evaluations:
        yield from reliability(evaluation, files[evaluation.name])
    yield from costs(evaluations)
    for method, chosen in panels.items():
        if chosen and labels:
            kinds = list(dict.fromkeys(row.title.partition(" case:")[0] for row in chosen))
            drawn = slice_panels(chosen, labels, evaluations[0].modalities)
            stem = f"panels_{files[method]}" if method else "side_by_side"
            yield Section("panels", method, figures={stem: ("", drawn)}, facts={"kinds": kinds if method else []})


def accuracy(
    evaluations: Sequence[Evaluation], tests: pd.DataFrame | None, files: Mapping[str, str]
) -> Iterator[Section]:
    """Yield the sections on Dice, HD95, both of them by lesion if measured, and the other metrics."""
    several = len(evaluations) > 1
    overview = "comparison" if several else "heatmap"

    def drawn(metric: str) -> Figure:
        return figures.comparison(evaluations, metric) if several else figures.heatmap(evaluations[0], metric)

    shown = {overview: ("", drawn("dice"))}
    for evaluation in evaluations:
        stem = f"boxplots_{files[evaluation.name]}" if several else "boxplots"
        shown[stem] = evaluation.name, figures.boxplots(evaluation)
    if figure := figures.robustness(evaluations):
        shown["robustness"] = "", figure
    known = {metric for evaluation in evaluations for metric in evaluation.results["metric"]}
    for metric in ("dice", "hd95", "lesion_dice", "lesion_hd95"):
        if metric in known:
            tables = {metric: subset_table(evaluations, metric, tests)}
            tables[f"{metric}_overall"] = comparison_table(evaluations, metric, tests)
            by_lesion = {f"{overview}_{metric}": ("", drawn(metric))} if metric == "lesion_dice" else {}
            yield Section(metric, tables=tables, figures=shown if metric == "dice" else by_lesion)
    if tables := {metric: subset_table(evaluations, metric) for metric in FURTHER_METRICS if metric in known}:
        yield Section("further", tables=tables, folded=True)


def attribution(evaluation: Evaluation, stem: str) -> Iterator[Section]:
    """Yield the section on Shapley values, if there are results of all subsets."""
    complete = len(evaluation.subsets) == 2 ** len(evaluation.modalities) - 1
    volumes = evaluation.results["metric"].eq("reference_volume").any()  # for the score of an empty prediction
    if complete and volumes and len(worth := shapley_summary(shapley_values(evaluation))):
        worth["text"] = [with_interval(*(100 * row)) for row in worth[["mean", "low", "high"]].to_numpy()]
        wide = worth.pivot(index="modality", columns="region", values="text")
        wide = wide.reindex(index=evaluation.modalities, columns=evaluation.regions).rename(index=display_name)
        table = frame_table("Shapley values in points of Dice (%)", wide.reset_index(), {})
        yield Section("worth", evaluation.name, {f"shapley_{stem}": table})


def reliability(evaluation: Evaluation, stem: str) -> Iterator[Section]:
    """Yield the sections on calibration errors and latents, as far as there are data."""
    if len(evaluation.bins):
        error = calibration_error(evaluation.bins).pivot(index="modalities", columns="region", values="ece")
        error = error.reindex(index=evaluation.subsets, columns=evaluation.regions).rename(index=display_subset)
        formats = dict.fromkeys(evaluation.regions, lambda value: f"{100 * value:.2f}")
        table = frame_table("Expected calibration error (%)", error.reset_index(names="subset"), formats)
        yield Section("ece", evaluation.name, {f"ece_{stem}": table})
    if figure := figures.embedding(evaluation.latents):
        yield Section("latents", evaluation.name, figures={f"latents_{stem}": ("", figure)})


def costs(evaluations: Sequence[Evaluation]) -> Iterator[Section]:
    """Yield the section on the cost of the methods, as far as it is known."""
    facts = pd.DataFrame([{"method": e.name, **e.facts} for e in evaluations])
    known = [key for key in COSTS if key in facts]
    if not known:
        return
    labels = {key: COSTS[key][0] for key in known}
    frame = (facts[known] * [COSTS[key][1] for key in known]).rename(columns=labels)
    frame.insert(0, "method", facts["method"])
    table = frame_table("Size and speed", frame, dict.fromkeys(labels.values(), "{:.4g}".format))
    yield Section("efficiency", tables={"efficiency": table})
