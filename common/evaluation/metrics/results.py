"""The results of an evaluation: long-form rows and their settings, from which tables and figures are made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from common.evaluation.metrics.conventions import Conventions
from common.io.atomic import written_whole
from common.io.files import replacing
from common.modalities import subset_names

COLUMNS = ("case", "modalities", "region", "metric", "value")
BIN_COLUMNS = ("case", "modalities", "region", "bin", "voxels", "probability", "positives")
LATENT_COLUMNS = ("case", "modality")
TEXT_COLUMNS = ("case", "modalities", "region", "metric", "modality", "decision")
"""Columns that hold text."""
NOTE = "evaluation.json"
"""File of an evaluation's settings; it marks the others as complete."""
OPTIONAL_TABLES = {
    "calibration": ("calibration.csv", COLUMNS),
    "bins": ("reliability.csv", BIN_COLUMNS),
    "latents": ("latents.csv", LATENT_COLUMNS),
}
"""Attribute of an evaluation that may be empty -> its file beside results.csv, and its columns."""


@dataclass(frozen=True)
class Evaluation:
    """One method's results on one part of a cohort.

    Attributes:
        name: name of the method, as printed in tables and figures.
        cohort: name of the cohort.
        modalities: the cohort's modalities in order.
        regions: names of the regions in order.
        conventions: conventions of the metrics.
        results: long-form rows with `COLUMNS`; ``modalities`` is a subset's name such as ``t1c+flair``. Units are those
            of `common.evaluation.metrics.conventions.METRICS`; undefined values are NaN.
        calibration: the same metrics for the calibration cases (the validation split); may be empty.
        bins: reliability bins of the results' cases, `BIN_COLUMNS`; empty without probabilities.
        latents: one row per case and modality, with `LATENT_COLUMNS` and the features; may be empty.
        facts: other facts to report, e.g. parameters, gflops, seconds, memory_mb, weights.
        other_cases: names of the split's cases that were not tested; empty if unknown.
    """

    name: str
    cohort: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    conventions: Conventions
    results: pd.DataFrame
    calibration: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    bins: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BIN_COLUMNS))
    latents: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LATENT_COLUMNS))
    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    other_cases: tuple[str, ...] = ()

    @cached_property
    def subsets(self) -> list[str]:
        """Names of the subsets that have results, fewest modalities first."""
        measured = set(self.results["modalities"])
        return [name for name in subset_names(self.modalities) if name in measured]

    def values(self, metric: str) -> pd.DataFrame:
        """Return a metric as a table: index ``(modalities, case)``, a column per region."""
        if metric not in self._wide:
            chosen = self.results[self.results["metric"] == metric]
            wide = chosen.pivot(index=["modalities", "case"], columns="region", values="value")
            subsets = [name for name in self.subsets if name in wide.index]
            self._wide[metric] = wide.reindex(columns=pd.Index(self.regions, name="region")).loc[subsets]
        return self._wide[metric].copy()

    @cached_property
    def _wide(self) -> dict[str, pd.DataFrame]:
        return {}


def subsets_of_any(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of the subsets for which any method has results, fewest modalities first."""
    measured = {name for evaluation in evaluations for name in evaluation.subsets}
    return [name for name in subset_names(evaluations[0].modalities) if name in measured]


def write_results(results: pd.DataFrame, path: str | Path) -> None:
    """Write rows as CSV atomically; values keep their 64-bit precision."""
    with replacing(path) as temporary:
        results.to_csv(temporary, index=False)


def write_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Write ``results.csv``, ``evaluation.json`` and those `OPTIONAL_TABLES` that have rows; remove the earlier ones.

    Files are moved into place only when all are written, so that a full disk leaves an earlier evaluation as it was.
    """
    folder = Path(folder)
    tables = {name: getattr(evaluation, key) for key, (name, _) in OPTIONAL_TABLES.items()}
    settings = {key: getattr(evaluation, key) for key in ("name", "cohort", "modalities", "regions")}
    settings |= {"conventions": asdict(evaluation.conventions), "facts": dict(evaluation.facts)}
    settings |= {"other_cases": evaluation.other_cases} if evaluation.other_cases else {}
    with written_whole(folder, evaluation_files(folder), last=NOTE) as made:
        for name, rows in {"results.csv": evaluation.results, **tables}.items():
            if name == "results.csv" or len(rows):
                rows.to_csv(made / name, index=False)
        (made / NOTE).write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")


def evaluation_files(folder: str | Path) -> list[Path]:
    """Return the paths of all files that `write_evaluation` may write into a folder."""
    return [Path(folder, name) for name in (NOTE, "results.csv", *(name for name, _ in OPTIONAL_TABLES.values()))]


def read_rows(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV whose first columns are these; names are read as text, even ``007`` or ``NA``."""
    types, missing = dict.fromkeys(TEXT_COLUMNS, str) | {"value": float}, {"value": ["", "nan", "NaN"]}
    rows = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=missing, float_precision="round_trip")
    if tuple(rows.columns[: len(columns)]) != tuple(columns):
        raise ValueError(f"{path}: columns {list(rows.columns[: len(columns)])}; expected {list(columns)}.")
    return rows
