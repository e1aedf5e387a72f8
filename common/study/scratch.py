"""Temporary folders for a patient's intermediate images, which are removed after the run."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.io.files import DISK_FULL

PREFIX = ".missing-modality-"


@contextmanager
def scratch(place: str | os.PathLike | None = None) -> Iterator[Path]:
    """Yield an empty folder that only this user can access, and remove it at the end.

    A killed run cannot remove its folder; the next run in the same place does. Each run locks its folder, and the lock
    ends with the process, no matter how.

    Args:
        place: parent folder; None: the system's folder for temporary files.

    Raises:
        OSError: if the disk is full.
    """
    where = Path(tempfile.gettempdir() if place is None else place)
    remedy = "make room there, or set TMPDIR to a folder elsewhere" if place is None else "make room there"
    try:
        for left in where.glob(f"{PREFIX}*"):
            if (lock := _lock(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        folder, lock = _make(where)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(f"{where}: no room to write ({error.strerror}); {remedy}.") from error


def _make(where: Path) -> tuple[Path, int]:
    """Return a new folder and a lock on it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        lock = _lock(folder)
        if lock is not None and folder.exists():  # otherwise another run has removed it as a leftover
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a lock on a folder; None if it belongs to another user, is in use, or does not exist."""
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(opened).st_uid == os.geteuid():
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return opened
    except OSError:
        pass
    os.close(opened)
    return None
