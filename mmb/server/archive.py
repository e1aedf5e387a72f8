"""Requests to a DICOMweb archive, whose answers are limited in time and size."""

import os
import time
from collections.abc import Iterator, Sequence
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import pydicom
import requests
import urllib3
from dicomweb_client import DICOMwebClient
from fastapi import HTTPException
from requests.adapters import HTTPAdapter

from mmb.server.limits import ANSWER_BYTES, ANSWER_SECONDS, REQUESTS

TIMEOUT = (10, 120)  # timeouts in seconds for connecting to an archive, and for its next bytes
CHUNK = 1 << 16


def archive_session() -> requests.Session:
    """Return a session for the archive, with the user and password from the environment, if set.

    Several threads may use it at once. It keeps no cookies, which would join the requests of different users, and
    follows no redirection: studies are read from the archive that the server was given, and sent nowhere else.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    session.auth = (user, password) if user else None
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded(pool_maxsize=REQUESTS))
    return session


def store(client: DICOMwebClient, files: Sequence[Path]) -> str | None:
    """Send DICOM files to an archive; return the SeriesInstanceUID of the first, or None if there is none.

    Raises ValueError if the archive does not accept all of them.
    """
    if not files:
        return None
    datasets = [pydicom.dcmread(file) for file in files]
    answer = client.store_instances(datasets)
    if answer.get("FailedSOPSequence") or not answer.get("ReferencedSOPSequence"):
        raise ValueError("The archive did not accept the segmentation; see its own log.")
    return str(datasets[0].SeriesInstanceUID)


class _Bounded(HTTPAdapter):
    """Adapter whose answers end at the limits, and lead nowhere else."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "timeout": TIMEOUT})
        if response.is_redirect:  # not read, which requests would do
            response.close()
            raise requests.TooManyRedirects(response=response)
        response.raw = _Body(response.raw)
        return response


class _Body:
    """The body of an answer, of which `requests` reads no more than the limits allow."""

    def __init__(self, raw: urllib3.HTTPResponse) -> None:
        self._raw, self._end = raw, time.monotonic() + ANSWER_SECONDS
        self.close, self.release_conn = raw.close, raw.release_conn

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """Yield it as it arrives, without waiting for full chunks, which a slow sender could delay for ever."""
        left = ANSWER_BYTES
        while piece := self._raw.read1(CHUNK, decode_content=True):
            left -= len(piece)
            if left < 0 or time.monotonic() > self._end:
                self.close()
                raise HTTPException(
                    502,
                    f"The DICOMweb archive's answer to one request exceeds {ANSWER_BYTES >> 20} MiB or "
                    f"{ANSWER_SECONDS} s; it was cut off.",
                )
            yield piece
        self.release_conn()
