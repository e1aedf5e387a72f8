"""Errors that MONAI wraps."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise an error itself instead of the RuntimeErrors that MONAI wraps around it."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is error:
            raise
        raise cause from None
