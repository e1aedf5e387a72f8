"""Results on disk: read back as written, missing or other files named, and stale results of cases not used."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import random_evaluation
from pandas.testing import assert_frame_equal

from common.evaluation.metrics import results as module
from common.evaluation.metrics import store as store_module
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, read_rows, write_evaluation, write_results
from common.evaluation.metrics.store import CaseStore
from mmb.experiments.evaluations import read_evaluation


def whole(**more):
    facts = {"parameters": 12, "gflops": 0.1}
    return random_evaluation(calibration=("v1", "v2"), probabilities=True, facts=facts, **more)


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


def test_subsets_from_few_to_many_modalities_and_values_as_a_table():
    found = random_evaluation(only=["t1+t2+flair", "flair", "t1", "t2+flair"])
    assert found.subsets == ["t1", "flair", "t2+flair", "t1+t2+flair"]
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


SETTINGS = [Conventions(), "weights 1"]


@pytest.fixture
def items(tmp_path) -> list[dict]:
    """Datalist items of two cases whose files are there."""

    def write(name: str) -> str:
        (tmp_path / name).write_text(name)
        return str(tmp_path / name)

    return [
        {"case": case, "image": [write(f"{case}_t1"), write(f"{case}_t2")], "modalities": ["t1", "t2"]}
        | {"label": write(f"{case}_seg")}
        for case in ("007", "NA")
    ]


def result(case: str, seed: int = 0) -> CaseResult:
    """Return the result of a case with every kind of content."""
    rng = np.random.default_rng(seed)
    evaluation = random_evaluation(cases=(case,), probabilities=True, seed=seed)
    evaluation.results.loc[4, "value"] = float("nan")
    planes = {"image": rng.random((2, 5, 4)).astype(np.float16), "spacing": np.array([1.0, 0.9])}
    planes |= {name: rng.integers(0, 4, (5, 4), np.uint8) for name in ("reference", "expected_dice/t1+t2")}
    latents = {name: rng.random(4, np.float32) for name in ("t1", "t1c")}
    results = evaluation.results.assign(decision="threshold")
    return CaseResult(case, results, evaluation.bins, latents, planes, seconds=0.1 + 0.2, memory_mb=512.5)


def stored(folder: Path, items: list[dict], settings=SETTINGS) -> CaseStore:
    """Return a store with the results of all items."""
    store = CaseStore(folder, settings, items)
    for item in store.pending():
        store.write(result(item["case"]))
    return store


def pending(folder: Path, items: list[dict], settings=SETTINGS) -> list[str]:
    """Return the cases that a later session still has to do."""
    return [item["case"] for item in CaseStore(folder, settings, items).pending()]


def test_a_result_comes_back_as_it_was(tmp_path, items):
    store = stored(tmp_path / "cases", items)
    for case in ("007", "NA"):  # texts that look like a number and like a missing value
        found, written = store.read(case), result(case)
        assert found.case == case
        assert_frame_equal(found.results, written.results, check_exact=True)
        assert_frame_equal(found.bins, written.bins, check_exact=True)
        for key in ("latents", "planes"):
            ours, theirs = getattr(found, key), getattr(written, key)
            assert list(ours) == list(theirs)
            for name in ours:
                assert ours[name].dtype == theirs[name].dtype
                assert np.array_equal(ours[name], theirs[name])
        assert (found.seconds, found.memory_mb) == (written.seconds, written.memory_mb)
        small = store.read(case, planes=False)
        assert (small.planes, small.latents.keys()) == ({}, found.latents.keys())


class TestPending:
    def test_all_at_first_and_none_in_the_end(self, tmp_path, items):
        folder = tmp_path / "cases"
        assert pending(folder, items) == ["007", "NA"]
        stored(folder, items[:1])
        assert pending(folder, items) == ["NA"]
        stored(folder, items)
        assert pending(folder, items) == []

    @pytest.mark.parametrize(
        "settings", [[Conventions(hd95="pooled"), "weights 1"], [Conventions(), "weights 2"], [Conventions()]]
    )
    def test_after_a_change_of_settings(self, tmp_path, items, settings):
        stored(tmp_path / "cases", items)
        assert pending(tmp_path / "cases", items, settings) == ["007", "NA"]
        assert pending(tmp_path / "cases", items) == []  # the earlier ones are still there

    @pytest.mark.parametrize("token", ["t2", "seg"])
    def test_after_a_change_of_a_file(self, tmp_path, items, token):
        stored(tmp_path / "cases", items)
        path = tmp_path / f"007_{token}"
        then = os.stat(path).st_mtime_ns
        path.write_text(path.read_text().upper())
        os.utime(path, ns=(then, then + 1))
        assert pending(tmp_path / "cases", items) == ["007"]

    @pytest.mark.parametrize("suffix", [".csv", ".npz"])
    def test_where_half_of_a_result_is_there(self, tmp_path, items, suffix):
        stored(tmp_path / "cases", items)
        (lost,) = (tmp_path / "cases").glob(f"007-*{suffix}")
        lost.unlink()
        assert pending(tmp_path / "cases", items) == ["007"]

    def test_after_a_crash_while_writing(self, tmp_path, items, monkeypatch):
        store = CaseStore(tmp_path / "cases", SETTINGS, items)
        monkeypatch.setattr(store_module, "write_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.write(result("007"))
        monkeypatch.undo()
        assert pending(tmp_path / "cases", items) == ["007", "NA"]
        assert not list((tmp_path / "cases").glob(".*"))

    def test_two_cases_of_one_name_are_refused(self, tmp_path, items):
        twice = [*items, {**items[0], "label": "other"}]
        with pytest.raises(ValueError, match="Case 007 is listed 2 times; name each case once"):
            CaseStore(tmp_path / "cases", SETTINGS, twice)
