"""Messages for the user when something goes wrong."""

from __future__ import annotations

import tempfile


def printable(text: str) -> str:
    """Return a text with control and bidirectional characters escaped, since names from files may contain them."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def complaint(error: Exception) -> str:
    """Return a one-line message for an error."""
    if not isinstance(error, OSError) or error.errno is None:
        return printable(str(error))
    from common.io.files import DISK_FULL  # imports PyTorch, which should not be loaded before it is needed

    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno not in DISK_FULL:
        return printable(f"{where}{error.strerror}")
    where = where or f"output folder, or that of temporary files ({tempfile.gettempdir()}): "
    return printable(f"{where}the disk is full ({error.strerror}); free some space there, or choose another folder.")
