"""Text for messages; imported without PyTorch."""

from collections.abc import Iterable

PHANTOM = "synthetic phantom, not a patient"
"""What the headers of the phantom's images say of them."""


def printable(text: str) -> str:
    """Return a text with control and bidirectional characters escaped, since names from files may contain them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shortened(names: Iterable[object], most: int = 10) -> str:
    """Return names joined for a message, e.g. ``a, b and 7 more``."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
