"""Tables over modality subsets. The long form, one row per case, subset, region and metric, is the one source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from common.io.files import replacing
from common.modalities import subset_name, subsets

COLUMNS = ("case", "modalities", "region", "metric", "value")


def write_results(rows: Iterable[Sequence], path: Path) -> pd.DataFrame:
    """Write rows ``case, modalities, region, metric, value`` as CSV (atomically) and return them as a data frame.

    ``modalities`` is a subset's name such as ``t1c+flair``.
    """
    results = pd.DataFrame(rows, columns=COLUMNS)
    with replacing(path) as temporary:
        results.to_csv(temporary, index=False)
    return results


def mean_by_subset(results: pd.DataFrame, modalities: Sequence[str], metric: str = "dice") -> pd.DataFrame:
    """Return the mean over cases: one row per subset, fewest modalities first, one column per region."""
    chosen = results[results["metric"] == metric]
    means = chosen.pivot_table(index="modalities", columns="region", values="value", sort=False)
    return means.reindex([name for name in map(subset_name, subsets(modalities)) if name in means.index])


def subset_table(results: pd.DataFrame, modalities: Sequence[str], metric: str = "dice") -> str:
    """Return a Markdown table laid out like the papers': a row per subset, filled circles for what is present.

    Values are means over cases in per cent; the last row is the mean over the subsets.
    """
    means = 100 * mean_by_subset(results, modalities, metric)
    header = [name.upper() if len(name) < 3 else name for name in modalities] + [str(r) for r in means.columns]
    lines = [_row(header), _row([":-:"] * len(modalities) + ["-:"] * len(means.columns))]
    for name, values in means.iterrows():
        present = str(name).split("+")
        lines.append(_row(["●" if m in present else "○" for m in modalities] + [f"{v:.1f}" for v in values]))
    lines.append(_row(["**mean**"] + [""] * (len(modalities) - 1) + [f"**{v:.1f}**" for v in means.mean()]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
