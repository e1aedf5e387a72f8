"""OHIF with MONAI Label's panel, for an archive, and its requests to the archive."""

import importlib.util
from mimetypes import guess_type
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Scope

from mmb.server.answers import Served
from mmb.server.archive import forward
from mmb.server.guard import VIEWER

router, without_archive = APIRouter(), APIRouter()
NO_ARCHIVE = "OHIF needs a DICOMweb archive, but the studies are in a folder; use 3D Slicer."


@without_archive.get("/ohif/{path:path}")
def no_viewer(path: str) -> None:
    """Say why there is no viewer."""
    raise HTTPException(404, NO_ARCHIVE)


@router.get("/proxy/dicom/{service}/{path:path}")
@router.post("/proxy/dicom/{service}/{path:path}")
async def proxy(request: Request, app: Served, service: Literal["wado", "qido", "stow"], path: str) -> Response:
    """Pass a WADO, QIDO or STOW request of the viewer on to the archive, which has one address for all."""
    if app.archive is None:
        raise HTTPException(404, NO_ARCHIVE)
    query, body = request.query_params.multi_items(), await request.body()
    return await run_in_threadpool(
        forward, app.session, app.archive, request.method, path, query, request.headers, body
    )


def ohif_folder() -> Path:
    """Return the folder of OHIF with MONAI Label's panel, which only MONAI Label's package contains."""
    package = importlib.util.find_spec("monailabel")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("OHIF is not installed: pip install --no-deps monailabel==0.8.5.")
    return Path(package.submodule_search_locations[0], "endpoints", "static", "ohif")


class Viewer(StaticFiles):
    """OHIF's files with our configuration; other paths are pages that its script creates.

    It was built for ``/ohif/``, which stands in a few of its files; there the token is put before it.
    """

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__(directory=folder)
        self._here = f"/{token}/ohif/".encode() if token else b"/ohif/"
        pages = [path for path in folder.iterdir() if path.suffix in (".js", ".html")]
        self._moved = {path.name: path for path in pages if b"/ohif/" in path.read_bytes()}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or OHIF's own page for a path that is none."""
        response = await self._file(path, scope)
        response.headers["content-security-policy"] = VIEWER
        return response

    async def _file(self, path: str, scope: Scope) -> Response:
        if path == "app-config.js":
            return FileResponse(Path(__file__).with_name(path), headers={"cache-control": "no-cache"})
        if path in self._moved:
            content = self._moved[path].read_bytes().replace(b"/ohif/", self._here)
            return Response(content, media_type=guess_type(path)[0])
        try:
            return await super().get_response(path, scope)
        except StarletteHTTPException as error:
            if error.status_code != 404 or Path(path).suffix:
                raise
            return await self._file("index.html", scope)
