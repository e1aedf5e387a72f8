"""Requests to a DICOMweb archive, with limits on the time and size of its answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import requests
import urllib3
from fastapi import HTTPException
from requests.adapters import HTTPAdapter

from clinic.server.limits import ANSWER_BYTES, ANSWER_SECONDS

TIMEOUT = (10, 120)
"""Timeouts in seconds for connecting to an archive, and for its next bytes."""
CHUNK = 1 << 16


def archive_session() -> requests.Session:
    """Return a session for the archive, with the user and password from the environment, if set."""
    session = requests.Session()
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    session.auth = (user, password) if user else None
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded())
    return session


class _Bounded(HTTPAdapter):
    """Adapter that stops reading an answer beyond the limits."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "timeout": TIMEOUT})
        response.iter_content = partial(_pieces, response.raw, time.monotonic() + ANSWER_SECONDS)
        return response


def _pieces(raw: urllib3.HTTPResponse, end: float, *_: Any, **__: Any) -> Iterator[bytes]:
    """Yield an answer as it arrives, without waiting for full chunks, which a slow sender could delay for ever."""
    left = ANSWER_BYTES
    try:
        while piece := raw.read1(CHUNK, decode_content=True):
            left -= len(piece)
            if left < 0 or time.monotonic() > end:
                raw.close()
                raise HTTPException(
                    502,
                    f"The DICOMweb archive's answer to one request exceeds {ANSWER_BYTES >> 20} MiB or "
                    f"{ANSWER_SECONDS} s; it was cut off.",
                )
            yield piece
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from None
    raw.release_conn()
