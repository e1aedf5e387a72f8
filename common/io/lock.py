"""Locks that keep a folder to one process at a time."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"  # name of the file in a folder that is locked
_held: dict[Path, FileLock] = {}


def lock_folder(folder: str | os.PathLike) -> None:
    """Keep other processes out of a folder until `unlock_folder` is called or this process ends, no matter how.

    Locking a folder twice in one process has no effect. Raises BlockingIOError if another process holds it.
    """
    path = Path(folder, LOCK).resolve()
    if path in _held:
        return
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BlockingIOError(
            f"{folder}: in use by another process. Wait until it ends, end it, or choose another folder."
        ) from None
    _held[path] = lock


def unlock_folder(folder: str | os.PathLike) -> None:
    """Release a folder if this process holds it."""
    if lock := _held.pop(Path(folder, LOCK).resolve(), None):
        lock.release()
