"""A full disk as the cause of an error, and folders that appear only when they are complete."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a file that cannot grow any further: no space left, quota exceeded, file too large."""


def full_disk(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk that an error is or was caused by; None if it has another cause."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _CODES):
        # PyTorch and zipfile raise their own errors while they handle it.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to fill, which takes the place of ``folder`` if no error is raised.

    Raises FileExistsError if ``folder`` holds anything; OSError if it cannot be written.
    """
    target = Path(folder).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there already, and is not overwritten; expected a new or an empty folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
        draft = Path(temporary, target.name)
        draft.mkdir()
        yield draft
        os.replace(draft, target)
