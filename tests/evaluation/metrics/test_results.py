"""Results on disk: they are read back as written, and files that are missing or others are named."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import random_evaluation
from pandas.testing import assert_frame_equal

from common.evaluation.metrics import results as module
from common.evaluation.metrics.results import COLUMNS, read_evaluation, read_rows, write_evaluation, write_results


def whole(**more):
    return random_evaluation(
        calibration=("v1", "v2"), probabilities=True, facts={"parameters": 12, "gflops": 0.1}, **more
    )


@pytest.fixture
def folder(tmp_path):
    """The output folder of an evaluation."""
    write_evaluation(whole(), tmp_path / "out")
    return tmp_path / "out"


class TestRoundTrip:
    def test_all_parts_come_back(self, tmp_path):
        written = whole(cases=("007", "NA", "1e3"), empty="nan", hd95="pooled", et_min_voxels=500)
        written.results.loc[[3, 8], "value"] = [np.nan, 0.1 + 0.2]  # undefined, and all digits of it
        write_evaluation(written, tmp_path)
        found = read_evaluation(tmp_path)
        for key in ("results", "calibration", "bins", "latents"):
            assert_frame_equal(getattr(found, key), getattr(written, key), check_exact=True)
            assert list(getattr(found, key)["case"].unique()) == list(getattr(written, key)["case"].unique())
        frames = {key: getattr(written, key) for key in ("results", "calibration", "bins", "latents")}
        assert replace(found, **frames) == written

    def test_parts_that_are_empty_have_no_file(self, tmp_path):
        write_evaluation(random_evaluation(), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "results.csv"]
        found = read_evaluation(tmp_path)
        assert found.calibration.empty
        assert list(found.bins.columns) == list(module.BIN_COLUMNS)

    def test_parts_of_an_earlier_evaluation_do_not_stay(self, folder):
        write_evaluation(random_evaluation(), folder)
        found = read_evaluation(folder)
        assert (len(found.calibration), len(found.bins), len(found.latents)) == (0, 0, 0)

    @pytest.mark.parametrize("full_at", ["results.csv", "reliability.csv"])
    def test_a_full_disk_leaves_the_earlier_evaluation(self, folder, monkeypatch, full_at):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        write = pd.DataFrame.to_csv

        def fail(self, path, **settings):
            write(self, path, **settings)
            if Path(path).name.endswith(full_at):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
        with pytest.raises(OSError, match="No space left on device"):
            write_evaluation(whole(seed=1), folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_name_can_be_another(self, folder):
        assert read_evaluation(folder).name == "one"
        assert read_evaluation(folder, "two").name == "two"


def test_subsets_go_from_few_to_many_modalities():
    found = random_evaluation(only=["t1+t2+flair", "flair", "t1", "t2+flair"])
    assert found.subsets == ["t1", "flair", "t2+flair", "t1+t2+flair"]


def test_values_are_a_table_of_subset_and_case_by_region():
    evaluation = random_evaluation(only=["t1+flair", "t2"])
    values = evaluation.values("hd95")
    assert list(values.columns) == ["WT", "ET"]
    assert list(values.index) == [(subset, case) for subset in ("t2", "t1+flair") for case in ("c1", "c2", "c3", "c4")]
    row = evaluation.results.set_index(["modalities", "case", "region", "metric"])["value"]
    assert values.loc[("t1+flair", "c3"), "ET"] == row["t1+flair", "c3", "ET", "hd95"]


@pytest.mark.parametrize("name", ["results.csv", "evaluation.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file; expected the output folder of an evaluation"):
        read_evaluation(folder)


@pytest.mark.parametrize("name", ["results.csv", "calibration.csv", "reliability.csv", "latents.csv"])
def test_a_file_of_other_columns_is_refused(folder, name):
    (folder / name).write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=rf"{name}: columns \['x', 'y'\]; expected \['case', "):
        read_evaluation(folder)


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.csv"
    rows = random_evaluation().results
    write_results(rows, path)
    unwritable = rows.assign(value=[type("Bad", (), {"__str__": lambda _: 1 / 0})() for _ in range(len(rows))])
    with pytest.raises(ZeroDivisionError):
        write_results(unwritable, path)
    assert_frame_equal(read_rows(path, COLUMNS), rows)
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]
