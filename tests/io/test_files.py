"""Files are written whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from refusals import refused

from common.io import require_writable
from common.io.files import replacing, walk


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
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(IsADirectoryError, match="a folder; expected the name of a file"), replacing(tmp_path):
        pass


def test_a_full_disk_leaves_the_old_file(full_disk, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(OSError, match="File too large"), replacing(path) as temporary:
        temporary.write_text("x" * 30_000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writable_folders_are_made_and_others_refused(tmp_path):
    folder = tmp_path / "new" / "results"
    assert require_writable(folder) == str(folder)
    assert list(folder.iterdir()) == []
    (tmp_path / "file").write_text("")
    with refused(PermissionError, f"{tmp_path}/file/results: cannot write there", "or pass another --output_dir"):
        require_writable(tmp_path / "file" / "results")
