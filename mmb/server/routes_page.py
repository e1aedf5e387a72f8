"""The server's own page, on which a study is dropped, and ``POST /segment/<model>``, the same in one request."""

import asyncio
import io
import shutil
import statistics
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from starlette.concurrency import run_in_threadpool

from mmb.clinic.study import RESULTS
from mmb.server.answers import Served, file_response, require_client
from mmb.server.app import App
from mmb.server.errors import refusal
from mmb.server.guard import OWN_PAGE, RESULT_PAGE
from mmb.server.limits import FORM_FILES, KEPT_SECONDS, READ_BYTES, READ_SECONDS
from mmb.server.options import SegmentOptions
from mmb.server.upload_reading import is_zip, require_sequences
from mmb.server.upload_store import BUSY, Upload
from mmb.server.worker import Wanted, Worker

STATIC = Path(__file__).with_name("static")
FILES = "/studies/{study}/files"
PACKED = {"results.zip": "*", "dicom.zip": "*.dcm"}  # names under which the page asks for several files of a result
CHUNK = 1 << 20
SHOWN = ("state", "step", "told", "recognised", "asked", "seconds")  # attributes of an `Upload` that the page shows

router = APIRouter()
_running: set[asyncio.Task] = set()
"""The segmentations under way; the loop itself holds tasks weakly."""


@router.api_route("/", methods=["GET", "HEAD"])
def page() -> Response:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers={"content-security-policy": OWN_PAGE})


@router.get("/studies")
def own(app: Served) -> dict[str, list[str]]:
    """List the studies in the server's folder."""
    return {"studies": app.datastore.list_images()}


@router.post("/studies")
async def new(app: Served, image: str | None = None) -> dict[str, str]:
    """Make room for a study; ``image`` is one in the server's folder, of which a copy is made."""
    name, upload = app.uploads.new()
    _expire_later(app)
    if image is not None:
        try:
            with upload.in_use():
                await run_in_threadpool(app.copy_own, image, upload)
        except BaseException:  # it keeps no place
            app.uploads.remove(name)
            raise
    return {"study": name}


@router.put(FILES)
async def receive(request: Request, app: Served, study: str, name: str) -> dict[str, Any]:
    """Receive a file of a study."""
    await _idle(app, study).receive(request.stream(), name, _announced(request))
    return {}


@router.post("/studies/{study}/read")
async def read(app: Served, study: str) -> dict[str, Any]:
    """Say what is in a study; see `recognise_upload`."""
    upload = _idle(app, study)
    return await _recognised(app, upload, upload.require_wanted)


@router.post("/studies/{study}/segment/{model}", status_code=202)
async def start(app: Served, study: str, model: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Begin to segment a study."""
    upload, options = _idle(app, study), app.segment_options.model_validate(asked)
    app.model(model)
    if upload.recognised:
        require_sequences(upload.recognised, options.series or {}, options.modalities)
    shutil.rmtree(upload.results, ignore_errors=True)
    upload.told, upload.state, upload.cancelled, upload.asked = None, "waiting", False, {**asked, "model": model}

    async def work() -> None:
        try:
            facts = await _segment(app, model, upload, options, False, upload.require_wanted)
            upload.told = {"answer": facts["answer"], "warnings": facts["warnings"], **facts["shown"]}
            upload.state = "done"
        except Exception as error:
            upload.told, upload.state = refusal(error).detail, "received" if upload.cancelled else "failed"

    task = asyncio.create_task(work())
    _running.add(task)
    task.add_done_callback(_running.discard)
    _expire_later(app)
    return {}


@router.get("/studies/{study}")
async def state(app: Served, study: str, brief: bool = False) -> dict[str, Any]:
    """Say how far a study is, and what of it the page shows; if ``brief``, of what was recognised only whether."""
    upload = app.uploads[study]
    told = {name: getattr(upload, name) for name in SHOWN} | {"files": upload.files()}
    return told | ({"recognised": upload.recognised is not None} if brief else {})


@router.post("/studies/{study}/cancel")
async def cancel(app: Served, study: str) -> dict[str, Any]:
    """Stop the segmentation of a study, or take it out of the queue; the study stays."""
    app.uploads[study].cancelled = True
    return {}


@router.get("/studies/{study}/{name}")
def result(app: Served, study: str, name: str) -> Response:
    """Return a file of a result, or all."""
    upload = app.uploads[study]
    with suppress(FileNotFoundError):  # the study may be removed meanwhile
        if name in PACKED and upload.state == "done":
            return _zipped(upload.results, name)
        if name in upload.files() and upload.state == "done":
            answer = file_response(upload.results / name)
            if name == RESULTS["summary"]:
                answer = HTMLResponse(answer.body, headers={"content-security-policy": RESULT_PAGE})
            answer.headers["cache-control"] = "no-store"
            return answer
    raise HTTPException(404, "The study has no such result.")


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
    name, upload = app.uploads.new(in_one=True)
    waits = partial(require_client, request)
    try:
        await _receive(request, upload)
        found = await _recognised(app, upload, waits)  # unpacks it; what is no study waits for no turn
        require_sequences(found, asked.series or {}, asked.modalities)
        await _segment(app, model, upload, asked, True, waits)
        return await run_in_threadpool(_zipped, upload.results, "results.zip")
    finally:
        await run_in_threadpool(app.uploads.remove, name)


def _expire_later(app: App) -> None:
    asyncio.get_running_loop().call_later(KEPT_SECONDS + 1, app.uploads.expire)


def _idle(app: App, study: str) -> Upload:
    upload = app.uploads[study]
    if upload.state in BUSY:
        raise HTTPException(409, "The study is being read or segmented; wait until that is done.")
    return upload


async def _recognised(app: App, upload: Upload, require_wanted: Wanted) -> dict[str, Any]:
    upload.state, reader = "reading", Worker("read", READ_SECONDS, READ_BYTES)
    with upload.in_use(), closing(reader):
        try:
            upload.recognised = await app.reading.do(
                app.recognise_upload, reader, upload.folder, stop=reader.close, require_wanted=require_wanted
            )
        finally:
            upload.measure()
            upload.state = "received"
    return upload.recognised or {}


async def _segment(
    app: App, model: str, upload: Upload, asked: SegmentOptions, send: bool, require_wanted: Wanted
) -> dict[str, Any]:
    def note_step(step: str) -> None:
        upload.step = step

    def note_place(before: int) -> None:
        others = "one study is" if before == 1 else f"{before} studies are"
        upload.step, upload.seconds = f"Waiting: {others} before this one", took and took * (before + 1)

    def work() -> dict[str, Any]:
        began, upload.state, upload.step, upload.seconds = time.monotonic(), "running", "Starting", took
        facts = task(upload.folder, asked, app.send if send else None, note_step)
        app.took.append(time.monotonic() - began)
        return facts

    task, took = app.model(model).segment_upload, statistics.median(app.took) if app.took else None
    upload.state, upload.step = "waiting", ""
    with upload.in_use():
        return await app.segmenting.do(work, stop=app.worker.close, require_wanted=require_wanted, on_wait=note_place)


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


def _zipped(folder: Path, name: str) -> Response:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.glob(PACKED[name])):
            packed.write(path, path.name)
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(content.getvalue(), media_type="application/zip", headers=headers)
