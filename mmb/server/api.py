"""The HTTP interface: its routes, and what holds for every request and every answer.

The server answers while an inference runs, and gives the reason if it cannot do what is requested.
"""

import asyncio
import logging
import time
from collections.abc import Collection

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmb.server import routes_label, routes_page
from mmb.server.answers import error_response
from mmb.server.app import App
from mmb.server.guard import HEALTH, Guard, path_of
from mmb.server.limits import FILE_BYTES, REQUEST_BYTES, SILENT_SECONDS, UPLOAD_BYTES
from mmb.server.origin import require_own
from mmb.server.routes_page import FILES, STATIC

logger = logging.getLogger("label")
LARGE = {
    ("PUT", "datastore"): FILE_BYTES, ("PUT", "studies"): UPLOAD_BYTES, ("POST", "segment"): UPLOAD_BYTES,
}  # fmt: skip
"""Method and first part of the path of requests that bring files, and the maximum size of their bodies."""
CLOSE = {"connection": "close"}  # header of an answer to a request of which the rest is not read


def create_api(app: App, names: Collection[str] = (), token: str = "") -> FastAPI:
    """Return the HTTP interface of an app.

    The server is reached by ``names``; see `require_own`. ``token`` is the first
    part of all paths; see `Guard`.
    """
    api = FastAPI(title="missing-modality-bundles", docs_url=None, redoc_url=None, openapi_url=None)
    api.state.app = app
    api.add_middleware(_LimitedBody)
    api.add_middleware(_Answers, models=set(app.models), names=names)
    api.add_middleware(Guard, token=token)  # outermost, since it is added last
    for kind in (StarletteHTTPException, RequestValidationError):
        api.add_exception_handler(kind, lambda request, error: error_response(error))
    api.add_api_route(HEALTH, lambda: {"status": "ok"}, methods=["GET", "HEAD"])
    api.include_router(routes_label.router)
    api.include_router(routes_page.router)
    api.mount("/static", StaticFiles(directory=STATIC))
    return api


class _LimitedBody:
    """Middleware that refuses requests with too large a body before storing it, and ends those that fall silent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place, size = (scope.get("method", ""), path_of(scope)[1:].partition("/")[0]), 0
        limit = LARGE.get(place, REQUEST_BYTES)
        headers, arrives = Headers(scope=scope), True
        announced = int(headers.get("content-length", 0))
        if "content-length" in headers and "transfer-encoding" in headers:  # servers may differ in where it ends
            raise HTTPException(400, "Expected Content-Length or Transfer-Encoding, not both.", CLOSE)

        async def receive_within_limit() -> Message:
            nonlocal size, arrives
            try:
                timeout = SILENT_SECONDS if arrives else None
                message = await asyncio.wait_for(receive(), timeout) if announced <= limit else {}
            except TimeoutError:
                what = f"Nothing of the request's body arrived for {SILENT_SECONDS} s; send it again."
                raise HTTPException(408, what, CLOSE) from None
            arrives = message.get("more_body", False)
            size += len(message.get("body", b""))
            if max(announced, size) > limit:
                raise HTTPException(413, f"The request exceeds {limit >> 20} MiB, the limit for its body.")
            return message

        await self.app(scope, receive_within_limit, send)


class _Answers:
    """Middleware that answers what fails with an error, and logs each request without naming images or patients."""

    def __init__(self, app: ASGIApp, models: Collection[str], names: Collection[str]) -> None:
        self.app, self.models, self.names = app, models, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            require_own(Request(scope), self.names)
            await self.app(scope, receive, send_noted)
        except Exception as error:
            if status:  # the answer has begun: the connection has to end, or its part would look like the whole
                raise
            await error_response(error)(scope, receive, send_noted)
        route, model = getattr(scope.get("route"), "path", "-"), scope.get("path_params", {}).get("model", "")
        frequent = scope["method"] in ("GET", "HEAD") or route == FILES
        level = logging.DEBUG if frequent and status < 400 else logging.INFO
        told = model if model in self.models else ""
        logger.log(level, "%s %s %s %d %.2fs", scope["method"], route, told, status, time.monotonic() - began)
