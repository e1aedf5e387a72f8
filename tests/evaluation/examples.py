"""Random evaluations for tests of code that uses evaluations."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.evaluation.metrics.conventions import METRICS, Conventions
from common.evaluation.metrics.results import BIN_COLUMNS, COLUMNS, Evaluation
from common.modalities import subset_name, subsets

PROBABILISTIC = ("expected_volume", "expected_dice", "entropy", "divergence")
"""Metrics that need probabilities."""
ALWAYS = [metric for metric in METRICS if not metric.startswith("lesion_")]
"""Metrics that are measured without being asked for."""
CASES = ("c1", "c2", "c3", "c4")


def evaluation_of(
    values: Mapping[tuple[str, str], Sequence[float]],
    name: str = "base",
    metric: str = "dice",
    modalities: Sequence[str] = ("t1", "t2"),
    regions: Sequence[str] = ("WT", "ET"),
    cohort: str = "toy",
    **conventions,
) -> Evaluation:
    """Return an evaluation with the values of cases c0, c1, ... for each subset and region."""
    rows = [
        (f"c{number}", subset, region, metric, value)
        for (subset, region), row in values.items()
        for number, value in enumerate(row)
    ]
    results = pd.DataFrame(rows, columns=COLUMNS)
    return Evaluation(name, cohort, tuple(modalities), tuple(regions), Conventions(**conventions), results)


def random_evaluation(
    name: str = "one",
    modalities: Sequence[str] = ("t1", "t2", "flair"),
    regions: Sequence[str] = ("WT", "ET"),
    cases: Sequence[str] = CASES,
    calibration: Sequence[str] = (),
    probabilities: bool = False,
    only: Sequence[str] | None = None,
    cohort: str = "toy",
    seed: int = 0,
    facts: dict | None = None,
    **conventions,
) -> Evaluation:
    """Return an evaluation with random values of all metrics; the reference volumes are the same for every seed.

    With ``probabilities`` it has the metrics that need them, bins and latents; ``only`` names the evaluated subsets.
    """
    rng = np.random.default_rng(seed)
    names = [n for n in map(subset_name, subsets(modalities)) if only is None or n in only]
    asked = METRICS if conventions.get("lesion_wise") else ALWAYS
    metrics = [metric for metric in asked if probabilities or metric not in PROBABILISTIC]

    def rows(of: Sequence[str]) -> pd.DataFrame:
        found = [
            (case, subset, region, metric, 5.0 + len(case) if metric == "reference_volume" else rng.uniform(0.1, 0.9))
            for case in of
            for subset in names
            for region in regions
            for metric in metrics
        ]
        return pd.DataFrame(found, columns=COLUMNS)

    bins = [(c, s, r, b, 100, 5.0 + 10 * b, 4 + 9 * b) for c in cases for s in names for r in regions for b in range(9)]
    latents = [(case, modality, *rng.random(3)) for case in cases for modality in modalities]
    frames = {
        "bins": pd.DataFrame(bins, columns=BIN_COLUMNS),
        "latents": pd.DataFrame(latents, columns=["case", "modality", "f0", "f1", "f2"]),
    }
    given = name, cohort, tuple(modalities), tuple(regions), Conventions(**conventions), rows(cases), rows(calibration)
    return Evaluation(*given, facts=facts or {}, **(frames if probabilities else {}))
