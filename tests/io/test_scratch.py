"""Temporary folders keep no patient data, even after runs that were killed."""

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from common.io import scratch
from common.io.lock import LOCK, lock_folder
from common.io.scratch import PREFIX, scratch_folder, temporary_files_in_scratch

HOLD = """
import sys
from common.io.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    (folder / "volume.nii").write_text("a patient's")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_is_private_and_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "case").mkdir()
        (folder / "case" / "volume.nii").write_text("a patient's")
        assert list(tmp_path.iterdir()) == [folder]
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyError), scratch_folder():
        raise KeyError
    assert not any(tmp_path.iterdir())


def test_what_a_killed_run_left_is_removed_and_what_others_use_is_not(tmp_path):
    runs = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]
    killed, alive = (run.stdout.readline().strip() for run in runs)
    (tmp_path / "of somebody").mkdir()
    os.symlink(tmp_path / "of somebody", tmp_path / f"{PREFIX}link")
    runs[0].send_signal(signal.SIGKILL)
    runs[0].wait()
    assert os.path.exists(f"{killed}/volume.nii")
    with scratch_folder(tmp_path) as outer:
        assert not os.path.exists(killed)
        assert os.path.exists(f"{alive}/volume.nii")
        with scratch_folder(tmp_path):
            assert outer.exists()  # of this process, which could lock it twice
    runs[1].communicate("")
    assert not os.path.exists(alive)
    assert (tmp_path / "of somebody").exists()


def test_a_new_folder_that_another_run_took_for_an_abandoned_one_is_made_again(tmp_path, monkeypatch):
    taken = []

    def lock(folder, work):
        if len(taken) < 2:
            taken.append(folder)
            folder.rmdir()
            if len(taken) == 1:
                raise BlockingIOError
        lock_folder(folder, work)

    monkeypatch.setattr(scratch, "lock_folder", lock)
    with scratch_folder(tmp_path) as folder:
        assert folder not in taken
        assert os.listdir(folder) == [LOCK]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("limit", "content"), [(1000, 2000), (10, 0)])
def test_no_room(tmp_path, limit, content):
    """A limit on file sizes simulates a full disk; the lower one leaves no room for the lock's text either."""
    (tmp_path / f"{PREFIX}left").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as info:  # noqa: SIM117
            with scratch_folder(tmp_path) as folder:
                (folder / "volume.nii").write_bytes(bytes(content))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert info.value.filename.startswith(str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_place_and_files_that_do_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path / "absent"):
        pass
    with pytest.raises(FileNotFoundError), scratch_folder(tmp_path) as folder:
        (folder / "absent").read_text()


@pytest.mark.parametrize("set_before", [True, False])
def test_the_system_s_temporary_folder_is_set_back(tmp_path, monkeypatch, set_before):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path)) if set_before else monkeypatch.delenv("TMPDIR", raising=False)
    with temporary_files_in_scratch():
        within = os.environ["TMPDIR"]
        assert tempfile.gettempdir() == within
    assert not os.path.exists(within)
    assert os.environ.get("TMPDIR") == (str(tmp_path) if set_before else None)
    assert os.path.isdir(tempfile.gettempdir())


def test_a_signal_during_the_removal_leaves_nothing(tmp_path, monkeypatch):
    remove, calls = shutil.rmtree, []

    def interrupted(folder, **options):
        calls.append(folder)
        if len(calls) == 1:
            (folder / "first").unlink()
            raise SystemExit(143)
        remove(folder, **options)

    monkeypatch.setattr("common.io.scratch.shutil.rmtree", interrupted)
    made = scratch_folder(tmp_path)
    folder = made.__enter__()
    for name in ("first", "second"):
        (folder / name).touch()
    with pytest.raises(SystemExit):
        made.__exit__(None, None, None)
    assert [*tmp_path.iterdir()] == []
