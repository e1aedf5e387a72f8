"""What an extra of the project installs, and the line that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message has the command that installs it."""


@contextmanager
def required(extra: str, purpose: str) -> Iterator[None]:
    """Raise `MissingExtraError` where a package of an extra is imported and missing."""
    try:
        yield
    except ImportError as error:
        if str(error.name).partition(".")[0] in ("common", "mmb"):
            raise
        raise MissingExtraError(
            f'{purpose}, which needs more packages ({error}): pip install "missing-modality-bundles[{extra}]"',
            name=error.name,
        ) from error
