"""Files appear whole or not at all."""

import errno
from contextlib import suppress

import pytest
import torch

from common.io import require_writable, write_checkpoint
from common.io.files import replacing


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


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError, match="a folder; expected the name of a file"), replacing(tmp_path):
        pass


def write_weights(path):
    write_checkpoint({"a": torch.zeros(10_000)}, path)


def write_text(path):
    with replacing(path) as temporary:
        temporary.write_text("x" * 30_000)


@pytest.mark.parametrize("write", [write_weights, write_text])
def test_full_disk_is_named_and_the_old_file_stays(full_disk, tmp_path, write):
    path = tmp_path / "model.pt"
    path.write_text("old")
    with pytest.raises(OSError, match=r"File too large: '.+model\.pt'") as info:
        write(path)
    assert (info.value.errno, info.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writable_folder_is_made(tmp_path):
    folder = tmp_path / "new" / "results"
    assert require_writable(folder) == str(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("below", ["", "results"])
def test_folder_that_is_not_writable(tmp_path, below):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / below
    with pytest.raises(PermissionError, match=r"cannot write there \(.+\); pass a writable --output_dir") as info:
        require_writable(folder)
    assert str(info.value).startswith(f"{folder}: ")
