"""The folder for the server's temporary files, which include images of patients."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "missing-modality-label-"


@contextmanager
def private_folder() -> Iterator[None]:
    """Put all temporary files into one folder that only this user can read, and remove it at the end.

    A killed server leaves its folder behind; the next server recognises it by its free lock and removes it.
    """
    for abandoned in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(abandoned) as handle:
            if os.fstat(handle).st_uid == os.getuid():
                shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder, _locked(folder):
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)


@contextmanager
def _locked(folder: str | Path) -> Iterator[int]:
    """Hold the lock of a folder and yield its descriptor; raise OSError if another process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    finally:
        os.close(handle)
