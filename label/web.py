"""What MONAI Label's clients may ask for over HTTP: 3D Slicer, OHIF with its panel, and scripts.

MONAI Label's own server is not used. Of its interface only what is below exists: weights cannot be replaced, logs and
other files not read, studies not deleted. It answers while an inference runs, and what cannot be done with a reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import monailabel.endpoints
import requests
from fastapi import Body, Depends, FastAPI, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from requests_toolbelt import MultipartEncoder
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from common.modalities import display_name
from label.main import App
from label.proxy import pass_on

OHIF = Path(monailabel.endpoints.__file__).parent / "static" / "ohif"
logger = logging.getLogger("label")


def web(app: App, archive: str | None = None, auth: tuple[str, str] | None = None) -> FastAPI:
    """Return the HTTP interface of an app.

    Args:
        app: answers the requests.
        archive: URL of the DICOMweb service with the studies; None: they lie in a folder, which OHIF cannot show.
        auth: user and password for it.
    """
    api = FastAPI(title="missing-modality-bundles", docs_url=None, redoc_url=None, openapi_url=None)
    api.middleware("http")(_answer)
    api.add_exception_handler(StarletteHTTPException, lambda request, error: _refusal(error))
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
        asked = _object(params) | {"model": model, "image": image}
        async with one_at_a_time:  # whoever waits here takes no thread
            if await request.is_disconnected():
                return Response(status_code=499)
            return await run_in_threadpool(_infer, app, asked, output)

    @api.post("/activelearning/{strategy}")
    def next_sample(strategy: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        return app.next_sample((params or {}) | {"strategy": strategy})

    @api.get("/datastore/")
    def datastore(output: str = "stats") -> dict[str, Any]:
        return app.datastore().json() if output == "all" else app.datastore().status()

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
            return app.save_label(image, path, tag, _object(params))

    @api.post("/train/{model}")
    def train(model: str, params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        return app.start_training(model, params or {})

    @api.post("/train/")
    def train_the_one(params: Annotated[dict[str, Any] | None, Body()] = None) -> dict[str, Any]:
        names = list(params or app.info()["trainers"])  # OHIF's button names the models whose options were changed
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
    def proxy(
        request: Request, service: Literal["wado", "qido", "stow"], path: str, body: Annotated[bytes, Depends(_body)]
    ) -> Response:
        return pass_on(archive, auth, request.method, path, request.query_params.multi_items(), request.headers, body)

    api.mount("/ohif", _Viewer(directory=OHIF))
    return api


class _Viewer(StaticFiles):
    """OHIF's files, with our configuration; what is none of them is a page that its script makes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == "app-config.js":
            return FileResponse(Path(__file__).with_name("viewer.js"), headers={"cache-control": "no-cache"})
        try:
            return await super().get_response(path, scope)
        except StarletteHTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            return await super().get_response("index.html", scope)


def _infer(app: App, asked: Mapping[str, Any], output: str) -> Response:
    with TemporaryDirectory() as folder:  # gone before the answer is sent
        result = app.infer({**asked, "output_dir": folder})
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
            path = Path(result["file"])
            image = (path.name, path.read_bytes(), "application/octet-stream")
            parts = MultipartEncoder({"params": (None, json.dumps(params), "application/json"), "image": image})
            response = Response(parts.to_string(), media_type=parts.content_type)
    response.headers["x-said"] = _ascii(" ".join(_said(params)))
    return response


def _said(params: Mapping[str, Any]) -> Iterator[str]:
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


def _ascii(text: str) -> str:
    """Return a text as it can stand in a header: as JSON."""
    return json.dumps(text[:4000])


def _file(path: str | Path) -> Response:
    path = Path(path)
    kind = "application/dicom" if path.suffix == ".dcm" else "application/octet-stream"
    return Response(path.read_bytes(), media_type=kind, headers={"content-disposition": f'filename="{path.name}"'})


def _object(params: str) -> dict[str, Any]:
    value = json.loads(params or "{}")
    if not isinstance(value, dict):
        raise ValueError(f"params: a {type(value).__name__}; expected a JSON object.")
    return value


async def _body(request: Request) -> bytes:
    return await request.body()


async def _answer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, errors included; log what it was, but neither images nor patients."""
    began = time.monotonic()
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") not in (
        None,
        "same-origin",
        "none",
    ):
        response: Response = JSONResponse({"detail": "Not from another site's page."}, 403)
    else:
        try:
            response = await call_next(request)
        except Exception as error:
            response = _refusal(error)
    level = logging.DEBUG if request.method in ("GET", "HEAD") and response.status_code < 400 else logging.INFO
    route = getattr(request.scope.get("route"), "path", "-")
    model = request.path_params.get("model", "")
    logger.log(level, "%s %s %s %d %.2fs", request.method, route, model, response.status_code, time.monotonic() - began)
    return response


def _refusal(error: Exception) -> Response:
    """Return the answer to a request that cannot be done: the reason in a line, for what the client can do about."""
    said = " ".join(str(error).split())
    if isinstance(error, StarletteHTTPException):
        status, said = error.status_code, str(error.detail)
    elif isinstance(error, requests.HTTPError) and error.response is not None:
        status, said = 502, f"The DICOMweb archive refused the request (status {error.response.status_code})."
    elif isinstance(error, requests.RequestException):
        status, said = 502, "The DICOMweb archive does not answer."  # its text holds the URL, with UIDs
    elif isinstance(error, PermissionError):
        status = 403
    elif isinstance(error, FileNotFoundError):
        status = 404
    elif isinstance(error, ImportError):
        status = 501
    elif isinstance(error, ValueError):
        status = 400
    else:
        status, said = 500, "This failed for a reason that was not foreseen; the server's log says where."
        where = "".join(traceback.format_tb(error.__traceback__)[-5:])  # without the message: it may name a patient
        logger.error("%s\n%s", type(error).__name__, where)
    return JSONResponse({"detail": said}, status, {"x-said": _ascii(said)})
