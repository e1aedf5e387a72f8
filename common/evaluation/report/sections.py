"""The sections of a report: their tables, figures and explanations."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.evaluation.analysis.attribution import (
    advice_quality,
    advice_table,
    best_subsets,
    shapley_summary,
    shapley_values,
)
from common.evaluation.analysis.reliability import calibration_error, coverage_table, fewest_cases
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report import figures
from common.evaluation.report.layout import Cell, Column, Table, counted, decimal, with_interval
from common.evaluation.report.slices import Slice, slice_panels
from common.evaluation.report.style import rendered
from common.evaluation.report.tables import (
    comparison_table,
    missing_table,
    source_table,
    statistics_table,
    subset_table,
)
from common.modalities import LabelSet, display_name, display_subset

FURTHER_METRICS = ("surface_dice", "assd", "hd", "sensitivity", "precision", "volume")
"""Metrics of the section that is folded by default."""
ENTROPY_METRICS = ("entropy", "divergence")
"""Metrics of probabilities, which label maps and older results lack."""
COSTS = figures.FACTS | {"substitute_values": ("substitute image (million values)", 1e-6)}
"""Facts in the table of `efficiency`: key of an evaluation's facts -> label, factor."""


@dataclass
class Section:
    """A part of the report: heading, paragraphs, tables and captions of figures by file stem."""

    title: str
    text: list[str] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    folded: bool = False
    """Whether tables are shown only on demand."""


class Drawer:
    """Collect figures, to be written when the whole report has been computed; captions end with ``data``."""

    def __init__(self, data: str = "") -> None:
        self.figures: dict[str, Figure] = {}
        self.data = data

    def __call__(self, stem: str, figure: Figure | None, caption: str) -> dict[str, str]:
        """Add a figure and return its entry for a section; the entry is empty if there is no figure."""
        if figure is None:
            return {}
        self.figures[stem] = figure
        return {stem: f"{caption} {self.data}".rstrip()}

    def rendered(self) -> dict[str, dict[str, bytes]]:
        """Return file stem -> the content of the figure's files by suffix."""
        return {stem: rendered(figure) for stem, figure in self.figures.items()}


def stems(names: Iterable[str]) -> dict[str, str]:
    """Return unique names of the methods for files: lower-case letters, digits and underscores."""
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "method"
        numbered = chain([stem], (f"{stem}_{number}" for number in count(2)))
        found[name] = next(free for free in numbered if free not in found.values())
    return found


def accuracy(
    evaluations: Sequence[Evaluation], tests: pd.DataFrame | None, stems: Mapping[str, str], draw: Drawer
) -> Iterator[Section]:
    """Yield the sections on Dice, HD95 and the other metrics."""
    several, dice = len(evaluations) > 1, Section("Dice")
    name, figure = (
        ("comparison", figures.comparison(evaluations)) if several else ("heatmap", figures.heatmap(*evaluations))
    )
    interval = ", with 95 % bootstrap intervals over cases" if several else ""
    dice.figures |= draw(name, figure, f"Mean Dice of every subset{interval}.")
    for evaluation in evaluations:
        caption = f"{evaluation.name}: Dice of each case. Boxes show quartiles and median, diamonds the mean."
        stem = f"boxplots_{stems[evaluation.name]}" if several else "boxplots"
        dice.figures |= draw(stem, figures.boxplots(evaluation), caption)
    caption = "Mean Dice against the number of modalities present, with 95 % bootstrap intervals over cases."
    dice.figures |= draw("robustness", figures.robustness(evaluations), caption)
    dice.tables = _tables(evaluations, "dice", tests)
    yield dice
    known = {metric for evaluation in evaluations for metric in evaluation.results["metric"]}
    if "hd95" in known:
        yield Section("HD95", tables=_tables(evaluations, "hd95", tests))
    tables = {metric: subset_table(evaluations, metric) for metric in FURTHER_METRICS if metric in known}
    if tables:
        yield Section("Further metrics", tables=tables, folded=True)


def _tables(evaluations: Sequence[Evaluation], metric: str, tests: pd.DataFrame | None) -> dict[str, Table]:
    tables = {
        metric: subset_table(evaluations, metric, tests),
        f"{metric}_missing": missing_table(evaluations, metric),
        f"{metric}_overall": comparison_table(evaluations, metric, tests),
    }
    if all(len(set(evaluation.sources.values())) > 1 for evaluation in evaluations):
        tables[f"{metric}_sources"] = source_table(evaluations, metric)
    return tables


def statistics(tests: pd.DataFrame) -> Iterator[Section]:
    """Yield the section on paired tests, with one table per metric."""
    per_metric = {
        f"tests_{metric}": replace(statistics_table(part), title=f"Paired tests of {METRICS[metric].label}")
        for metric, part in tests.groupby("metric", sort=False)
    }
    yield Section("Paired tests", tables=per_metric, folded=True)


def attribution(evaluation: Evaluation, stem: str, draw: Drawer) -> Iterator[Section]:
    """Yield the sections on Shapley values and best subsets, and on advice, as far as there are results for them."""
    section = Section(f"What each modality is worth: {evaluation.name}")
    complete = len(evaluation.subsets) == 2 ** len(evaluation.modalities) - 1
    volumes = evaluation.results["metric"].eq("reference_volume").any()  # for the score of an empty prediction
    if complete and volumes and len(worth := shapley_summary(shapley_values(evaluation))):
        section.text.append(
            "The Shapley value of a modality is the Dice that it adds, averaged over all orders in which the "
            "modalities can be acquired. The values of all modalities sum to the Dice with all of them minus the Dice "
            "with none. Without any modality nothing is predicted: the Dice is 0 if the reference has the region, and "
            "otherwise follows the convention for empty regions."
        )
        caption = "Shapley value of each modality, with 95 % bootstrap intervals over cases."
        section.figures |= draw(f"shapley_{stem}", figures.shapley(worth), caption)
        section.tables[f"shapley_{stem}"] = _shapley_table(worth, evaluation)
    if len(best := best_subsets(evaluation)):
        section.tables[f"best_{stem}"] = _best_table(best)
    if section.tables:
        yield section
    if len(gains := advice_table(evaluation)):
        yield _advice(evaluation, gains, stem)


def _shapley_table(worth: pd.DataFrame, evaluation: Evaluation) -> Table:
    worth = worth.assign(text=[with_interval(*(100 * row)) for row in worth[["mean", "low", "high"]].to_numpy()])
    wide = worth.pivot(index="modality", columns="region", values="text")
    wide = wide.reindex(index=evaluation.modalities, columns=evaluation.regions).reset_index(names="modality")
    wide["modality"] = wide["modality"].map(display_name)
    return _table(
        f"Shapley values in points of Dice (%), mean{_bracketed(worth)}, {counted(*worth['n'], noun='case')}", wide, {}
    )


def _bracketed(table: pd.DataFrame) -> str:
    """Return what brackets hold, if there are any; a single case has no interval."""
    return " [95 % CI]" if table["low"].notna().any() else ""


def _best_table(best: pd.DataFrame) -> Table:
    shown = best.assign(
        modalities=best["modalities"].map(display_subset),
        gain=[with_interval(*(100 * row)) for row in best[["gain", "low", "high"]].to_numpy()],
    ).drop(columns=["low", "high"])
    notes = [
        "The subset with the highest mean Dice, and its gain over using all modalities, paired by case. Only cases "
        "that have a Dice for every subset are included."
    ]
    if (best["chosen_on"] == "calibration").any():
        notes.append(
            "Chosen on calibration: the subset was chosen on the calibration cases; the numbers are those of the "
            "evaluated ones."
        )
    if (best["chosen_on"] == "evaluated").any():
        notes.append(
            "Chosen on evaluated: without calibration cases, the subset was chosen on the same cases on which it is "
            "measured. This is optimistic: its gain cannot be negative."
        )
    labels = {
        "modalities": "best subset",
        "best": "its Dice",
        "all": "all modalities",
        "gain": f"gain{_bracketed(best)}",
    }
    labels |= {"n": "cases", "chosen_on": "chosen on"}
    formats = {"best": _percent, "all": _percent}
    return _table("Which subset is best, mean Dice (%)", shown, formats, notes, headings=2, labels=labels)


def _advice(evaluation: Evaluation, gains: pd.DataFrame, stem: str) -> Section:
    gains = gains.assign(
        modalities=gains["modalities"].map(display_subset), modality=gains["modality"].map(display_name)
    )
    points = dict.fromkeys((*evaluation.regions, "mean"), _percent)
    labels = {"modalities": "present", "modality": "added"}
    section = Section(f"Which missing sequence to acquire: {evaluation.name}", folded=True)
    section.text.append(
        "The expected gain of adding a sequence is the mean over "
        f"{counted(evaluation.calibration['case'].nunique(), noun='calibration case')}. It can be different in a "
        "single patient."
    )
    title = "Expected gain in points of Dice (%)"
    section.tables[f"advice_{stem}"] = _table(title, gains, points, headings=2, labels=labels)
    quality = advice_quality(evaluation)
    if quality.empty:  # with two modalities, at most one is missing, so there is nothing to choose
        return section
    note = (
        "first_choice: how often the sequence that is advised first is the best one. concordance: proportion of "
        "pairs of sequences that are ranked correctly (0.5 by chance). regret: Dice (0 to 1) lost compared with "
        "the best choice. average: advice by the mean gain over the calibration cases. chance: a random choice."
    )
    title = "How well the advice ranks the missing sequences of the evaluated cases"
    formats = dict.fromkeys(("mean", "low", "high"), _three)
    section.tables[f"ranking_{stem}"] = _table(title, quality, formats, [note], headings=2)
    return section


def entropy(evaluations: Sequence[Evaluation]) -> Iterator[Section]:
    """Yield the section on the entropy of predictions, for methods that have probabilities."""
    known = {m: [e for e in evaluations if e.values(m).notna().any(axis=None)] for m in ENTROPY_METRICS}
    tables = {metric: subset_table(those, metric) for metric, those in known.items() if those}
    if tables:
        section = Section("Entropy of the predictions", tables=tables, folded=True)
        section.text.append(
            "Entropy of each region's probability, and the Kullback-Leibler divergence KL(all modalities of the case "
            "|| subset), both averaged over the brain (the same voxels for every subset); 1 mnat is 0.001 nats. "
            "According to Theorem 1 of MAG-MS, the entropy of a subset's prediction is at most that of the prediction "
            "from all modalities plus the divergence, which self-distillation reduces. The bound assumes that "
            "predictions from all modalities are more probable, and refers to the softmax, whereas the numbers here "
            "are computed for each region. A low entropy does not mean that a prediction is correct."
        )
        yield section


def reliability(evaluation: Evaluation, coverage: float, stem: str, draw: Drawer) -> Iterator[Section]:
    """Yield the sections on calibration errors, volume intervals and latents, as far as there are data."""
    if len(evaluation.bins):
        section = Section(f"Reliability of the probabilities: {evaluation.name}")
        section.text.append(
            "Expected calibration error (ECE) of each region's probability, over the voxels of all cases in which any "
            "modality of the subset is not 0. Values can only be compared where these voxels are the same: between "
            "methods, and between subsets whose modalities show the same part of the brain."
        )
        caption = "Observed frequency against predicted probability, by number of modalities present."
        section.figures |= draw(f"reliability_{stem}", figures.reliability(evaluation), caption)
        error = calibration_error(evaluation.bins).pivot(index="modalities", columns="region", values="ece")
        error = error.reindex(index=evaluation.subsets, columns=evaluation.regions).reset_index(names="modalities")
        error["modalities"] = error["modalities"].map(display_subset)
        formats = dict.fromkeys(evaluation.regions, lambda value: f"{100 * value:.2f}")
        section.tables[f"ece_{stem}"] = _table("Expected calibration error (%)", error, formats)
        yield section
    if len(evaluation.calibration):
        yield _volumes(evaluation, coverage, stem)
    if len(evaluation.latents):
        section = Section(f"Latents of single modalities: {evaluation.name}")
        caption = "t-SNE of the latent features of each case, segmented from each modality alone."
        section.figures |= draw(f"latents_{stem}", figures.embedding(evaluation.latents), caption)
        if section.figures:
            gap = figures.modality_gap(evaluation.latents)
            section.text.append(
                "The distance between modalities for the network: the mean distance between the centres of two "
                f"modalities is {gap:.2f} times the mean distance of a latent from the centre of its own modality."
            )
            yield section


def _volumes(evaluation: Evaluation, coverage: float, stem: str) -> Section:
    table = coverage_table(evaluation, coverage)
    section = Section(f"Intervals of the volume: {evaluation.name}", folded=True)
    section.text.append(
        f"Split-conformal intervals that should contain the true volume in {100 * coverage:g} % of cases, calibrated "
        f"on {counted(evaluation.calibration['case'].nunique(), noun='case')} for each subset and region. The table "
        "gives the coverage on the evaluated cases. An infinite width means that there are too few calibration cases "
        "for this level; such intervals are left out of the row for all subsets. The intervals of each case are in "
        "interval_cases.csv, beside the evaluation's results.csv."
    )
    if not np.isfinite(table["quantile"]).any():
        section.text.append(
            f"No interval is finite, because this level requires at least {fewest_cases(coverage)} calibration cases."
        )
    table["modalities"] = table["modalities"].map(lambda name: name if name == "all" else display_subset(name))
    labels = {"modalities": "subset", "n": "calibration cases", "covered": "covered (%)", "width": "median width (ml)"}
    formats = {"n": "{:.0f}".format, "quantile": _three, "covered": _percent, "width": "{:.1f}".format}
    section.tables[f"volumes_{stem}"] = _table("Coverage of the intervals", table, formats, headings=2, labels=labels)
    return section


def efficiency(evaluations: Sequence[Evaluation], draw: Drawer) -> Iterator[Section]:
    """Yield the section on the cost of the methods, as far as it is known."""
    facts = pd.DataFrame([{"method": e.name, **e.facts} for e in evaluations])
    known = [key for key in COSTS if key in facts]
    if not known:
        return
    section = Section("Size and speed")
    if len(evaluations) > 1:
        caption = (
            "Mean Dice over subsets and regions against computational cost. A point that would cover another one is "
            "drawn to its right, with a line from its true place."
        )
        section.figures |= draw("efficiency", figures.efficiency(evaluations), caption)
    formats = {key: lambda value, key=key: f"{COSTS[key][1] * value:.4g}" for key in known}
    labels = {key: COSTS[key][0] for key in known}
    notes = [
        "GFLOPs: for one window with all modalities; a multiplication and an addition count as two. Memory: peak of "
        "the evaluation. Time: per subset of one case, from image to logits, on the machine of the evaluation; "
        "networks that encode each sequence on its own do so once for all subsets."
    ]
    if "substitute_values" in known:
        notes.append(
            "Substitute image: the image that M3AE learns in place of missing modalities (x_sub). It has the size of "
            "the cohort's images and is not counted among the parameters."
        )
    section.tables["efficiency"] = _table("Size and speed", facts[["method", *known]], formats, notes, labels=labels)
    yield section


def panels(
    slices: Mapping[str, Sequence[Slice]],
    labels: LabelSet | None,
    modalities: Sequence[str],
    stems: Mapping[str, str],
    draw: Drawer,
) -> Iterator[Section]:
    """Yield the section with the slices of each method that has some."""
    for method, chosen in slices.items():
        if not chosen:
            continue
        kinds = list(dict.fromkeys(row.title.partition(" case:")[0] for row in chosen))
        shown = " and ".join(", ".join(kinds).rsplit(", ", 1)) + " case" + (" by mean Dice" if len(kinds) > 1 else "")
        caption = f"The {shown}, in the axial plane through the tumour's centre: outlines of the reference and of the "
        caption += "prediction from each subset, on the last sequence of the subset; Dice (%) of the whole case."
        drawn = draw(f"panels_{stems[method]}", slice_panels(chosen, labels, modalities), caption)
        yield Section(f"Cases: {method}", figures=drawn)


def _table(
    title: str,
    frame: pd.DataFrame,
    formats: Mapping[str, Callable[[float], str]],
    notes: Sequence[str] = (),
    headings: int = 1,
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Return a data frame as a table; columns without a format are printed by `str`, NaN as an empty cell."""
    columns = [
        Column((labels or {}).get(name, name), align="l" if i < headings else "r") for i, name in enumerate(frame)
    ]
    texts = {name: ["" if pd.isna(value) else formats.get(name, str)(value) for value in frame[name]] for name in frame}
    rows = [[Cell(text) for text in row] for row in zip(*texts.values(), strict=True)]
    return Table(title, columns, rows, notes, headings=headings)


def _percent(value: float) -> str:
    return decimal(100 * value)


def _three(value: float) -> str:
    return f"{value:.3f}"
