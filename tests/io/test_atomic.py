"""Results of several files are written whole or not at all."""

import shutil
from pathlib import Path

import pytest

from common.io.atomic import written_whole


@pytest.fixture
def two_results(tmp_path):
    """Return a function that writes a new result over an old one."""
    for name in ("a.csv", "b.csv", "old.csv"):
        (tmp_path / name).write_text("old")
    (tmp_path / "mine.txt").write_text("mine")

    def write(second: str = "new") -> None:
        with written_whole(tmp_path, [tmp_path / "a.csv", tmp_path / "old.csv"], last="a.csv") as made:
            (made / "a.csv").write_text("new")
            (made / "b.csv").write_text(second)

    return write


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


OLD = {"a.csv": "old", "b.csv": "old", "old.csv": "old", "mine.txt": "mine"}


def test_a_result_replaces_the_earlier_one_or_leaves_it_as_it_was(tmp_path, two_results):
    with pytest.raises(TypeError):
        two_results(second=None)
    assert texts(tmp_path) == OLD
    two_results()
    assert texts(tmp_path) == {"a.csv": "new", "b.csv": "new", "mine.txt": "mine"}
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_mark_of_a_whole_result_comes_last(tmp_path, monkeypatch):
    moved, move = [], shutil.move
    monkeypatch.setattr(shutil, "move", lambda path, target: moved.append(target.name) or move(path, target))
    with written_whole(tmp_path / "new", last="a.csv") as made:
        for name in ("figures/c.png", "a.csv", "report.html"):
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(name)
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == ["a.csv", "c.png", "figures", "report.html"]
    assert moved == ["report.html", "c.png", "a.csv"]


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
