"""A full disk as the cause of an error."""

import errno

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a file that cannot grow any further: no space left, quota exceeded, file too large."""


def full_disk(error: BaseException | None) -> OSError | None:
    """Return the error of a full disk that an error is or was caused by; None if it has another cause."""
    while error is not None and not (isinstance(error, OSError) and error.errno in _CODES):
        # PyTorch and zipfile raise their own errors while they handle it.
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error
