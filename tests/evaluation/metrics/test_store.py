"""Stored results of cases: they are read back as written, and stale ones are not used."""

import os
from pathlib import Path

import numpy as np
import pytest
from evaluation.examples import random_evaluation
from pandas.testing import assert_frame_equal

from common.evaluation.metrics import store as module
from common.evaluation.metrics.case import CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.store import CaseStore

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
    return CaseResult(
        case=case,
        results=evaluation.results.assign(decision="threshold"),
        bins=evaluation.bins,
        latents={"t1": rng.random(4, np.float32), "t1c": rng.random(4, np.float32)},
        planes={
            "image": rng.random((2, 5, 4)).astype(np.float16),
            "reference": rng.integers(0, 4, (5, 4), np.uint8),
            "expected_dice/t1+t2": rng.integers(0, 4, (5, 4), np.uint8),
            "spacing": np.array([1.0, 0.9]),
        },
        seconds=0.1 + 0.2,
        memory_mb=512.5,
    )


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
        monkeypatch.setattr(module, "write_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.write(result("007"))
        monkeypatch.undo()
        assert pending(tmp_path / "cases", items) == ["007", "NA"]
        assert not list((tmp_path / "cases").glob(".*"))

    def test_two_cases_of_one_name_are_refused(self, tmp_path, items):
        twice = [*items, {**items[0], "label": "other"}]
        with pytest.raises(ValueError, match="Case 007 is listed 2 times; name each case once"):
            CaseStore(tmp_path / "cases", SETTINGS, twice)
