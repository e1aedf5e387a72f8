"""The server's own page, on which a study is dropped, and ``POST /segment/<model>``, the same in one request."""

import asyncio
import io
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from mmb.clinic.server.app import App
from mmb.clinic.server.errors import refusal
from mmb.clinic.server.guard import OWN_PAGE, RESULT_PAGE
from mmb.clinic.server.limits import FORM_FILES, KEPT_SECONDS
from mmb.clinic.server.upload_reading import is_zip
from mmb.clinic.server.upload_store import BUSY, Upload, Uploads
from mmb.clinic.study.predict import RESULTS

STATIC = Path(__file__).with_name("static")
FILES = "/studies/{study}/files"
ALL = "results.zip"  # name under which the page asks for all files of a result
CHUNK = 1 << 20


def add_page(api: FastAPI, app: App, uploads: Uploads, segmenting: asyncio.Lock, reading: asyncio.Lock) -> None:
    """Add the page's addresses to an interface; studies are read and segmented in the turns of these locks."""
    running: set[asyncio.Task] = set()

    def expire_later() -> None:
        asyncio.get_running_loop().call_later(KEPT_SECONDS + 1, uploads.expire)

    async def recognised(upload: Upload) -> dict[str, Any]:
        upload.state = "reading"
        try:
            async with reading:
                return await run_in_threadpool(app.recognise_upload, upload.folder)
        finally:
            upload.state = "received"
            uploads.release(upload)

    async def segment(model: str, upload: Upload, asked: Mapping[str, Any], send: bool) -> dict[str, Any]:
        def note_step(step: str) -> None:
            upload.step = step

        upload.state, upload.step = "waiting", "Waiting until the studies before this one are done"
        try:
            async with segmenting:
                upload.state = "running"
                return await run_in_threadpool(app.segment_upload, model, upload.folder, asked, send, note_step)
        finally:
            uploads.release(upload)

    @api.get("/")
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"content-security-policy": OWN_PAGE})

    api.mount("/static", StaticFiles(directory=STATIC))

    @api.post("/studies")
    async def new() -> dict[str, str]:
        name, _ = uploads.new()
        expire_later()
        return {"study": name}

    @api.put(FILES)
    async def receive(request: Request, study: str, name: str) -> dict[str, Any]:
        await _idle(uploads[study]).receive(request.stream(), name)
        return {}

    @api.post("/studies/{study}/read")
    async def read(study: str) -> dict[str, Any]:
        return await recognised(_idle(uploads[study]))

    @api.post("/studies/{study}/segment/{model}", status_code=202)
    async def start(study: str, model: str, asked: dict[str, Any]) -> dict[str, Any]:
        upload, _ = _idle(uploads[study]), app.model(model)
        shutil.rmtree(upload.results, ignore_errors=True)
        upload.told, upload.state = None, "waiting"

        async def work() -> None:
            try:
                upload.told = (await segment(model, upload, asked, False))["warnings"]
                upload.state = "done"
            except Exception as error:
                upload.told, upload.state = refusal(error).detail, "failed"

        task = asyncio.create_task(work())
        running.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(running.discard)
        expire_later()
        return {}

    @api.get("/studies/{study}")
    async def state(study: str) -> dict[str, Any]:
        upload = uploads[study]
        return {"state": upload.state, "step": upload.step, "told": upload.told, "files": upload.files()}

    @api.get("/studies/{study}/{name}")
    def result(study: str, name: str) -> Response:
        upload = uploads[study]
        if name == ALL and upload.state == "done":
            return _zipped(upload.results)
        if name not in upload.files() or upload.state != "done":
            raise HTTPException(404, "The study has no such result.")
        if name == RESULTS["summary"]:
            headers = {"content-security-policy": RESULT_PAGE, "cache-control": "no-store"}
            return FileResponse(upload.results / name, headers=headers)
        return FileResponse(upload.results / name, filename=name, headers={"cache-control": "no-store"})

    @api.delete("/studies/{study}")
    async def remove(study: str) -> dict[str, Any]:
        await run_in_threadpool(uploads.remove, study)
        return {}

    @api.post("/segment/{model}")
    async def segment_files(request: Request, model: str) -> Response:
        asked = _options(app, model, request.query_params)
        name, upload = uploads.new()
        try:
            await _receive(request, upload)
            await recognised(upload)  # unpacks it, and refuses what is no study before it waits for its turn
            await segment(model, upload, asked, True)
            return await run_in_threadpool(_zipped, upload.results)
        finally:
            await run_in_threadpool(uploads.remove, name)


def _idle(upload: Upload) -> Upload:
    if upload.state in BUSY:
        raise HTTPException(409, "The study is being read or segmented; wait until that is done.")
    return upload


def _options(app: App, model: str, query: Mapping[str, str]) -> dict[str, str]:
    """Return the options in an address; FileNotFoundError for an unknown model, ValueError for a wrong option."""
    known = {*app.model(model).info()["config"]} - {"store"}
    if unknown := [key for key in query if key not in known]:
        raise ValueError(f"{unknown[0][:50]!r}: no such option; expected some of {', '.join(sorted(known))}.")
    app.model(model).options(query)
    return dict(query)


async def _receive(request: Request, upload: Upload) -> None:
    """Receive a study as the body of a request: a zip, or a form with files."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        await upload.receive(request.stream(), "study.zip")
        if not is_zip(upload.study / "study.zip"):
            raise ValueError("The body is no zip; send a zip of the study, or a form with its files.")
        return
    async with request.form(max_files=FORM_FILES, max_fields=FORM_FILES) as form:
        for _, file in form.multi_items():
            if isinstance(file, str):
                raise ValueError("The form has a field that is no file; options stand in the address, after ?.")
            await upload.receive(_pieces(file.read), file.filename or "")


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
