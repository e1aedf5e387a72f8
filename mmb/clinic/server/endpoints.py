"""The HTTP interface for MONAI Label's clients: 3D Slicer, OHIF with its panel, and scripts.

Only the build of OHIF comes from MONAI Label. Of its interface only the functions below exist: clients cannot replace
weights, read logs or other files, or delete studies. The server answers while an inference runs, and gives the reason
if it cannot do what is requested.
"""

import asyncio
import importlib.util
import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from urllib3 import encode_multipart_formdata

from common.modalities import display_name
from mmb.clinic.server.app import App
from mmb.clinic.server.archive import archive_session, forward
from mmb.clinic.server.errors import LONGEST, refusal
from mmb.clinic.server.guard import HEALTH, VIEWER, Guard, path_of
from mmb.clinic.server.limits import FILE_BYTES, REQUEST_BYTES, UPLOAD_BYTES
from mmb.clinic.server.origin import require_own
from mmb.clinic.server.routes_page import FILES, add_page
from mmb.clinic.server.upload_store import Uploads

logger = logging.getLogger("label")
LARGE = {
    ("PUT", "datastore"): FILE_BYTES, ("POST", "proxy"): FILE_BYTES, ("PUT", "studies"): UPLOAD_BYTES,
    ("POST", "segment"): UPLOAD_BYTES,
}  # fmt: skip
"""Method and first part of the path of requests that bring files, and the maximum size of their bodies."""
MESSAGE = "x-message"  # header of an answer with remarks for the user, as a JSON string, which app-config.js shows


def create_api(
    app: App,
    archive: str | None = None,
    names: Collection[str] = (),
    token: str = "",
    uploads: Uploads | None = None,
) -> FastAPI:
    """Return the HTTP interface of an app.

    ``archive`` is the URL of the DICOMweb service with the studies; without it they are in a folder, which OHIF cannot
    show. The server is reached by ``names``; see `require_own`. ``token`` is the first part of all paths; see `Guard`.
    ``uploads`` holds the studies that clients send; the caller closes it.
    """
    api = FastAPI(title="missing-modality-bundles", docs_url=None, redoc_url=None, openapi_url=None)
    api.add_middleware(_LimitedBody)
    api.add_middleware(_Answers, models=set(app.models), names=names)
    api.add_middleware(Guard, token=token)  # outermost, since it is added last
    for kind in (StarletteHTTPException, RequestValidationError):
        api.add_exception_handler(kind, lambda request, error: _error_response(error))
    segmenting, reading = asyncio.Lock(), asyncio.Lock()

    @api.get(HEALTH)
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/info/")
    def info() -> dict[str, Any]:
        return app.info()

    @api.post("/infer/{model}")
    async def infer(
        request: Request,
        model: str,
        image: str,
        params: Annotated[str, Form()] = "{}",
        output: Literal["image", "json", "dicom_seg", "all"] = "all",
    ) -> Response:
        await _require_field(request)
        asked = _json_object(params) | {"image": image}
        return await _in_turn(segmenting, request, _infer, app, model, asked, output)

    @api.post("/activelearning/{strategy}")
    def next_sample(strategy: str) -> dict[str, Any]:
        return app.next_sample(strategy)

    @api.get("/datastore/")
    def datastore(output: str = "stats") -> dict[str, Any]:
        return app.datastore.json() if output == "all" else app.datastore.status()

    @api.get("/datastore/image")
    async def image(request: Request, image: str) -> Response:
        return await _in_turn(reading, request, _file_of, app.image, image)

    @api.get("/datastore/label")
    async def label(request: Request, label: str, tag: str = "final") -> Response:
        return await _in_turn(reading, request, _file_of, app.label, label, tag)

    @api.put("/datastore/label")
    async def save_label(
        request: Request,
        image: str,
        label: Annotated[UploadFile, File()],
        tag: str = "final",
        params: Annotated[str, Form()] = "{}",
    ) -> Response:
        return await _in_turn(reading, request, _save_label, app, image, label, tag, _json_object(params))

    add_page(api, app, uploads or Uploads(), segmenting, reading)
    if archive is None:

        @api.get("/ohif/{path:path}")
        def no_viewer(path: str) -> None:
            raise HTTPException(404, "OHIF needs a DICOMweb archive, but the studies are in a folder; use 3D Slicer.")

        return api

    # The viewer's WADO, QIDO and STOW requests go to one address in the archive.
    session = archive_session()

    @api.get("/proxy/dicom/{service}/{path:path}")
    @api.post("/proxy/dicom/{service}/{path:path}")
    async def proxy(request: Request, service: Literal["wado", "qido", "stow"], path: str) -> Response:
        query, body = request.query_params.multi_items(), await request.body()
        return await run_in_threadpool(forward, session, archive, request.method, path, query, request.headers, body)

    api.mount("/ohif", _Viewer(_ohif(), token))
    return api


def _ohif() -> Path:
    """Return the folder of OHIF with MONAI Label's panel, which only MONAI Label's package contains."""
    package = importlib.util.find_spec("monailabel")
    if package is None:
        raise ModuleNotFoundError("OHIF is not installed: pip install --no-deps monailabel==0.8.5.")
    return Path(package.submodule_search_locations[0], "endpoints", "static", "ohif")


class _Viewer(StaticFiles):
    """OHIF's files with our configuration; other paths are pages that its script creates.

    It was built for ``/ohif/``, which stands in a few of its files; there the token is put before it.
    """

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__(directory=folder)
        self._here = f"/{token}/ohif/".encode() if token else b"/ohif/"
        self._moved = {
            path.name for path in folder.iterdir() if path.suffix in (".js", ".html") and _names_itself(path)
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await self._file(path, scope)
        response.headers["content-security-policy"] = VIEWER
        return response

    async def _file(self, path: str, scope: Scope) -> Response:
        if path == "app-config.js":
            return FileResponse(Path(__file__).with_name(path), headers={"cache-control": "no-cache"})
        if path in self._moved:
            content = Path(self.directory, path).read_bytes().replace(b"/ohif/", self._here)
            return Response(content, media_type=guess_type(path)[0])
        try:
            return await super().get_response(path, scope)
        except StarletteHTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            return await self._file("index.html", scope)


def _names_itself(file: Path) -> bool:
    return b"/ohif/" in file.read_bytes()


class _LimitedBody:
    """Middleware that refuses requests with too large a body before storing it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place, size = (scope.get("method"), path_of(scope)[1:].partition("/")[0]), 0
        limit = LARGE.get(place, REQUEST_BYTES)
        announced = int(Headers(scope=scope).get("content-length", 0))

        async def receive_within_limit() -> Message:
            nonlocal size
            message = await receive() if announced <= limit else {}
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
            await _error_response(error)(scope, receive, send_noted)
        route, model = getattr(scope.get("route"), "path", "-"), scope.get("path_params", {}).get("model", "")
        frequent = scope["method"] in ("GET", "HEAD") or route == FILES
        level = logging.DEBUG if frequent and status < 400 else logging.INFO
        told = model if model in self.models else ""
        logger.log(level, "%s %s %s %d %.2fs", scope["method"], route, told, status, time.monotonic() - began)


async def _in_turn(turn: asyncio.Lock, request: Request, answer: Callable[..., Response], *asked: Any) -> Response:
    """Answer a request in its turn, unless its client has disconnected."""
    async with turn:  # waiting here does not occupy a thread
        if await request.is_disconnected():
            return Response(status_code=499)
        return await run_in_threadpool(answer, *asked)


def _file_of(write: Callable[..., Path], *asked: Any) -> Response:
    with TemporaryDirectory() as folder:
        return _file(write(*asked, folder))


def _save_label(app: App, image: str, label: UploadFile, tag: str, params: Mapping[str, Any]) -> Response:
    with TemporaryDirectory() as folder:
        path = Path(folder, "sent")  # the client's file name is ignored
        with path.open("wb") as file:
            shutil.copyfileobj(label.file, file)
        return JSONResponse(app.save_label(image, path, tag, params))


def _infer(app: App, model: str, asked: Mapping[str, Any], output: str) -> Response:
    with TemporaryDirectory() as folder:  # gone before the answer is sent
        result = app.infer(model, {**asked, "output_dir": folder})
        params = result["params"]
        if output == "json":
            response: Response = JSONResponse(params)
        elif output == "image":
            response = _file(result["file"])
        elif output == "dicom_seg":
            if result["dicom_seg"] is None:
                otherwise = "There is no DICOM SEG: nothing was found, or the study is not DICOM."
                raise HTTPException(404, params["no_seg"] or otherwise)
            response = _file(result["dicom_seg"])
        else:
            image = Path(result["file"])
            parts = {
                "params": (None, json.dumps(params), "application/json"),
                "image": (image.name, image.read_bytes()),
            }
            content, kind = encode_multipart_formdata(parts)
            response = Response(content, media_type=kind)
    response.headers[MESSAGE] = _as_header(" ".join(_remarks(params)))
    return response


def _remarks(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield remarks on a result for the user."""
    used, missing, left_out = (
        ", ".join(map(display_name, params[key])) for key in ("modalities", "missing", "left_out")
    )
    yield f"Made from {used}{missing and f'; missing: {missing}'}{left_out and f'; left out: {left_out}'}."
    if params["empty"]:
        yield "Nothing was found, and nothing is stored."
    if params["stored"]:
        yield "The result is stored."
    yield from filter(None, [params["no_seg"]])
    yield from params["warnings"]
    if params["trained_on"]:
        yield f"The weights were trained on {params['trained_on']}."


def _as_header(text: str) -> str:
    """Return a text as JSON, so that it can stand in a header."""
    return json.dumps(text[:LONGEST])


def _file(path: str | Path) -> Response:
    path = Path(path)
    kind = "application/dicom" if path.suffix == ".dcm" else "application/octet-stream"
    return Response(path.read_bytes(), media_type=kind, headers={"content-disposition": f'filename="{path.name}"'})


async def _require_field(request: Request) -> None:
    """Refuse a body without the form field that holds the options, since they would be ignored silently."""
    if "params" not in await request.form() and request.headers.get("content-length", "0") != "0":
        raise ValueError('The body has no form field params; expected one with the options as JSON: {"use_t1": false}.')


def _json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text, or {} if it is empty; raise ValueError if it is not a valid object."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"params: {error}; expected a JSON object.") from None
    if not isinstance(value, dict):
        raise ValueError(f"params: a {type(value).__name__}; expected a JSON object.")
    return value


def _error_response(error: Exception) -> Response:
    refused = refusal(error)
    return JSONResponse({"detail": refused.detail}, refused.status_code, {MESSAGE: _as_header(refused.detail)})
