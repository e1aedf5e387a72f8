"""Requests to a DICOMweb archive, from this server or the viewer; answers are checked, and limited in time and size.

An archive may lie, or hold what others have sent: nothing that it answers may become a page of this server.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import pydicom
import requests
import urllib3
from dicomweb_client import DICOMwebClient
from fastapi import HTTPException, Response
from fastapi.responses import StreamingResponse
from pydicom.datadict import tag_for_keyword
from requests.adapters import HTTPAdapter

from mmb.server.limits import ANSWER_BYTES, ANSWER_SECONDS, JSON_BYTES, REQUESTS

TIMEOUT = (10, 120)  # timeouts in seconds for connecting to an archive, and for its next bytes
CHUNK = 1 << 16
CONTENT = re.compile(
    r"(application/(dicom|octet-stream)|multipart/related|(?P<json>application/(dicom\+)?json)|image/(?!svg)[\w.+-]+)"
    r" *(;[ -+\--~]*)?",  # printable, and no comma, after which a browser would read another type
    re.ASCII | re.IGNORECASE,
)
"""Types of answers that are passed on: those that DICOMweb has, none of which a browser runs."""
PART = re.compile(r"(?!\.+$)[\w.,-]+")
LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
TAGS = {keyword: f"{tag_for_keyword(keyword):08X}" for keyword in (*LEVELS.values(), "PatientID")}


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


def forward(
    session: requests.Session,
    archive: str,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    body: bytes,
) -> Response:
    """Return the archive's answer to a viewer's request, as it arrives.

    The whole query is passed on; MONAI Label's own proxy drops it, so that a viewer gets studies of other patients. Of
    the headers, Accept and Content-Type are passed on. A path that DICOMweb does not have is refused with status 404.
    An answer with other studies, series, instances or patients than requested becomes status 502, as does one of
    another kind than `CONTENT`. What an archive says to a request that it refuses is not passed on.
    """
    parts = path.strip("/").split("/")
    if parts[0] not in LEVELS or not all(map(PART.fullmatch, parts)) or (method == "POST" and parts[0] != "studies"):
        raise HTTPException(404, "Not a path of DICOMweb.")
    kept = {name: headers[name] for name in ("accept", "content-type") if name in headers}
    url = f"{archive}/{'/'.join(parts)}"
    answer = session.request(
        method, url, params=list(query), headers=kept, data=body, allow_redirects=False, stream=True
    )
    try:
        return _passed_on(answer, _asked(parts, query) if method == "GET" else {})
    except BaseException:
        answer.close()
        raise


def _passed_on(answer: requests.Response, asked: Mapping[str, set[str]]) -> Response:
    status = answer.status_code
    if 400 <= status < 500:
        raise HTTPException(status, f"The DICOMweb archive refused the request (status {status}).")
    if status == 204:
        return Response(status_code=status)
    kind = answer.headers.get("content-type", "application/octet-stream")
    allowed = CONTENT.fullmatch(kind)
    if not allowed or not 200 <= status < 300:
        raise HTTPException(502, "The DICOMweb archive answered with something else than DICOMweb has; not passed on.")
    if not allowed["json"]:
        return StreamingResponse(_sent(answer), status, media_type=kind)
    content = bytearray()
    for piece in answer.iter_content():
        content += piece
        if len(content) > JSON_BYTES:
            raise HTTPException(502, f"The DICOMweb archive's list exceeds {JSON_BYTES >> 20} MiB; it was cut off.")
    if content:
        try:
            _require_asked(json.loads(content), asked)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise HTTPException(502, "The DICOMweb archive's answer is not the JSON of DICOMweb.") from None
    return Response(bytes(content), status, media_type=kind)


def _sent(answer: requests.Response) -> Iterator[bytes]:
    """Yield an answer as it arrives; an error ends the connection, and names no study."""
    try:
        yield from answer.iter_content()
    except Exception:
        raise ConnectionError("the archive's answer was cut off") from None
    finally:
        answer.close()


def _asked(parts: Sequence[str], query: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return attribute -> allowed values of an answer, for the attributes requested without wildcards."""
    named = [(LEVELS[level], uid) for level, uid in zip(parts[::2], parts[1::2], strict=False) if level in LEVELS]
    keywords = {tag: keyword for keyword, tag in TAGS.items()}
    for key, value in query:
        keyword = keywords.get(key.upper(), key)
        if keyword in TAGS and value and not set(value) & set("*?"):
            named.append((keyword, value))
    return {keyword: set(re.split(r"[,\\]", value)) for keyword, value in named}


def _require_asked(found: Sequence[Mapping[str, Any]], asked: Mapping[str, set[str]]) -> None:
    for dataset in found:
        for keyword, allowed in asked.items():
            values = dataset.get(TAGS[keyword], {}).get("Value")
            if values and values[0] not in allowed:
                raise HTTPException(502, f"The archive answered with another {keyword} than requested; not shown.")
