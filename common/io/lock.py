"""One process at a time in a folder."""

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
"""The file in a folder that says who is at work there; only while it is locked does it mean anything."""

_held: dict[Path, IO[str]] = {}


def lock_folder(folder: str | os.PathLike, work: str) -> None:
    """Keep other processes out of a folder until `unlock_folder`, or until this process ends, however it does.

    A folder that this process holds already stays held. The lock is POSIX's: processes that are forked do not have it,
    so that a worker that outlives a killed training does not keep the next one out.

    Args:
        folder: an existing folder.
        work: what this process does there, e.g. ``training``.

    Raises:
        BlockingIOError: another process holds it; the message says which.
    """
    path = Path(folder, LOCK).resolve()
    if path in _held:
        return
    file = path.open("a+", errors="replace")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of them depends on the system
        file.seek(0)
        holder = file.read(1000).strip() or "another process"
        file.close()
        raise BlockingIOError(
            f"{folder}: in use by {holder}. Wait until it ends, end it, or choose another folder."
        ) from None
    except OSError as error:  # some file systems of clusters have no locks
        logger.warning(f"{folder}: cannot be locked ({error.strerror}); start nothing else that writes there.")
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
    """Let others into a folder that this process holds, if it does. The lock's file stays: another may wait for it."""
    if file := _held.pop(Path(folder, LOCK).resolve(), None):
        file.truncate(0)
        file.close()


@contextmanager
def scratch_folder(folder: str | os.PathLike, name: str, work: str) -> Iterator[Path]:
    """Yield an empty hidden folder within another one, which is removed when the block ends.

    What a killed process left of it is removed first.

    Raises:
        BlockingIOError: another process is at work in it.
        FileExistsError: something else is in its place.
        OSError: the disk is full; it has the folder as ``filename``.
    """
    scratch = Path(folder, f".{name}")
    scratch.mkdir(exist_ok=True)
    if scratch.is_symlink():
        raise FileExistsError(f"{scratch}: a link, in the place of a folder for temporary files; remove it.")
    try:
        lock_folder(scratch, work)
    except OSError:
        with suppress(OSError):
            scratch.rmdir()  # if it is empty: not another process's
        raise
    try:
        for path in scratch.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with naming_full_disk(folder):
            yield scratch
    finally:
        unlock_folder(scratch)
        shutil.rmtree(scratch)
