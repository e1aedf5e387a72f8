"""Conversion of errors into answers for clients: an HTTP status and a line of text."""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import requests
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from mmb.clinic.disk import full_disk
from mmb.errors import StudyError

logger = logging.getLogger("label")
STATUS = {
    PermissionError: 403, FileNotFoundError: 404, ImportError: 501, ValueError: 400, MemoryError: 503,
    ClientDisconnect: 499,
}  # fmt: skip
"""HTTP status of errors whose message is the reason."""
DISK_FULL = (
    "A disk of the server is full: that with its temporary files (TMPDIR), or that with the studies and their labels. "
    "Free some space there, and ask again."
)
LONGEST = 4000  # maximum length of a reason in characters


class RefusedStudy(HTTPException):
    """The answer to who sent a study that is refused; ``record`` has the reason for programs."""

    def __init__(self, status: int, detail: str, record: Mapping[str, Any]) -> None:
        super().__init__(status, detail)
        self.record = record


def refusal(error: Exception) -> HTTPException:
    """Return the answer to a request that ended with an error; log where an unexpected error occurred.

    Neither answer nor log contains file names, which may be patients' names, or paths of temporary files.
    """
    if isinstance(error, RefusedStudy):
        return error
    if full_disk(error):
        status, reason = 507, DISK_FULL
    elif isinstance(error, StudyError):
        status, reason = 400, error.public
    elif isinstance(error, StarletteHTTPException):
        status, reason = error.status_code, str(error.detail)
    elif isinstance(error, RequestValidationError | ValidationError):  # its own text quotes the request
        status, reason = 422, " ".join(map(_refused_field, error.errors()))
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        status, reason = 502, f"The archive refused the result (status {error.response.status_code})."
    elif isinstance(error, requests.TooManyRedirects):
        status, reason = 502, "The archive redirects requests; start the server with the URL it redirects to (--send)."
    elif isinstance(error, requests.RequestException):
        status, reason = 502, "The archive does not answer."  # its text holds the URL, with UIDs
    elif isinstance(error, OSError) and error.errno is not None:  # from the system; its text names the file
        status, reason = 500, f"The server cannot use a file or folder of its own ({error.strerror})."
    else:
        status, reason = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500), str(error)
        if isinstance(error, MemoryError):
            reason = f"It needs more memory than there is for it. {reason}"
        if status == 500:
            where = "".join(traceback.format_tb(error.__traceback__)[-5:])  # no message: it may name a patient
            logger.error("%s\n%s", type(error).__name__, where)
            reason = "An unexpected error occurred; the server's log says where."
    reason = " ".join(reason.split()).encode(errors="replace").decode()[:LONGEST]
    if isinstance(error, StudyError):
        found = [asdict(each) for each in error.found]
        return RefusedStudy(status, reason, {"code": error.code, "about": [*error.about], "found": found})
    return HTTPException(status, reason, error.headers if isinstance(error, StarletteHTTPException) else None)


def _refused_field(error: Mapping[str, Any]) -> str:
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}.".removeprefix(": ")


@contextmanager
def private(sent: bool = False) -> Iterator[None]:
    """Keep from clients the texts of errors that may name files of a study: all but those of StudyError.

    ``sent``: the client has sent the study itself, and is told which file is wrong.
    """
    try:
        yield
    except StudyError as error:
        if sent:
            raise error.to_its_sender() from error
        raise
    except (ValueError, FileNotFoundError) as error:
        raise StudyError(str(error), "The study, or one of its files, cannot be used.") from error
