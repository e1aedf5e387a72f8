"""Finding files, and writing them whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where nothing more can be written: no space, no quota, too large a file."""


def walk(folder: str | os.PathLike) -> list[Path]:
    """Return the files in a folder and below it, sorted.

    Links to folders are followed, but each folder is visited once, under its own path if that lies in the folder too;
    so links in a ring end, and one to a folder around this one leads nowhere. Hidden files and folders are left out, as
    is what is no file, such as a pipe. A link to nothing is a file: whoever opens it says that it is not there.

    Raises:
        PermissionError: a folder in it cannot be looked into; only ``folder`` itself is named.
    """
    root = Path(folder)
    seen, folders, links, files = set(root.resolve().parents), [root], [], []
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        if (real := place.resolve()) in seen:
            continue
        seen.add(real)
        try:
            for path in sorted(place.iterdir()):
                if path.name.startswith("."):
                    continue
                mode = _mode(path)
                if stat.S_ISDIR(mode):
                    (links if path.is_symlink() else folders).append(path)
                elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    files.append(path)
        except OSError as error:
            # The names of what is in a study's folder may be names of patients.
            raise PermissionError(
                f"{folder}: a folder in it cannot be looked into ({error.strerror or error}), and what it holds "
                f"would be missed. Make all of it readable (chmod -R u+rX), or take out what is not; find {folder} ! "
                "-readable shows it."
            ) from None
    return sorted(files)


def _mode(path: Path) -> int:
    """Return the kind of what a path leads to; that of a link if it leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return stat.S_IFLNK
        raise


def require_writable(folder: str | os.PathLike) -> str:
    """Create a folder if need be and prove that files can be written there; return it.

    Raises:
        PermissionError: it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f"{folder}: cannot write there ({error.strerror or error}); pass a writable --output_dir."
        ) from error
    return str(folder)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffixes) that takes its place when the block ends without error.

    Raises:
        IsADirectoryError: there is a folder of this name.
        OSError: the disk is full; it has the path as ``filename``, which no write says.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{path}: a folder; expected the name of a file to write.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        with naming_full_disk(target):
            yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Say of a full disk where it is: raise an OSError with ``filename``, whatever a writer makes of the system's."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "errno", None) not in DISK_FULL:
            cause = cause.__context__  # PyTorch and zipfile raise their own while they handle it
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, cause.filename or str(path)) from error
