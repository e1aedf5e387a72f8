"""Requests to a DICOMweb archive, from this server or the viewer; answers are checked, and limited in time and size."""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import requests
import urllib3
from fastapi import HTTPException, Response
from pydicom.datadict import tag_for_keyword
from requests.adapters import HTTPAdapter

from clinic.server.limits import ANSWER_BYTES, ANSWER_SECONDS

TIMEOUT = (10, 120)  # timeouts in seconds for connecting to an archive, and for its next bytes
CHUNK = 1 << 16
PART = re.compile(r"(?!\.+$)[\w.,-]+")
LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
TAGS = {keyword: f"{tag_for_keyword(keyword):08X}" for keyword in (*LEVELS.values(), "PatientID")}


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


def forward(
    archive: str, method: str, path: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], body: bytes
) -> Response:
    """Return the archive's answer to a viewer's request.

    The whole query is passed on; MONAI Label's own proxy drops it, so that a viewer gets studies of other patients. Of
    the headers, Accept and Content-Type are passed on. A path that DICOMweb does not have is refused with status 404.
    An answer with other studies, series, instances or patients than requested becomes status 502.
    """
    parts = path.strip("/").split("/")
    if parts[0] not in LEVELS or not all(map(PART.fullmatch, parts)) or (method == "POST" and parts[0] != "studies"):
        raise HTTPException(404, "Not a path of DICOMweb.")
    kept = {name: headers[name] for name in ("accept", "content-type") if name in headers}
    with archive_session() as session:
        answer = session.request(
            method, f"{archive}/{'/'.join(parts)}", params=list(query), headers=kept, data=body, allow_redirects=False
        )
    kind = answer.headers.get("content-type", "application/octet-stream")
    if method == "GET" and answer.ok and answer.content and "json" in kind and "multipart" not in kind:
        _require_asked(answer.json(), _asked(parts, query))
    return Response(answer.content, answer.status_code, media_type=kind)


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
