"""Results on disk: they are read back as written, and damaged files are refused by name."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import random_evaluation
from pandas.testing import assert_frame_equal

from common.evaluation.metrics import results as module
from common.evaluation.metrics.results import read_evaluation, read_results, write_evaluation, write_results

HEADER = "case,modalities,region,metric,value\n"


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


class TestBadFiles:
    @pytest.mark.parametrize(
        ("name", "said"),
        [("results.csv", "expected the results.csv of"), ("evaluation.json", ".* does not record the conventions")],
    )
    def test_missing(self, folder, name, said):
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file; {said}"):
            read_evaluation(folder)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "cannot be read as the rows of an evaluation"),
            (HEADER + "c1,t1,WT,dice,much\n", "cannot be read as the rows of an evaluation.*much"),
            ('a,"b\n', "cannot be read as the rows of an evaluation"),
            ("case,region,value\nc1,WT,1\n", r"columns \['case', 'region', 'value'\]; expected \['case', 'modal"),
            (HEADER + 2 * "c1,t1,WT,dice,0.5\n", "1 rows are duplicates, the first for c1/t1/WT/dice;"),
        ],
    )
    def test_results_that_are_none(self, tmp_path, text, message):
        path = tmp_path / "results.csv"
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"(?s)^{path}: .*{message}"):
            read_results(path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda said: said.pop("regions"),
            lambda said: said["conventions"].update(empty="lenient"),
            lambda said: said["conventions"].update(tolerance=1),
            lambda said: said.update(modalities=None),
            b'{"name": "M3',
            b"[]",
            b"\xff\xfe\x00",
        ],
    )
    def test_note_that_is_wrong_or_broken(self, folder, change):
        note = folder / "evaluation.json"
        said = json.loads(note.read_text())
        if callable(change):
            change(said)
        note.write_bytes(change if isinstance(change, bytes) else json.dumps(said).encode())
        with pytest.raises(ValueError, match=rf"^{note}: not the settings of an evaluation \(.*run .* again"):
            read_evaluation(folder)

    @pytest.mark.parametrize("name", ["calibration.csv", "reliability.csv", "latents.csv"])
    def test_other_files_that_are_broken(self, folder, name):
        (folder / name).write_text("x,y\n1,2\n")
        with pytest.raises(ValueError, match=rf"{name}: columns \['x', 'y'\]; expected \['case', "):
            read_evaluation(folder)

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("c9,flair+t1,WT,dice,1\n", r"modalities 'flair\+t1'; .* one of t1, t2, flair, t1\+t2"),
            ("c9,t1,TC,dice,1\n", "region 'TC'; .* one of WT, ET"),
        ],
        ids=["order", "region"],
    )
    def test_results_that_the_note_does_not_know_are_not_dropped(self, folder, row, message):
        with (folder / "results.csv").open("a") as file:
            file.write(row)
        with pytest.raises(ValueError, match=rf"results\.csv: {message}"):
            read_evaluation(folder)


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.csv"
    rows = random_evaluation().results
    write_results(rows, path)
    unwritable = rows.assign(value=[type("Bad", (), {"__str__": lambda _: 1 / 0})() for _ in range(len(rows))])
    with pytest.raises(ZeroDivisionError):
        write_results(unwritable, path)
    assert_frame_equal(read_results(path), rows)
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]
