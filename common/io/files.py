"""Finding files, and writing them atomically."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a file that cannot grow any further: no space left, quota exceeded, file too large."""


def walk(folder: str | os.PathLike) -> list[Path]:
    """Return the files in a folder and below it, sorted.

    Links to folders are followed, but each folder is visited once, under its own path if that lies in the folder too;
    so circular links end, and a link to a parent folder is ignored. Hidden files and folders, and entries that are not
    files (such as pipes), are left out. A broken link is returned as a file, so that whoever opens it reports it.

    Raises:
        PermissionError: if a folder below cannot be read; the message names only ``folder`` itself.
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
            # File names in a study's folder may contain patients' names.
            raise PermissionError(
                f"{folder}: a folder in it cannot be read ({error.strerror or error}), so its files would be missed. "
                "Make everything in it readable (chmod -R u+rX), or move the unreadable folder away; "
                f"find {folder} ! -readable shows it."
            ) from None
    return sorted(files)


def _mode(path: Path) -> int:
    """Return the file mode of what a path leads to, or that of a link if it is broken."""
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return stat.S_IFLNK
        raise


def require_writable(folder: str | os.PathLike) -> str:
    """Create a folder if needed, check that files can be written to it, and return it.

    Raises:
        PermissionError: if it cannot be created or written to.
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
    """Yield a temporary path beside ``path`` (same suffixes) that replaces ``path`` when the block ends without error.

    Raises:
        IsADirectoryError: if ``path`` is a folder.
        OSError: if the disk is full; its ``filename`` is ``path``, which the system's own error lacks.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected the name of a file to write.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}{secrets.token_hex(4)}"  # process numbers alone repeat on other machines
    temporary = target.with_name(f".{unique}.{target.name}")
    try:
        with naming_full_disk(target):
            yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Turn any error that a full disk causes into an OSError whose ``filename`` says where the disk is full."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "errno", None) not in DISK_FULL:
            cause = cause.__context__  # PyTorch and zipfile raise their own errors while they handle it
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, cause.filename or str(path)) from error
