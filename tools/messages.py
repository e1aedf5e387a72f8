"""Messages for the user when something goes wrong."""

from common.io.disk import full_disk, full_disk_line
from common.text import printable


def complaint(error: Exception) -> str:
    """Return a one-line message for an error."""
    if not isinstance(error, OSError) or error.errno is None:
        return printable(str(error))
    if cause := full_disk(error):
        return printable(full_disk_line(cause))
    return printable(f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror)
