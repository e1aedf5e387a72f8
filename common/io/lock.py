"""Locks that keep a folder to one process at a time."""

import fcntl
import logging
import os
import shutil
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from common.io.disk import naming_full_disk

logger = logging.getLogger(__name__)
LOCK = ".lock"  # name of the file that says who works in a folder; it means something only while it is locked
_held: dict[Path, IO[str]] = {}


def lock_folder(folder: str | os.PathLike, work: str) -> None:
    """Keep other processes out of a folder until `unlock_folder` is called or this process ends, no matter how.

    They are told the ``work`` that this process does there, e.g. ``training``.

    Locking a folder twice in one process has no effect. The lock is a POSIX lock, which forked processes do not
    inherit; so a worker that outlives a killed training does not block the next training. Raises BlockingIOError if
    another process holds the lock; the message names it.
    """
    path = Path(folder, LOCK).resolve()
    if path in _held:
        return
    file = path.open("a+", errors="replace")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which one depends on the system
        file.seek(0)
        holder = file.read(1000).strip() or "another process"
        file.close()
        raise BlockingIOError(
            f"{folder}: in use by {holder}. Wait until it ends, end it, or choose another folder."
        ) from None
    except OSError as error:  # some cluster file systems do not support locks
        logger.warning(
            f"{folder}: cannot be locked ({error.strerror}); do not start another process that writes there."
        )
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    file.truncate(0)
    file.write(f"{work}, process {os.getpid()} on {socket.gethostname()}, since {since}\n")
    try:
        with naming_full_disk(path):
            file.flush()
    except OSError:
        path.unlink()
        raise
    _held[path] = file


def unlock_folder(folder: str | os.PathLike) -> None:
    """Release a folder if this process holds it. The lock file stays, since another process may be waiting for it."""
    if file := _held.pop(Path(folder, LOCK).resolve(), None):
        file.truncate(0)
        file.close()


def remove_abandoned(folder: str | os.PathLike) -> None:
    """Remove a folder that was locked, unless it still is, or its file system does not support locks."""
    if Path(folder, LOCK).resolve() not in _held:
        with suppress(OSError), Path(folder, LOCK).open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
