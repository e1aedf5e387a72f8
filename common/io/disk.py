"""Errors in one line for a user; those of a full disk or memory are recognised, named and put into words here only."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from common.text import printable

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a file that cannot grow any further: no space left, quota exceeded, file too large."""
_NO_MEMORY = "allocate memory|out of memory|could not create a primitive$"
"""What PyTorch and, if memory is short, oneDNN say."""


def full_disk(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk that an error is or was caused by; None if it has another cause."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _CODES):
        # PyTorch and zipfile raise their own errors while they handle it.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


@contextmanager
def naming_full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Turn any error that a full disk causes into an OSError whose ``filename`` says where the disk is full.

    ``path`` is the ``filename`` if the error has none, as that of a write never has.
    """
    try:
        yield
    except Exception as error:
        cause = full_disk(error)
        if cause is None:
            raise
        raise OSError(cause.errno, cause.strerror, cause.filename or str(path)) from error


def full_disk_line(error: OSError) -> str:
    """Return a line about a full disk for a user: where, why, and what to do."""
    where = error.filename or f"output folder, or that of temporary files ({tempfile.gettempdir()})"
    return (
        f"{where}: the disk is full ({error.strerror}); free some space there, or choose another folder (for temporary "
        "files: TMPDIR)."
    )


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that no memory is left, the computer's or a GPU's."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(isinstance(error, RuntimeError) and re.search(_NO_MEMORY, str(error)))


def complaint(error: BaseException) -> str:
    """Return a one-line message for an error."""
    if out_of_memory(error):
        return printable(
            f"memory is full ({(str(error) or type(error).__name__).splitlines()[0]}); end other programs."
        )
    if not isinstance(error, OSError) or error.errno is None:
        return printable(str(error))
    if cause := full_disk(error):
        return printable(full_disk_line(cause))
    return printable(f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror)
