"""A folder is used by one process at a time, and a dead process does not block it."""

import os
import socket
import time
from pathlib import Path

import pytest
from processes import start

from common.io.lock import LOCK, lock_folder, unlock_folder


def hold(folder: str, fork: bool) -> None:
    """Hold a folder for ever, with a child process that outlives this one, as a loader's workers do for a while."""
    lock_folder(folder, "a training")
    if fork and os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    Path(folder, "held").touch()
    time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Return a function that starts a process which holds a folder."""
    started = []

    def begin(folder: Path, fork: bool = False):
        folder.mkdir(exist_ok=True)
        started.append(start(hold, str(folder), fork, log=tmp_path / "log"))
        while not (folder / "held").exists():
            assert started[-1].is_alive(), (tmp_path / "log").read_text()
            time.sleep(0.01)
        (folder / "held").unlink()
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize("fork", [False, True])
def test_another_process_is_kept_out_until_the_first_is_dead(holder, tmp_path, fork):
    folder = tmp_path / "out"
    process = holder(folder, fork)
    said = (
        rf"^{folder}: in use by a training, process {process.pid} on {socket.gethostname()}, since \d{{4}}-.*another f"
    )
    for _ in range(2):
        with pytest.raises(BlockingIOError, match=said):
            lock_folder(folder, "another")
    process.kill()
    process.join()
    lock_folder(folder, "another")
    assert (folder / LOCK).read_text().startswith(f"another, process {os.getpid()} on ")
    lock_folder(folder, "another")  # a second stage of this process
    unlock_folder(folder)
    unlock_folder(folder)
    holder(folder)
