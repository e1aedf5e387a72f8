"""The long form and the papers' table."""

import pandas as pd
import pytest

from common.evaluation import subset_table, variant_table, write_results
from common.evaluation.tables import COLUMNS, mean_by_subset

ROWS = [
    ("a", "t1+t2", "WT", "dice", 1.0),
    ("a", "t1+t2", "ET", "dice", 0.5),
    ("a", "t1", "WT", "dice", 0.25),
    ("a", "t1", "ET", "dice", 0.0),
    ("b", "t1", "WT", "dice", 0.5),
    ("b", "t1", "ET", "dice", 0.25),
    ("b", "t1", "ET", "hd95", 7.0),
]
MODALITIES = ("t1", "t1c", "t2")


def results_of(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_results_are_written_and_returned(tmp_path):
    results = write_results(ROWS, tmp_path / "new" / "results.csv")
    assert list(results.columns) == ["case", "modalities", "region", "metric", "value"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "results.csv"), results)
    assert (tmp_path / "new" / "results.csv").read_text().splitlines()[:2] == [
        "case,modalities,region,metric,value",
        "a,t1+t2,WT,dice,1.0",
    ]


def test_failure_leaves_the_old_results(tmp_path):
    path = tmp_path / "results.csv"
    write_results(ROWS, path)
    before = path.read_text()
    with pytest.raises(ValueError, match="columns"):
        write_results([("a", "t1")], path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_means_are_over_cases_fewest_modalities_first():
    means = mean_by_subset(results_of(ROWS), MODALITIES)
    assert means.to_dict("index") == {"t1": {"WT": 0.375, "ET": 0.125}, "t1+t2": {"WT": 1.0, "ET": 0.5}}
    assert list(means.index) == ["t1", "t1+t2"]


def test_table():
    table = subset_table(results_of(ROWS), MODALITIES)
    assert table == (
        "| T1 | T1c | T2 | WT | ET |\n"
        "| :-: | :-: | :-: | -: | -: |\n"
        "| ● | ○ | ○ | 37.5 | 12.5 |\n"
        "| ● | ○ | ● | 100.0 | 50.0 |\n"
        "| **mean** |  |  | **68.8** | **31.2** |\n"
    )


def test_variants():
    worse = results_of([(case, subset, region, metric, value / 2) for case, subset, region, metric, value in ROWS])
    assert variant_table({"ours": results_of(ROWS), "worse": worse}) == (
        "| variant | WT | ET | mean |\n"
        "| - | -: | -: | -: |\n"
        "| ours | 58.3 | 25.0 | 41.7 |\n"
        "| worse | 29.2 | 12.5 | 20.8 |\n"
    )
