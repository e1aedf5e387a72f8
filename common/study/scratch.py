"""Folders for a patient's images in between, which do not outlive the run that made them."""

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
    """Yield an empty folder that only this user can look into, and remove it at the end.

    A run that was killed cannot remove its own: the next one in the same place does. Each run holds a lock on its
    folder, which ends with the process, however that ends.

    Args:
        place: where to make it; None: where temporary files go.

    Raises:
        OSError: there is no room left in that place, for it or for what was written into it.
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
    """Return a new folder and its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
        lock = _lock(folder)
        if lock is not None and folder.exists():  # else another run came between, and took it for one that was left
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a lock on a folder of this user's; None if it is another's, is in use, or is gone."""
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
