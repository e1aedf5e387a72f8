"""Locks that keep a folder to one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from common.io.files import naming_full_disk

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the file that says who works in a folder; it means something only while it is locked."""

_held: dict[Path, IO[str]] = {}


def lock_folder(folder: str | os.PathLike, work: str) -> None:
    """Keep other processes out of a folder until `unlock_folder` is called or this process ends, no matter how.

    Locking a folder twice in one process has no effect. The lock is a POSIX lock, which forked processes do not
    inherit; so a worker that outlives a killed training does not block the next training.

    Args:
        folder: an existing folder.
        work: what this process does there, e.g. ``training``.

    Raises:
        BlockingIOError: if another process holds the lock; the message names it.
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
        logger.warning(f"{folder}: cannot be locked ({error.strerror}); start no other process that writes there.")
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


@contextmanager
def scratch_folder(folder: str | os.PathLike, name: str, work: str) -> Iterator[Path]:
    """Yield an empty hidden subfolder that is removed when the block ends.

    Files that a killed process left in it are removed first.

    Raises:
        BlockingIOError: if another process is using it.
        FileExistsError: if a link or a file has its name.
        OSError: if the disk is full; its ``filename`` is ``folder``.
    """
    scratch = Path(folder, f".{name}")
    scratch.mkdir(exist_ok=True)
    if scratch.is_symlink():
        raise FileExistsError(f"{scratch}: a link where a folder for temporary files is expected; remove it.")
    try:
        lock_folder(scratch, work)
    except OSError:
        with suppress(OSError):
            scratch.rmdir()  # succeeds only if it is empty, that is, not in use by another process
        raise
    try:
        for path in scratch.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with naming_full_disk(folder):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # still locked, so that no file of the next process is removed
        unlock_folder(scratch)
