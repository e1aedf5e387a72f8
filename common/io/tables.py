"""CSV files that users write, with a row for each case."""

import os

import pandas as pd


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Return a CSV file, all cells as text; raises ValueError if it is none."""
    try:
        return pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False).fillna("")
    except ValueError as error:  # those of pandas are of this kind, too
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())}); expected CSV in UTF-8.") from None


def by_case(table: pd.DataFrame, column: str, path: str | os.PathLike) -> dict[str, str]:
    """Return the text of a column for each name in the column ``case``, capitals or not."""
    if len(twice := table["case"][table["case"].str.lower().duplicated()]):
        raise ValueError(f"{path}: two rows for {twice.iloc[0]}; expected one for each case. Remove the wrong one.")
    return dict(zip(table["case"], table[column], strict=True))
