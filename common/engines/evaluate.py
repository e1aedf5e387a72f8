"""The last step of an evaluation: from the cases' results to tables, statistics and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from common.cohorts import get_cohort
from common.cohorts.splits import Parts
from common.engines.efficiency import network_facts
from common.engines.tracking import require_store
from common.evaluation.analysis.attribution import expected_gains
from common.evaluation.analysis.published import published as read_published
from common.evaluation.analysis.reliability import calibrate_intervals, check_coverage, volume_intervals
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import (
    BIN_COLUMNS,
    COLUMNS,
    NOTE,
    Evaluation,
    evaluation_files,
    write_evaluation,
    write_results,
)
from common.evaluation.metrics.store import CaseStore
from common.evaluation.report.paper_tables import published_table
from common.evaluation.report.report import parts_of_report, require_own_parts, write_report
from common.evaluation.report.slices import Slice
from common.io.atomic import written_whole
from common.io.settings import check_choice, optional
from common.modalities import subset_name, subset_names
from common.text import shortened
from common.transforms.decision import DECISIONS

CALIBRATED = ("intervals", "interval_cases", "advice")
"""Tables of an evaluation with calibration cases."""


def report_evaluation(
    store: CaseStore,
    cases: Sequence[Mapping[str, Any]],
    calibration_cases: Sequence[Mapping[str, Any]],
    method: str,
    cohort: str,
    conventions: Mapping[str, Any],
    network: nn.Module,
    window: Sequence[int],
    spacing: Sequence[float],
    weights: str,
    coverage: float,
    published: Sequence[str] | None,
    output_dir: str,
    decision: str,
    precision: str,
    data: Parts | None = None,
    part: str | None = None,
    split: str | None = None,
    panel_cases: str | Sequence[str] | None = None,
    panel_subsets: str | Sequence[str] | None = None,
) -> None:
    """Write the results of all cases and the report on them, and print the table of Dice.

    The results of each other decision are written too, into a subfolder of ``output_dir`` with its name. All files are
    written or, after an error, none.

    Args:
        store: store with the results of all cases.
        cases: datalist items of the cases in the tables.
        calibration_cases: datalist items that intervals and advice are calibrated on; may be empty.
        method: name of the method in tables and figures.
        network: network whose size is reported.
        window: size of the inference window in voxels.
        weights: SHA-256 of the weights' file.
        coverage: level of the volume intervals, e.g. 0.9.
        published: paper, table and dataset of a published table (see `sources`) to show beside ours, or None.
        decision: the decision whose results the report shows, one of `DECISIONS`.
        precision: that in which the network computed, e.g. bfloat16, to record.
        data: the whole split, to record which cases were not tested; None if it is not known.
        part: name of the part of the split, for captions; None if it is not known.
        split: name of the split, for captions; None if it has none.
        panel_cases: cases to draw, as a list or separated by commas; None: the best, the median and the worst one.
        panel_subsets: subsets to draw, such as ``flair,t1c+flair``; None: each modality alone and all together.
    """
    if not cases:
        raise ValueError("No case to evaluate: the part of the split is empty; choose another one (key `part`).")
    definition, tested = get_cohort(cohort), {item["case"] for item in cases}
    named = {key: value for key, value in (("part", part), ("split", split)) if value is not None}
    results = [store.read(item["case"], planes=False) for item in cases]
    calibration = [store.read(item["case"], planes=False) for item in calibration_cases]
    shared = Evaluation(
        name=method,
        cohort=cohort,
        modalities=definition.modalities,
        regions=tuple(definition.labels.regions),
        conventions=Conventions(**conventions),
        results=pd.DataFrame(columns=COLUMNS),
        bins=_joined([case.bins for case in results], BIN_COLUMNS, definition.modalities),
        latents=_latents(results),
        facts={
            **network_facts(network, len(definition.modalities), window),
            **_cost(results),
            **window_facts(window, spacing),
            "precision": precision,
            "coverage": coverage,
            "weights": weights,
            **named,
        },
        other_cases=tuple(sorted({item["case"] for part in (data or {}).values() for item in part} - tested)),
        sources={item["case"]: item["source"] for item in cases if item.get("source")},
    )
    require_own_parts(output_dir)
    with written_whole(output_dir, _earlier(output_dir), last=NOTE) as made:
        for other in [name for name in DECISIONS if name != decision] + [decision]:
            tables = {
                key: _joined([case.decided(other) for case in those], COLUMNS, definition.modalities)
                for key, those in (("results", results), ("calibration", calibration))
            }
            evaluation = replace(shared, **tables, facts={**shared.facts, "decision": other})
            folder = made if other == decision else made / other
            _write_calibrated(evaluation, coverage, folder)
            write_evaluation(evaluation, folder)
        beside = {} if published is None else published_table(published, [evaluation])
        panels = {method: list(_shown(evaluation, store, _names(panel_cases), _names(panel_subsets)))}
        write_report([evaluation], made, coverage, beside, panels=panels, labels=definition.labels)
    for stem in ("dice", *beside):
        print(f"\n{Path(output_dir, 'tables', f'{stem}.md').read_text()}", flush=True)
    print(Path(output_dir, "report.html"), flush=True)


def window_facts(window: Sequence[int], spacing: Sequence[float]) -> dict[str, str]:
    """Return the facts ``window`` (voxels) and ``spacing`` (mm) of an evaluation, as text such as ``48x64x48``."""
    return {"window": "x".join(map(str, window)), "spacing": "x".join(f"{size:g}" for size in spacing)}


def check_settings(
    method: str,
    coverage: float,
    published: Sequence[str] | None,
    conventions: Mapping[str, Any],
    decision: str,
    tracking: str | None = None,
) -> None:
    """Refuse settings that would fail only at the end of a long training or evaluation; see `report_evaluation`.

    ``method`` has to be text, which a name with a comma on a command line is not. ``tracking`` is None if nothing is
    tracked yet; see `require_store`.
    """
    if not isinstance(method, str):
        raise ValueError(f"method {method!r}: expected text; on a command line put it into two pairs of quotes.")
    check_coverage(coverage)
    check_choice("decision", decision, DECISIONS)
    if published is not None:
        if not isinstance(published, (list, tuple)) or len(published) != 3:
            raise ValueError(f"published {published!r}: expected paper, table and dataset, or null.")
        read_published(*published)
    known = [field.name for field in fields(Conventions)]
    if unknown := [key for key in conventions if key not in known]:
        raise ValueError(f"conventions: {unknown[0]!r} is not one of {', '.join(known)}.")
    Conventions(**conventions)
    if tracking is not None:
        require_store(tracking)


def check_panels(
    panel_cases: str | Sequence[str] | None,
    panel_subsets: str | Sequence[str] | None,
    cases: Sequence[Mapping[str, Any]],
    subsets: Sequence[Sequence[str]],
) -> None:
    """Refuse to draw cases or subsets that are not evaluated; see `report_evaluation`."""
    there = {
        "panel_cases": (_names(panel_cases), [item["case"] for item in cases]),
        "panel_subsets": (_names(panel_subsets), list(map(subset_name, subsets))),
    }
    for key, (names, known) in there.items():
        if unknown := [name for name in names or () if name not in known]:
            raise ValueError(f"{key}: {unknown[0]!r} is not evaluated; expected some of {shortened(known, 15)}.")


def _names(chosen: str | Sequence[str] | None) -> list[str] | None:
    """Return a list of names, or names separated by commas, as a list; None for None."""
    chosen = optional(chosen)
    return chosen if chosen is None else [*map(str, chosen.split(",") if isinstance(chosen, str) else chosen)]


def _write_calibrated(evaluation: Evaluation, coverage: float, folder: Path) -> None:
    """Write intervals and advice from the calibration cases, and each case's intervals, as far as there are any."""
    tables = {"advice": expected_gains(evaluation.calibration, evaluation.modalities)}
    if len(evaluation.calibration):
        tables["intervals"] = calibrate_intervals(evaluation.calibration, coverage, evaluation.facts["decision"])
        tables["interval_cases"] = volume_intervals(tables["intervals"], evaluation.results)
    for name in CALIBRATED:
        if len(tables.get(name, ())):
            write_results(tables[name], folder / f"{name}.csv")


def _earlier(output_dir: str) -> list[Path]:
    """Return the files of an earlier evaluation and its report, also those under other decisions."""
    others = [Path(output_dir, decision) for decision in DECISIONS]
    folders = [Path(output_dir), *(folder for folder in others if (folder / NOTE).is_file())]
    tables = [folder / f"{name}.csv" for folder in folders for name in CALIBRATED]
    return [*parts_of_report(output_dir), *tables, *(path for folder in folders for path in evaluation_files(folder))]


def _cost(results: Sequence[CaseResult]) -> dict[str, float]:
    """Return the median time and the peak memory over the cases, as far as known."""
    seconds = pd.Series([case.seconds for case in results]).median()
    memory = pd.Series([case.memory_mb for case in results]).max()
    cost = {"seconds": round(seconds, 4), "memory_mb": round(memory, 1)}
    return {key: value for key, value in cost.items() if pd.notna(value)}


def _shown(
    evaluation: Evaluation, store: CaseStore, cases: Sequence[str] | None, subsets: Sequence[str] | None
) -> Iterator[Slice]:
    """Yield slices of the chosen cases, or else of the best, the median and the worst one by mean Dice.

    They are drawn for the chosen subsets, or else for each single modality and for all; if the sweep has none of these,
    for its first five. With few cases, one case may be several of best, median and worst.
    """
    names = [*evaluation.modalities, subset_name(evaluation.modalities)]
    dice = evaluation.values("dice").dropna(how="all")
    shown = subsets or [name for name in names if name in evaluation.subsets] or evaluation.subsets[:5]
    ranked = list(dice.groupby("case").mean().mean(axis=1).sort_values(ascending=False, kind="stable").index)
    # With few cases the later entries take precedence.
    places = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best" if len(ranked) > 1 else "only"}
    words = {case: places[place] for place, case in enumerate(ranked) if place in places}
    for case, word in words.items() if cases is None else [(case, "chosen") for case in cases]:
        planes = store.read(case).planes
        for subset in shown:
            if (subset, case) in dice.index:
                yield Slice(
                    title=f"{word} case: {case}",
                    subset=subset,
                    images=planes["image"].astype(np.float32),
                    reference=planes["reference"],
                    prediction=planes[f"{evaluation.facts['decision']}/{subset}"],
                    dice=tuple(dice.loc[(subset, case)]),
                    spacing=tuple(planes["spacing"]),
                )


def _latents(results: Sequence[CaseResult]) -> pd.DataFrame:
    """Return a table with a row per case and modality and the features in columns f0, f1, ..."""
    return pd.DataFrame(
        {"case": result.case, "modality": modality, **{f"f{i}": value for i, value in enumerate(features)}}
        for result in results
        for modality, features in result.latents.items()
    )


def _joined(frames: Sequence[pd.DataFrame], columns: Sequence[str], modalities: Sequence[str]) -> pd.DataFrame:
    """Concatenate the rows of cases; within a case, subsets are sorted by their number of modalities."""
    place = subset_names(modalities).index
    parts = [frame.sort_values("modalities", key=lambda names: names.map(place), kind="stable") for frame in frames]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
