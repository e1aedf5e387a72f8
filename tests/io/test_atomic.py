"""Results of several files are old or new, never a mixture."""

import errno
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from common.io.atomic import written_whole


def test_files_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("old")
    with suppress(ZeroDivisionError), written_whole(tmp_path) as made:
        (made / "a.csv").write_text("new")
        (made / "b.csv").write_text(f"{1 / 0}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: moved.append(target.name) or replace(path, target))
    with written_whole(tmp_path / "new", last="a.csv") as made:
        for name in ("figures/c.png", "a.csv", "report.html"):
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(name)
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == ["a.csv", "c.png", "figures", "report.html"]
    assert moved == ["report.html", "c.png", "a.csv"]


@pytest.fixture
def two_results(tmp_path):
    """Return a function that writes a new result over an old one."""
    for name in ("a.csv", "b.csv", "old.csv"):
        (tmp_path / name).write_text("old")
    (tmp_path / "mine.txt").write_text("mine")

    def write() -> None:
        with written_whole(tmp_path, [tmp_path / "a.csv", tmp_path / "old.csv"], last="a.csv") as made:
            for name in ("a.csv", "b.csv"):
                (made / name).write_text("new")

    return write


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


OLD = {"a.csv": "old", "b.csv": "old", "old.csv": "old", "mine.txt": "mine"}
NEW = {"a.csv": "new", "b.csv": "new", "mine.txt": "mine"}


def test_files_of_an_earlier_result_are_removed(tmp_path, two_results):
    two_results()
    assert texts(tmp_path) == NEW


def test_a_folder_in_a_file_s_place_is_found_before_anything_is_removed(tmp_path, two_results):
    (tmp_path / "b.csv").unlink()
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(IsADirectoryError, match=r"b\.csv: is a folder"):
        two_results()
    assert texts(tmp_path) == {name: text for name, text in OLD.items() if name != "b.csv"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which not even root can write")
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_moved(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    (tmp_path / "figures").symlink_to("/proc/self")

    def write() -> None:
        with written_whole(tmp_path, [tmp_path / "a.csv"], last="a.csv") as made:
            (made / "figures").mkdir()
            for name in ("a.csv", "figures/b.png"):
                (made / name).write_text("new")

    with pytest.raises(PermissionError, match="figures: cannot write there"):
        write()
    assert texts(tmp_path) == {"a.csv": "old"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_wait_while_files_are_moved(tmp_path, two_results, monkeypatch, number):
    came, replace = [], Path.replace
    before = signal.signal(number, lambda *_: came.append(texts(tmp_path)))
    monkeypatch.setattr(Path, "replace", lambda path, target: signal.raise_signal(number) or replace(path, target))
    try:
        two_results()
    finally:
        signal.signal(number, before)
    assert came == [NEW, NEW]


def test_a_folder_on_another_file_system(tmp_path, two_results, monkeypatch):
    def replace(path, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "replace", replace)
    two_results()
    assert texts(tmp_path) == NEW


def test_sigterm_leaves_nothing_half_written(tmp_path):
    code = """
import os, signal, sys
from common.io.atomic import written_whole
with written_whole(sys.argv[1]) as outer, written_whole(outer) as made:
    (made / "a.csv").write_text("new")
    os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert ended.returncode == -signal.SIGTERM
    assert not [*tmp_path.iterdir()]
