"""Folders for temporary files, which may be images of a patient: private, and removed even after a run was killed."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from common.io.disk import naming_full_disk
from common.io.lock import LOCK, lock_folder, remove_abandoned, unlock_folder

PREFIX = ".missing-modality-"
_making = Lock()


@contextmanager
def scratch_folder(place: str | os.PathLike | None = None) -> Iterator[Path]:
    """Yield a new folder that only this user can access, and remove it at the end.

    Its parent is ``place``, or the system's folder for temporary files (``TMPDIR``). A killed run cannot remove its
    folder; the next run in the same place does. The folder is locked, and its lock (`common.io.lock`) ends with the
    process, no matter how. Raises OSError if the disk is full; its ``filename`` is ``place``, or the file that could
    not be written.
    """
    place = Path(tempfile.gettempdir() if place is None else place)
    with naming_full_disk(place):
        with _making:
            for left in place.glob(f"{PREFIX}*"):
                if _is_own(left):
                    remove_abandoned(left)
            folder = _make(place)
        try:
            yield folder
        finally:
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # where a signal has ended the removal itself
                unlock_folder(folder)


@contextmanager
def temporary_files_in_scratch() -> Iterator[None]:
    """Put all temporary files of this process and those it starts into one `scratch_folder`."""
    with scratch_folder() as folder:
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)


def _is_own(path: Path) -> bool:
    """Return whether a path is a folder of this user, not a link to one."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return False


def _make(place: Path) -> Path:
    """Return a new, locked folder."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(BlockingIOError, FileNotFoundError):  # another run has taken it for an abandoned one
            try:
                lock_folder(folder, "a run")
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            if Path(folder, LOCK).exists():
                return folder
            unlock_folder(folder)
