"""The last step of an evaluation: from the cases' results to tables, statistics and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from common.cohorts import get_cohort
from common.cohorts.splits import Parts
from common.engines.efficiency import network_facts
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import (
    BIN_COLUMNS,
    COLUMNS,
    NOTE,
    Evaluation,
    evaluation_files,
    write_evaluation,
)
from common.evaluation.metrics.store import CaseStore
from common.evaluation.report.last_screen import last_screen
from common.evaluation.report.report import parts_of_report, require_own_parts, write_report
from common.evaluation.report.slices import Slice
from common.io.atomic import written_whole
from common.io.settings import check_choice
from common.modalities import subset_name, subset_names
from common.text import shortened
from common.transforms.decision import DECISIONS


@dataclass
class Report:
    """The results of an evaluation as tables, statistics and figures; the constructor refuses wrong settings.

    Attributes:
        method: name of the method in tables and figures.
        cohort: the cohort (see `get_cohort`).
        conventions: settings of `Conventions`.
        decision: the decision whose results are shown, one of `DECISIONS`.
        data: the whole split, to record which cases were not tested.
        cases: datalist items of the cases in the tables.
        calibration_cases: datalist items that pages of results are calibrated on; may be empty.
        subsets: subsets of modalities that are evaluated.
        window: size of the inference window in voxels; ``spacing`` is that of the voxels in mm.
        facts: what else to record: ``part`` and ``split``, for captions, ``precision``, SHA-256 of the ``weights``.
        output_dir: folder of the report; results of other decisions are written into subfolders with their names.
        panel_cases: cases to draw, as a list or separated by commas; None: the best, the median and the worst one.
        panel_subsets: subsets to draw, such as ``flair,t1c+flair``; None: each modality alone and all together.
        trained: on what the weights were trained, and ``trained_for`` how long, for the last screen.
        documented: method -> the mean Dice (%) of each region that the bundle's bare training on the phantom gives.
    """

    method: str
    cohort: str
    conventions: Mapping[str, Any]
    decision: str
    data: Parts
    cases: Sequence[Mapping[str, Any]]
    calibration_cases: Sequence[Mapping[str, Any]]
    subsets: Sequence[Sequence[str]]
    window: Sequence[int]
    spacing: Sequence[float]
    facts: Mapping[str, Any]
    output_dir: str
    panel_cases: str | Sequence[str] | None = None
    panel_subsets: str | Sequence[str] | None = None
    trained: str | None = None
    trained_for: str | None = None
    documented: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_evaluation(vars(self))
        require_own_parts(self.output_dir)
        if not self.cases:
            raise ValueError("No case to evaluate: the part of the split is empty; choose another one (key `part`).")
        evaluated = {
            "panel_cases": [item["case"] for item in self.cases],
            "panel_subsets": [subset_name(subset) for subset in self.subsets],
        }
        for key, names in evaluated.items():
            chosen = _names(getattr(self, key))
            setattr(self, key, chosen)
            if unknown := [name for name in chosen or () if name not in names]:
                raise ValueError(f"{key}: {unknown[0]!r} is not evaluated; expected some of {shortened(names, 15)}.")

    def write(self, store: CaseStore, network: nn.Module | None) -> None:
        """Write the results of all cases in the store and the report on them, and print the last screen.

        The network's size is recorded; None: there is none to measure. All files are written or, after an error, none.
        """
        shared, results, calibration = self._evaluation(store, network)
        with written_whole(self.output_dir, _earlier(self.output_dir), last=NOTE) as folder:
            for decision in [*(name for name in DECISIONS if name != self.decision), self.decision]:
                evaluation = replace(
                    shared,
                    results=_joined([case.decided(decision) for case in results], COLUMNS, shared.modalities),
                    calibration=_joined([case.decided(decision) for case in calibration], COLUMNS, shared.modalities),
                    facts={**shared.facts, "decision": decision},
                )
                subfolder = folder if decision == self.decision else folder / decision
                write_evaluation(evaluation, subfolder)
                panels = {self.method: list(_shown(evaluation, store, self.panel_cases, self.panel_subsets))}
            labels = get_cohort(self.cohort).labels
            write_report([evaluation], folder, panels=panels, labels=labels)
        trained = f"for {self.trained_for} " * bool(self.trained_for) + f"on {self.trained or 'unknown cases'}"
        documented = self.documented.get(self.method) if evaluation.cohort == "phantom" else None
        print(f"\n{last_screen(evaluation, f'{self.output_dir}/report.md', trained, documented)}", flush=True)

    def _evaluation(
        self, store: CaseStore, network: nn.Module | None
    ) -> tuple[Evaluation, list[CaseResult], list[CaseResult]]:
        """Return what is the same for all decisions, and the results of the cases and of the calibration cases."""
        results = [store.read(item["case"], planes=False) for item in self.cases]
        calibration = [store.read(item["case"], planes=False) for item in self.calibration_cases]
        cohort, tested = get_cohort(self.cohort), {item["case"] for item in self.cases}
        evaluation = Evaluation(
            name=self.method,
            cohort=cohort.name,
            modalities=cohort.modalities,
            regions=tuple(cohort.labels.regions),
            conventions=Conventions(**self.conventions),
            results=pd.DataFrame(columns=COLUMNS),
            bins=_joined([case.bins for case in results], BIN_COLUMNS, cohort.modalities),
            latents=_latents(results),
            facts={
                **(network_facts(network, len(cohort.modalities), self.window) if network else {}),
                **_cost(results),
                **window_facts(self.window, self.spacing),
                **{key: value for key, value in self.facts.items() if value is not None},
            },
            other_cases=tuple(sorted({item["case"] for part in self.data.values() for item in part} - tested)),
        )
        return evaluation, results, calibration


def check_evaluation(settings: Mapping[str, Any]) -> None:
    """Refuse attributes of a `Report`, given by their names, that would fail only at the end of a long run."""
    method, conventions = settings.get("method", ""), settings["conventions"]
    if not isinstance(method, str):
        raise ValueError(f"method {method!r}: expected text; on a command line put it into two pairs of quotes.")
    check_choice("decision", settings["decision"], DECISIONS)
    if not isinstance(conventions, Mapping):
        raise ValueError(f"conventions {conventions!r}: expected an object; set a key within it by --conventions#hd95.")
    for name in conventions:
        check_choice("conventions: key", name, [*Conventions.__dataclass_fields__])
    Conventions(**conventions)


def window_facts(window: Sequence[int], spacing: Sequence[float]) -> dict[str, str]:
    """Return the facts ``window`` (voxels) and ``spacing`` (mm) of an evaluation, as text such as ``48x64x48``."""
    return {"window": "x".join(map(str, window)), "spacing": "x".join(f"{size:g}" for size in spacing)}


def _names(chosen: str | Sequence[str] | None) -> list[str] | None:
    """Return a list of names, or names separated by commas, as a list; None for None."""
    return chosen if chosen is None else [*map(str, chosen.split(",") if isinstance(chosen, str) else chosen)]


def _earlier(output_dir: str) -> list[Path]:
    """Return the files of an earlier evaluation and its report, also those under other decisions."""
    others = [Path(output_dir, decision) for decision in DECISIONS]
    folders = [Path(output_dir), *(folder for folder in others if (folder / NOTE).is_file())]
    return [*parts_of_report(output_dir), *(path for folder in folders for path in evaluation_files(folder))]


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
    for its first five. A single case is the best one, and the worse of two the worst one.
    """
    names = [*evaluation.modalities, subset_name(evaluation.modalities)]
    dice = evaluation.values("dice").dropna(how="all")
    shown = subsets or [name for name in names if name in evaluation.subsets] or evaluation.subsets[:5]
    ranked = list(dice.groupby("case").mean().mean(axis=1).sort_values(ascending=False, kind="stable").index)
    places = {"median": len(ranked) // 2, "worst": len(ranked) - 1, "best": 0}
    words = {ranked[place]: word for word, place in places.items() if ranked}
    for case in cases or [case for case in ranked if case in words]:
        planes = store.read(case).planes
        for subset in shown:
            if (subset, case) in dice.index:
                yield Slice(
                    title=f"{'chosen' if cases else words[case]} case: {case}",
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
