"""Temporary folders keep no patient data, even after runs that were killed."""

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from common.study.scratch import scratch

HOLD = """
import sys
from common.study.scratch import scratch
with scratch(sys.argv[1]) as folder:
    (folder / "volume.nii").write_text("a patient's")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_it_is_private_and_gone_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "case").mkdir()
        (folder / "case" / "volume.nii").write_text("a patient's")
        assert list(tmp_path.iterdir()) == [folder]
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyError), scratch():
        raise KeyError
    assert not any(tmp_path.iterdir())


@pytest.mark.slow  # processes of their own, one of them killed
def test_what_a_killed_run_left_is_removed_and_what_others_use_is_not(tmp_path):
    runs = [
        subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]
    killed, alive = (run.stdout.readline().strip() for run in runs)
    (tmp_path / "of somebody").mkdir()
    os.symlink(tmp_path / "of somebody", tmp_path / ".missing-modality-link")
    runs[0].send_signal(signal.SIGKILL)
    runs[0].wait()
    assert os.path.exists(f"{killed}/volume.nii")
    with scratch(tmp_path):
        assert not os.path.exists(killed)
        assert os.path.exists(f"{alive}/volume.nii")
        with scratch(tmp_path):
            pass
    runs[1].communicate("")
    assert not os.path.exists(alive)
    assert (tmp_path / "of somebody").exists()


def test_no_room(tmp_path):
    """A limit on file sizes simulates a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=rf"^{tmp_path}: no room to write \(File too large\); make room"):  # noqa: SIM117
            with scratch(tmp_path) as folder:
                (folder / "volume.nii").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError), scratch(tmp_path) as folder:
        (folder / "absent").read_text()
