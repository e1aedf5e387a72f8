"""Results copied from papers, to be shown beside measured ones. None of these numbers was measured here.

The files in ``data/`` hold the tables in long form; ``data/README.md`` says where they come from and which numbers are
known to be misprinted.
"""

from functools import cache
from pathlib import Path

import pandas as pd

from common.modalities import ALIASES, GLIOMA, resolve_subset, subset_name

FOLDER = Path(__file__).parent / "data"
COLUMNS = ("paper", "table", "dataset", "method", "modalities", "region", "metric", "value", "std")
CITATIONS = {
    "M3AE": "Liu et al., AAAI 2023",
    "MAG-MS": "He et al., 2023",
    "MedMAP": "Liu et al., 2024",
    "PASSION": "Shi et al., ACM Multimedia 2024",
    "GSS": "Qiu et al., ICCV 2023",
    "DeMoSeg": "Yang et al., arXiv 2408.08708",
    "IM-Fuse protocol": "the split of Pipoli et al., MICCAI 2025",
}

_VALUES = {"DSC": "dice", "DSC_%": "dice", "sensitivity_%": "sensitivity", "HD95_mm": "hd95", "HD_mm": "hd"}
"""Metric name in the files -> our name; other metrics keep their name and unit. ``HD_mm`` stands for HD95, too."""
_SPREADS = {
    "DSC_std": "dice",
    "DSC_std_%": "dice",
    "HD95_std": "hd95",
    "HD95_std_mm": "hd95",
    "DSC_variance": "dice",
    "HD95_variance": "hd95",
}
"""Metric name of the number after a plus-minus sign -> our name of the metric that it belongs to."""


def sources() -> list[tuple[str, str, str]]:
    """Return paper, table and dataset of all published tables."""
    return list(_read()[["paper", "table", "dataset"]].drop_duplicates().itertuples(index=False, name=None))


def published(paper: str, table: str, dataset: str) -> pd.DataFrame:
    """Return a published table, e.g. that of ``M3AE``, ``1``, ``BraTS2018 test split (57)``; see `sources`.

    Returns rows in the paper's order with `COLUMNS`. ``modalities`` is the name of a subset (``t1c+flair``), ``mean``
    for the printed mean over all subsets, or a description of another average. A ``region`` of ``mean`` is the mean
    over regions. ``metric`` is a name in `common.evaluation.metrics.conventions.METRICS`, with ``value`` and ``std`` in
    its units (fractions, mm), or the paper's name and unit, e.g. ``parameters_M``. ``std`` is NaN if none is printed.
    """
    rows = _read().query("paper == @paper and table == @table and dataset == @dataset")
    if rows.empty:
        tables = "; ".join(f"{number}, {of}" for name, number, of in sources() if name == paper)
        expected = f"table and dataset of {paper}: {tables}" if tables else f"a paper of {', '.join(CITATIONS)}"
        raise ValueError(f"No published table {paper}, {table}, {dataset}; expected {expected}.")
    return rows.reset_index(drop=True)


def cite(paper: str, table: str, dataset: str) -> str:
    """Return a citation, e.g. ``M3AE (Liu et al., AAAI 2023), Table 1, BraTS2018 test split (57)``."""
    place = f"Table {table}" if " " not in table else table
    return f"{paper} ({CITATIONS[paper]}), {place}, {dataset}"


@cache
def _read() -> pd.DataFrame:
    """Return all files as one table, with the spread of each value in the same row."""
    rows = pd.concat([pd.read_csv(path, dtype={"table": str}) for path in sorted(FOLDER.glob("*.csv"))])
    rows = pd.concat([rows, rows[rows["metric"] == "HD_mm"].assign(metric="HD95_mm")])  # PASSION does not say which
    rows["modalities"] = rows["modalities"].map(_subset)
    printed = rows["metric"]
    rows.loc[printed.str.endswith("_%"), "value"] /= 100
    rows.loc[printed.str.contains("_variance"), "value"] **= 0.5
    is_spread = printed.isin(_SPREADS)
    rows["metric"] = printed.map(_VALUES | _SPREADS).fillna(printed)
    spreads = rows[is_spread].rename(columns={"value": "std"})
    return rows[~is_spread].merge(spreads, on=list(COLUMNS[:-2]), how="left", validate="one_to_one")[list(COLUMNS)]


def _subset(text: str) -> str:
    """Return our name of a subset that a file calls e.g. ``F+T1c``; other texts, e.g. ``mean``, stay unchanged."""
    parts = [{"F": "flair"}.get(part, part) for part in text.split("+")]
    if not all(part.lower() in ALIASES for part in parts):
        return text
    return subset_name(resolve_subset(parts, GLIOMA))
