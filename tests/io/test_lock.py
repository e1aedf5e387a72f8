"""A folder is used by one process at a time, and a dead process does not block it."""

import time
from pathlib import Path

import pytest
from processes import start

from common.io.lock import lock_folder, unlock_folder


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
