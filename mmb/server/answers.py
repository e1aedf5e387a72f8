"""What the routes share: the app, and how they answer."""

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from mmb.server.app import App
from mmb.server.errors import LONGEST, RefusedStudy, refusal
from mmb.server.worker import Turns, Worker

MESSAGE = "x-message"  # header of an answer with remarks for the user, as a JSON string, which app-config.js shows


def _app(request: Request) -> App:
    return request.app.state.app


Served = Annotated[App, Depends(_app)]
"""The app, as an argument of a route."""


async def require_client(request: Request) -> None:
    """Raise ClientDisconnect if a request's client does not wait for the answer any more."""
    if await request.is_disconnected():
        raise ClientDisconnect


async def in_turn(
    turns: Turns, request: Request, stop: Callable[[], None], answer: Callable[..., Response], *asked: Any
) -> Response:
    """Answer a request in its turn, as long as its client waits for it."""
    return await turns.do(answer, *asked, stop=stop, require_wanted=partial(require_client, request))


async def read_in_turn(
    turns: Turns, request: Request, answer: Callable[..., Response], write: Callable[..., Any], *asked: Any
) -> Response:
    """Answer a request, in its turn, by what a function does with a worker of its own that reads a study."""
    with closing(Worker("read")) as reader:
        return await in_turn(turns, request, reader.close, answer, write, reader, *asked)


def written(write: Callable[..., Path], *asked: Any) -> Response:
    """Return the file that a function writes into the folder it is called with last."""
    with TemporaryDirectory() as folder:
        return file_response(write(*asked, folder))


def file_response(path: Path) -> Response:
    """Return the content of a file, which may vanish before the answer is sent."""
    kind = "application/dicom" if path.suffix == ".dcm" else "application/octet-stream"
    return Response(path.read_bytes(), media_type=kind, headers={"content-disposition": f'filename="{path.name}"'})


def error_response(error: Exception) -> Response:
    """Return the answer to a request that ended with an error; see `refusal`."""
    refused = refusal(error)
    headers = {**(refused.headers or {}), MESSAGE: as_header(refused.detail)}
    record = refused.record if isinstance(refused, RefusedStudy) else {}
    return JSONResponse({"detail": refused.detail, **record}, refused.status_code, headers)


def as_header(text: str) -> str:
    """Return a text as JSON, so that it can stand in a header."""
    return json.dumps(text[:LONGEST])
