"""The sections of a report: which tables and figures there are, and what is said about them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from common.evaluation import attribution as worth_of
from common.evaluation import figures
from common.evaluation import reliability as reliable
from common.evaluation.results import Evaluation
from common.evaluation.tables import (
    Cell,
    Column,
    Table,
    comparison_table,
    missing_table,
    statistics_table,
    subset_table,
)
from common.modalities import LabelSet, display_name

FURTHER = ("surface_dice", "assd", "hd", "sensitivity", "precision", "volume")
"""Metrics of the section that is folded away."""


@dataclass
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        text: paragraphs.
        tables: file stem -> table.
        figures: file stem -> what it shows.
        folded: tables are shown on demand.
    """

    title: str
    text: list[str] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    folded: bool = False


class Drawer:
    """Keeps figures, to be written when all of a report has been made."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}

    def __call__(self, stem: str, figure: Figure | None, caption: str) -> dict[str, str]:
        """Return the entry of the figure for a section; none if there is nothing to draw."""
        if figure is None:
            return {}
        self.figures[stem] = figure
        return {stem: caption}

    def save(self, folder: Path) -> dict[str, str]:
        """Write the figures; return file stem -> PNG in base 64."""
        for stem, figure in self.figures.items():
            figures.save(figure, folder / stem)
        return {stem: base64.b64encode((folder / f"{stem}.png").read_bytes()).decode() for stem in self.figures}


def stems(names: Iterable[str]) -> dict[str, str]:
    """Return what each method is called in file names: lower-case letters, digits and underscores, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "method"
        numbered = chain([stem], (f"{stem}_{number}" for number in count(2)))
        found[name] = next(free for free in numbered if free not in found.values())
    return found


def accuracy(
    evaluations: Sequence[Evaluation],
    tests: pd.DataFrame | None,
    published: pd.DataFrame | None,
    stems: Mapping[str, str],
    draw: Drawer,
) -> Iterator[Section]:
    """Yield the tables and figures of Dice, of HD95 and of the other metrics."""
    several = len(evaluations) > 1
    dice = Section("Dice")
    if several:
        caption = "Mean Dice of every subset, and the methods' means."
        dice.figures |= draw("comparison", figures.comparison(evaluations), caption)
    else:
        dice.figures |= draw("heatmap", figures.heatmap(evaluations[0]), "Mean Dice over cases of every subset.")
    for evaluation in evaluations:
        caption = f"{evaluation.name}: Dice of every case; box: quartiles and median."
        dice.figures |= draw(_stem("boxplots", evaluation, several), figures.boxplots(evaluation), caption)
    caption = "Mean Dice against the number of modalities present, with 95 % bootstrap intervals over cases."
    dice.figures |= draw("robustness", figures.robustness(evaluations), caption)
    dice.tables["dice"] = subset_table(evaluations, "dice", tests, published)
    dice.tables["dice_missing"] = missing_table(evaluations, "dice", published)
    dice.tables["dice_overall"] = comparison_table(evaluations, "dice", tests)
    yield dice
    distance = Section("HD95")
    distance.tables["hd95"] = subset_table(evaluations, "hd95", tests, published)
    distance.tables["hd95_missing"] = missing_table(evaluations, "hd95", published)
    distance.tables["hd95_overall"] = comparison_table(evaluations, "hd95", tests)
    yield distance
    tables = {metric: subset_table(evaluations, metric) for metric in FURTHER}
    yield Section("Further metrics", tables=tables, folded=True)


def statistics(tests: pd.DataFrame) -> Iterator[Section]:
    """Yield the paired tests, a table per metric."""
    per_metric = {f"tests_{metric}": statistics_table(part) for metric, part in tests.groupby("metric", sort=False)}
    yield Section("Paired tests", tables=per_metric, folded=True)


def attribution(evaluation: Evaluation, draw: Drawer) -> Iterator[Section]:
    """Yield Shapley values and acquisition advice, if there are results for all subsets."""
    if len(evaluation.subsets) < 2 ** len(evaluation.modalities) - 1:
        return
    worth = worth_of.shapley_summary(worth_of.shapley_values(evaluation))
    if worth.empty:
        return
    section = Section(f"What each modality is worth: {evaluation.name}")
    section.text.append(
        "Shapley value: the Dice that a modality adds, averaged over all orders in which they can be acquired. The "
        "values of all modalities sum to the Dice with all of them minus that with none. With none nothing is "
        "predicted: Dice 0 where the reference has the region, else by the convention for empty regions."
    )
    caption = "Shapley value of each modality, with 95 % bootstrap intervals over cases."
    section.figures |= draw(f"shapley_{_slug(evaluation.name)}", figures.shapley(worth), caption)
    section.tables[f"shapley_{_slug(evaluation.name)}"] = _shapley_table(worth, evaluation)
    yield section
    if len(evaluation.calibration):
        yield _advice(evaluation)


def _shapley_table(worth: pd.DataFrame, evaluation: Evaluation) -> Table:
    worth = worth.assign(
        text=[f"{100 * m:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for m, a, b in worth[["mean", "low", "high"]].to_numpy()]
    )
    wide = worth.pivot(index="modality", columns="region", values="text")
    wide = wide.loc[list(evaluation.modalities), list(evaluation.regions)].reset_index()
    wide["modality"] = wide["modality"].map(display_name)
    n = worth["n"].max()
    return _table(f"Shapley values, points of Dice (%), mean [95 % CI], {n} cases", wide, {})


def _advice(evaluation: Evaluation) -> Section:
    gains = worth_of.advice_table(evaluation)
    gains["modalities"] = gains["modalities"].map(_subset)
    gains["modality"] = gains["modality"].map(display_name)
    quality = worth_of.advice_quality(evaluation)
    section = Section(f"Which missing sequence to acquire: {evaluation.name}")
    section.text.append(
        f"Expected gain of adding a sequence, from {evaluation.calibration['case'].nunique()} calibration cases. The "
        "advice for a case looks at its subset and the Dice that the network itself expects, never at its reference."
    )
    slug = _slug(evaluation.name)
    points = {column: _percent for column in (*evaluation.regions, "mean")}
    section.tables[f"advice_{slug}"] = _table(
        "Expected gain, points of Dice (%)",
        gains,
        points,
        headings=2,
        labels={"modalities": "present", "modality": "added"},
    )
    section.tables[f"advice_quality_{slug}"] = _table(
        "How well the advice ranks the missing sequences of the evaluated cases",
        quality,
        {"mean": _three, "low": _three, "high": _three},
        notes=(
            "first_choice: how often the sequence advised first is the best one. concordance: share of pairs of "
            "sequences ordered alike, 0.5 by chance. regret: Dice (a fraction) lost against the best choice. average: "
            "mean gain over the calibration cases; adjusted: corrected by the case's expected Dice; chance: random.",
        ),
        headings=2,
    )
    section.folded = True
    return section


def reliability(evaluation: Evaluation, coverage: float, draw: Drawer) -> Iterator[Section]:
    """Yield calibration errors, volume intervals and latents, as far as there are data."""
    slug = _slug(evaluation.name)
    if len(evaluation.bins):
        section = Section(f"Reliability of the probabilities: {evaluation.name}")
        section.text.append(
            "Expected calibration error (ECE) of each region's probability, over the voxels of the brain of all cases."
        )
        caption = "Observed frequency against predicted probability, by number of modalities present."
        section.figures |= draw(f"reliability_{slug}", figures.reliability(evaluation), caption)
        error = reliable.calibration_error(evaluation.bins).pivot(index="modalities", columns="region", values="ece")
        error = error.loc[evaluation.subsets, list(evaluation.regions)].reset_index()
        error["modalities"] = error["modalities"].map(_subset)
        formats = {region: lambda value: f"{100 * value:.2f}" for region in evaluation.regions}
        section.tables[f"ece_{slug}"] = _table("Expected calibration error (%)", error, formats)
        yield section
    if len(evaluation.calibration):
        yield _volumes(evaluation, coverage, slug)
    if len(evaluation.latents):
        section = Section(f"Latents of single modalities: {evaluation.name}")
        caption = "t-SNE of the latent features of each case, segmented from each modality alone."
        section.figures |= draw(f"latents_{slug}", figures.embedding(evaluation.latents), caption)
        if section.figures:
            yield section


def _volumes(evaluation: Evaluation, coverage: float, slug: str) -> Section:
    table = reliable.coverage_table(evaluation, coverage)
    count = evaluation.calibration["case"].nunique()
    section = Section(f"Intervals of the volume: {evaluation.name}", folded=True)
    section.text.append(
        f"Split-conformal intervals that should hold the true volume in {100 * coverage:g} % of cases, calibrated on "
        f"{count} cases for each subset and region. The coverage seen on the evaluated cases is in the table; an "
        "infinite width means that there are too few calibration cases for this level."
    )
    table["modalities"] = table["modalities"].map(lambda name: name if name == "all" else _subset(name))
    labels = {"modalities": "subset", "n": "calibration cases", "covered": "covered (%)", "width": "median width (ml)"}
    formats = {"n": _count, "quantile": _three, "covered": _percent, "width": lambda value: f"{value:.1f}"}
    section.tables[f"volumes_{slug}"] = _table("Coverage of the intervals", table, formats, headings=2, labels=labels)
    return section


def efficiency(evaluations: Sequence[Evaluation], draw: Drawer) -> Iterator[Section]:
    """Yield what the methods cost, as far as it is known."""
    facts = pd.DataFrame([{"method": e.name, **e.facts} for e in evaluations])
    known = [key for key in figures.FACTS if key in facts]
    if not known:
        return
    section = Section("Size and speed")
    if len(evaluations) > 1:
        caption = "Mean Dice over subsets and regions against what it costs."
        section.figures |= draw("efficiency", figures.efficiency(evaluations), caption)
    formats = {key: lambda value, key=key: f"{figures.FACTS[key][1] * value:.4g}" for key in known}
    labels = {key: figures.FACTS[key][0] for key in known}
    notes = (
        "GFLOPs: of one window with all modalities, a multiplication and an addition count as two. Memory: the most "
        "that the evaluation has used. Time: of one subset of one case, from image to logits, where it was run.",
    )
    section.tables["efficiency"] = _table("Size and speed", facts[["method", *known]], formats, notes, labels=labels)
    yield section


def panels(
    slices: Mapping[str, Sequence[figures.Slice]], labels: LabelSet | None, modalities: Sequence[str], draw: Drawer
) -> Iterator[Section]:
    """Yield each method's slices."""
    for method, chosen in slices.items():
        caption = "The best and the worst case by mean Dice, in the axial plane through the tumour's centre."
        drawn = draw(f"panels_{_slug(method)}", figures.panels(chosen, labels, modalities), caption)
        yield Section(f"Cases: {method}", figures=drawn)


def _table(
    title: str,
    frame: pd.DataFrame,
    formats: Mapping[str, Callable[[float], str]],
    notes: Sequence[str] = (),
    headings: int = 1,
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Return a data frame as a table; columns without a format are printed as they are."""
    columns = [
        Column((labels or {}).get(name, name), align="l" if i < headings else "r") for i, name in enumerate(frame)
    ]
    texts = {name: [formats.get(name, str)(value) for value in frame[name]] for name in frame}
    rows = [[Cell(text) for text in row] for row in zip(*texts.values(), strict=True)]
    return Table(title, columns, rows, notes, headings=headings)


def _subset(name: str) -> str:
    return " + ".join(map(display_name, name.split("+")))


def _stem(stem: str, evaluation: Evaluation, several: bool) -> str:
    return f"{stem}_{_slug(evaluation.name)}" if several else stem


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _count(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0f}"
