"""Files are written whole or not at all, alone or several, and a folder is used by one process at a time."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from processes import start
from refusals import refused

from common.io.atomic import written_whole
from common.io.files import replacing, require_writable, walk
from common.io.lock import lock_folder, unlock_folder


def below(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in walk(folder)]


def made(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_files_below_a_folder(tmp_path):
    made(*(tmp_path / name for name in ("b/2", "b/1", "a", "c/d/e", ".hidden", "b/._1", ".git/config")))
    os.mkfifo(tmp_path / "pipe")  # opening it would block for ever
    (tmp_path / "device").symlink_to("/dev/zero")
    assert below(tmp_path) == ["a", "b/1", "b/2", "c/d/e"]


def test_links_are_followed_once_and_never_back(tmp_path):
    made(tmp_path / "study/b/1", tmp_path / "elsewhere/2", tmp_path / "other/3")
    (tmp_path / "study/a").symlink_to("b")  # a folder is visited under its own name
    for name in ("x", "y"):
        (tmp_path / "study" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "study/file").symlink_to("b/1")
    (tmp_path / "study/nothing").symlink_to("absent")
    (tmp_path / "study/ring").symlink_to(tmp_path / "study")
    (tmp_path / "study/b/up").symlink_to("../..")  # to where other people's studies lie
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "study")
    (tmp_path / "study/itself").symlink_to("itself")
    assert below(tmp_path / "study") == ["b/1", "file", "itself", "nothing", "x/2"]


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_looked_into(tmp_path, as_anybody, mode):
    made(tmp_path / "a/1", tmp_path / "b/2")
    (tmp_path / "a").chmod(mode)
    message = r"^\.: a folder in it cannot be read \(Permission denied\), .* Make everything in it readable"
    with as_anybody(), pytest.raises(PermissionError, match=message):
        walk(".")
    (tmp_path / "a").chmod(0o755)
    with as_anybody():
        assert walk(".") == [Path("a/1"), Path("b/2")]


def test_replacing(tmp_path):
    path = tmp_path / "a" / "b.nii.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # so that the move is within one file system
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert not path.exists()
    assert (path.read_text(), list(path.parent.iterdir())) == ("new", [path])


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with pytest.raises(IsADirectoryError, match="a folder; expected the name of a file"), replacing(tmp_path):
        pass


def test_a_full_disk_leaves_the_old_file(full_disk, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(OSError, match="File too large"), replacing(path) as temporary:
        temporary.write_text("x" * 30_000)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_writable_folders_are_made_and_others_refused(tmp_path):
    folder = tmp_path / "new" / "results"
    assert (require_writable(folder), list(folder.iterdir())) == (str(folder), [])
    (tmp_path / "file").write_text("")
    with refused(PermissionError, f"{tmp_path}/file/results: cannot write there", "or pass another --output_dir"):
        require_writable(tmp_path / "file" / "results")


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


def test_a_folder_goes_with_the_last_file_of_an_earlier_result(tmp_path):
    for name in ("gone/a.png", "kept/a.png", "kept/mine.txt", "used/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with written_whole(tmp_path, [*tmp_path.glob("*/a.png")]) as made:
        (made / "used").mkdir()
        (made / "used" / "b.png").write_text("new")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert files == {"kept", "kept/mine.txt", "used", "used/b.png"}


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
    with pytest.raises(IsADirectoryError, match=r"b\.csv: a folder"):
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


def hold(folder: str) -> None:
    """Hold a folder for ever."""
    lock_folder(folder)
    Path(folder, "held").touch()
    time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Return a function that starts a process which holds a folder."""
    started = []

    def begin(folder: Path):
        folder.mkdir(exist_ok=True)
        started.append(start(hold, str(folder), log=tmp_path / "log"))
        while not (folder / "held").exists():
            assert started[-1].is_alive(), (tmp_path / "log").read_text()
            time.sleep(0.01)
        (folder / "held").unlink()
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.join()


def test_another_process_is_kept_out_until_the_first_is_dead(holder, tmp_path):
    folder = tmp_path / "out"
    process = holder(folder)
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=f"^{folder}: in use by another process"):
            lock_folder(folder)
    process.kill()
    process.join()
    lock_folder(folder)
    lock_folder(folder)  # a second stage of this process
    unlock_folder(folder)
    unlock_folder(folder)
    holder(folder)
