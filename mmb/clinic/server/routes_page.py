"""The server's own page, on which a study is dropped, and ``POST /segment/<model>``, the same in one request."""

import asyncio
import io
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from mmb.clinic.server.answers import Served
from mmb.clinic.server.app import App
from mmb.clinic.server.errors import refusal
from mmb.clinic.server.guard import OWN_PAGE, RESULT_PAGE
from mmb.clinic.server.limits import FORM_FILES, KEPT_SECONDS
from mmb.clinic.server.options import SegmentOptions
from mmb.clinic.server.upload_reading import is_zip
from mmb.clinic.server.upload_store import BUSY, GONE, Upload
from mmb.clinic.study.predict import RESULTS

STATIC = Path(__file__).with_name("static")
FILES = "/studies/{study}/files"
ALL = "results.zip"  # name under which the page asks for all files of a result
CHUNK = 1 << 20

router = APIRouter()
_running: set[asyncio.Task] = set()
"""The segmentations under way; the loop itself holds tasks weakly."""


@router.get("/")
def page() -> Response:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers={"content-security-policy": OWN_PAGE})


@router.post("/studies")
async def new(app: Served) -> dict[str, str]:
    """Make room for a study."""
    name, _ = app.uploads.new()
    _expire_later(app)
    return {"study": name}


@router.put(FILES)
async def receive(request: Request, app: Served, study: str, name: str) -> dict[str, Any]:
    """Receive a file of a study."""
    await _idle(app, study).receive(request.stream(), name, _announced(request))
    return {}


@router.post("/studies/{study}/read")
async def read(app: Served, study: str) -> dict[str, Any]:
    """Say what is in a study; see `recognise_upload`."""
    return await _recognised(app, _idle(app, study))


@router.post("/studies/{study}/segment/{model}", status_code=202)
async def start(app: Served, study: str, model: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Begin to segment a study."""
    upload, options = _idle(app, study), app.segment_options.model_validate(asked)
    app.model(model)
    shutil.rmtree(upload.results, ignore_errors=True)
    upload.told, upload.state = None, "waiting"

    async def work() -> None:
        try:
            facts = await _segment(app, model, upload, options, False)
            upload.told = {name: facts[name] for name in ("answer", "warnings")}
            upload.state = "done"
        except Exception as error:
            upload.told, upload.state = refusal(error).detail, "failed"

    task = asyncio.create_task(work())
    _running.add(task)
    task.add_done_callback(_running.discard)
    _expire_later(app)
    return {}


@router.get("/studies/{study}")
async def state(app: Served, study: str) -> dict[str, Any]:
    """Say how far a study is."""
    upload = app.uploads[study]
    return {"state": upload.state, "step": upload.step, "told": upload.told, "files": upload.files()}


@router.get("/studies/{study}/{name}")
def result(app: Served, study: str, name: str) -> Response:
    """Return a file of a result, or all."""
    upload = app.uploads[study]
    if name == ALL and upload.state == "done":
        return _zipped(upload.results)
    if name not in upload.files() or upload.state != "done":
        raise HTTPException(404, "The study has no such result.")
    if name == RESULTS["summary"]:
        headers = {"content-security-policy": RESULT_PAGE, "cache-control": "no-store"}
        return FileResponse(upload.results / name, headers=headers)
    return FileResponse(upload.results / name, filename=name, headers={"cache-control": "no-store"})


@router.delete("/studies/{study}")
async def remove(app: Served, study: str) -> dict[str, Any]:
    """Remove a study and its results."""
    await run_in_threadpool(app.uploads.remove, study)
    return {}


@router.post("/segment/{model}")
async def segment_files(request: Request, app: Served, model: str) -> Response:
    """Segment the study in the body; `SegmentOptions` stand in the address."""
    app.model(model)
    asked = app.segment_options.model_validate(dict(request.query_params))
    name, upload = app.uploads.new()
    try:
        await _receive(request, upload)
        await _recognised(app, upload)  # unpacks it, and refuses what is no study before it waits for its turn
        await _segment(app, model, upload, asked, True)
        return await run_in_threadpool(_zipped, upload.results)
    finally:
        await run_in_threadpool(app.uploads.remove, name)


def _expire_later(app: App) -> None:
    asyncio.get_running_loop().call_later(KEPT_SECONDS + 1, app.uploads.expire)


def _idle(app: App, study: str) -> Upload:
    upload = app.uploads[study]
    if upload.state in BUSY:
        raise HTTPException(409, "The study is being read or segmented; wait until that is done.")
    return upload


async def _recognised(app: App, upload: Upload) -> dict[str, Any]:
    upload.state = "reading"
    try:
        async with app.reading:
            return await run_in_threadpool(app.recognise_upload, upload.folder)
    finally:
        upload.measure()
        upload.state = "received"
        app.uploads.release(upload)


async def _segment(app: App, model: str, upload: Upload, asked: SegmentOptions, send: bool) -> dict[str, Any]:
    def note_step(step: str) -> None:
        upload.step = step

    task = app.model(model).segment_upload
    upload.state, upload.step = "waiting", "Waiting until the studies before this one are done"
    try:
        async with app.segmenting:
            if upload not in app.uploads:  # its tab was closed while it waited
                raise FileNotFoundError(GONE)
            upload.state = "running"
            return await run_in_threadpool(task, upload.folder, asked, app.send if send else None, note_step)
    finally:
        app.uploads.release(upload)


async def _receive(request: Request, upload: Upload) -> None:
    """Receive a study as the body of a request: a zip, or a form with files."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        await upload.receive(request.stream(), "study.zip", _announced(request))
        if not is_zip(upload.study / "study.zip"):
            raise ValueError("The body is no zip; send a zip of the study, or a form with its files.")
        return
    upload.require_room(2 * _announced(request))  # the form is kept in a temporary file while its files are written
    async with request.form(max_files=FORM_FILES, max_fields=FORM_FILES) as form:
        for _, file in form.multi_items():
            if isinstance(file, str):
                raise ValueError("The form has a field that is no file; options stand in the address, after ?.")
            await upload.receive(_pieces(file.read), file.filename or "")


def _announced(request: Request) -> int:
    """Return the size of a request's body in bytes, as far as it says so."""
    return int(request.headers.get("content-length", 0))


async def _pieces(read: Callable[[int], Any]) -> AsyncIterator[bytes]:
    while piece := await read(CHUNK):
        yield piece


def _zipped(folder: Path) -> Response:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.iterdir()):
            packed.write(path, path.name)
    headers = {"content-disposition": f'attachment; filename="{ALL}"', "cache-control": "no-store"}
    return Response(content.getvalue(), media_type="application/zip", headers=headers)
