"""Tables over modality subsets. The long form, one row per case, subset, region and metric, is the one source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from common.io.files import replacing
from common.modalities import display_name, subset_name, subsets

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
    header = [display_name(name) for name in modalities] + [str(r) for r in means.columns]
    lines = [_row(header), _row([":-:"] * len(modalities) + ["-:"] * len(means.columns))]
    for name, values in means.iterrows():
        present = str(name).split("+")
        lines.append(_row(["●" if m in present else "○" for m in modalities] + [f"{v:.1f}" for v in values]))
    lines.append(_row(["**mean**"] + [""] * (len(modalities) - 1) + [f"**{v:.1f}**" for v in means.mean()]))
    return "\n".join(lines) + "\n"


def variant_table(results: Mapping[str, pd.DataFrame], metric: str = "dice") -> str:
    """Return a Markdown table with a row per variant: the mean over cases and subsets (%) of each region, and of all.

    Args:
        results: name of the variant -> its long-form results.
        metric: which one.
    """
    means = {
        name: 100 * long[long["metric"] == metric].groupby("region", sort=False)["value"].mean()
        for name, long in results.items()
    }
    regions = list(next(iter(means.values())).index)
    lines = [_row(["variant", *regions, "mean"]), _row(["-", *["-:"] * (len(regions) + 1)])]
    lines += [_row([name, *(f"{row[r]:.1f}" for r in regions), f"{row.mean():.1f}"]) for name, row in means.items()]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
