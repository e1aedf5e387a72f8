"""The server's temporary files: all in one folder, which a server that was killed leaves to the next one to remove."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "mmb-server-"


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Put the temporary files of this process into a folder of its own, and remove those of servers that were killed.

    The folder is locked as long as the process lives, however that ends.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(left):  # that of a server that runs stays, and so does another user's
            if any(left.iterdir()):  # an empty one may be about to be locked
                shutil.rmtree(left, ignore_errors=True)
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder, _locked(Path(folder)):
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder; OSError if another process has locked it, or if it is a link."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
