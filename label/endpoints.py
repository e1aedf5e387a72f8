"""What MONAI Label's clients may ask for over HTTP: 3D Slicer, OHIF with its panel, and scripts.

Of MONAI Label only its build of OHIF is used. Of its interface only what is below exists: weights cannot be replaced,
logs and other files not read, studies not deleted. It answers while an inference runs, and what cannot be done with a
reason.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import requests
from fastapi import Body, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope
from urllib3 import encode_multipart_formdata

from common.modalities import display_name
from label.app import App
from label.proxy import forward

logger = logging.getLogger("label")
MESSAGE = "x-message"
"""Header of an answer: what a person should know of it, as a JSON string. app-config.js shows it."""
STATUS = {PermissionError: 403, FileNotFoundError: 404, ImportError: 501, ValueError: 400}
"""Of what an app refuses."""


def create_api(app: App, archive: str | None = None) -> FastAPI:
    """Return the HTTP interface of an app.

    Args:
        app: answers the requests.
        archive: URL of the DICOMweb service with the studies; None: they lie in a folder, which OHIF cannot show.

    Raises:
        ModuleNotFoundError: there is an archive, but no OHIF.
    """
    api = FastAPI(title="missing-modality-bundles", docs_url=None, redoc_url=None, openapi_url=None)
    api.middleware("http")(_answer)
    api.add_exception_handler(StarletteHTTPException, lambda request, error: _error_response(error))
    one_at_a_time = asyncio.Lock()

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
        asked = _json_object(params) | {"image": image}
        async with one_at_a_time:  # whoever waits here takes no thread
            if await request.is_disconnected():
                return Response(status_code=499)
            return await run_in_threadpool(_infer, app, model, asked, output)

    @api.post("/activelearning/{strategy}")
    def next_sample(strategy: str) -> dict[str, Any]:
        return app.next_sample(strategy)

    @api.get("/datastore/")
    def datastore(output: str = "stats") -> dict[str, Any]:
        return app.datastore.json() if output == "all" else app.datastore.status()

    @api.get("/datastore/image")
    def image(image: str) -> Response:
        with TemporaryDirectory() as folder:
            return _file(app.image(image, folder))

    @api.get("/datastore/label")
    def label(label: str, tag: str = "final") -> Response:
        with TemporaryDirectory() as folder:
            return _file(app.label(label, tag, folder))

    @api.put("/datastore/label")
    def save_label(
        image: str,
        label: Annotated[UploadFile, File()],
        tag: str = "final",
        params: Annotated[str, Form()] = "{}",
    ) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            path = Path(folder, "label" + "".join(Path(label.filename or ".nii.gz").suffixes[-2:]))
            path.write_bytes(label.file.read())
            return app.save_label(image, path, tag, _json_object(params))

    @api.post("/train/{model}")
    def train(model: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        return app.start_training(model, params or {})

    @api.post("/train/")
    def train_the_one(params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        names = list(params or app.trainers)  # OHIF's button names the models whose options were changed
        if len(names) != 1:
            raise ValueError(f"One model is trained at a time: change an option of one of {', '.join(names)} first.")
        return app.start_training(names[0], (params or {}).get(names[0], {}))

    @api.get("/train/")
    def training(check_if_running: bool = False) -> dict[str, Any]:
        task = app.training()
        if not task or (check_if_running and task["status"] != "RUNNING"):
            raise HTTPException(404, "No training is running." if check_if_running else "There was no training.")
        return task

    @api.delete("/train/")
    def stop_training() -> dict[str, Any]:
        return app.stop_training()

    if archive is None:

        @api.get("/ohif/{path:path}")
        def no_viewer(path: str) -> None:
            raise HTTPException(404, "OHIF needs a DICOMweb archive, and the studies lie in a folder; use 3D Slicer.")

        return api

    # What the viewer asks for as WADO, QIDO and STOW lies under one address in the archive.
    @api.get("/proxy/dicom/{service}/{path:path}")
    @api.post("/proxy/dicom/{service}/{path:path}")
    async def proxy(request: Request, service: Literal["wado", "qido", "stow"], path: str) -> Response:
        query, body = request.query_params.multi_items(), await request.body()
        return await run_in_threadpool(forward, archive, request.method, path, query, request.headers, body)

    api.mount("/ohif", _Viewer(directory=_ohif()))
    return api


def _ohif() -> Path:
    """Return the folder of OHIF with MONAI Label's panel, whose build is in MONAI Label's package alone."""
    package = importlib.util.find_spec("monailabel")
    if package is None:
        raise ModuleNotFoundError("OHIF is not installed: pip install --no-deps monailabel==0.8.5.")
    return Path(package.submodule_search_locations[0], "endpoints", "static", "ohif")


class _Viewer(StaticFiles):
    """OHIF's files, with our configuration; what is none of them is a page that its script makes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == "app-config.js":
            return FileResponse(Path(__file__).with_name(path), headers={"cache-control": "no-cache"})
        try:
            return await super().get_response(path, scope)
        except StarletteHTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            return await super().get_response("index.html", scope)


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
                raise HTTPException(404, "There is no DICOM SEG: nothing was found, or the study is not DICOM.")
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
    """Yield what a person should know of a result."""
    used, missing, left_out = (
        ", ".join(map(display_name, params[key])) for key in ("modalities", "missing", "left_out")
    )
    yield f"Made from {used}{missing and f'; missing: {missing}'}{left_out and f'; left out: {left_out}'}."
    if params["empty"]:
        yield "Nothing was found, and nothing is stored."
    if params["stored"]:
        yield "The result is stored."
    yield from params["warnings"]
    if params["trained_on"]:
        yield f"The weights were trained on {params['trained_on']}."


def _as_header(text: str) -> str:
    """Return a text as it can stand in a header: as JSON."""
    return json.dumps(text[:4000])


def _file(path: str | Path) -> Response:
    path = Path(path)
    kind = "application/dicom" if path.suffix == ".dcm" else "application/octet-stream"
    return Response(path.read_bytes(), media_type=kind, headers={"content-disposition": f'filename="{path.name}"'})


def _json_object(params: str) -> dict[str, Any]:
    value = json.loads(params or "{}")
    if not isinstance(value, dict):
        raise ValueError(f"params: a {type(value).__name__}; expected a JSON object.")
    return value


async def _answer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, errors included; log what it was, but neither images nor patients."""
    began, reads = time.monotonic(), request.method in ("GET", "HEAD")
    if not reads and request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        response: Response = JSONResponse({"detail": "Not from another site's page."}, 403)
    else:
        try:
            response = await call_next(request)
        except Exception as error:
            response = _error_response(error)
    level = logging.DEBUG if reads and response.status_code < 400 else logging.INFO
    route = getattr(request.scope.get("route"), "path", "-")
    model = request.path_params.get("model", "")
    logger.log(level, "%s %s %s %d %.2fs", request.method, route, model, response.status_code, time.monotonic() - began)
    return response


def _error_response(error: Exception) -> Response:
    """Return the answer to a request that cannot be done: the reason in a line, for what the client can do about."""
    reason = " ".join(str(error).split())
    if isinstance(error, StarletteHTTPException):
        status, reason = error.status_code, str(error.detail)
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        status, reason = 502, f"The DICOMweb archive refused the request (status {error.response.status_code})."
    elif isinstance(error, requests.RequestException):
        status, reason = 502, "The DICOMweb archive does not answer."  # its text holds the URL, with UIDs
    else:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status == 500:
        reason = "This failed for a reason that was not foreseen; the server's log says where."
        where = "".join(traceback.format_tb(error.__traceback__)[-5:])  # without the message: it may name a patient
        logger.error("%s\n%s", type(error).__name__, where)
    return JSONResponse({"detail": reason}, status, {MESSAGE: _as_header(reason)})
