"""What MONAI Label's clients use of its interface: 3D Slicer and scripts.

Clients cannot replace weights, read logs or other files, or delete studies.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from urllib3 import encode_multipart_formdata

from mmb.server.answers import MESSAGE, Served, as_header, file_response, in_turn, read_in_turn, written
from mmb.server.app import App
from mmb.server.options import InferOptions, LabelParams, Segment
from mmb.server.worker import Worker

router = APIRouter()


@router.get("/info/")
def info(app: Served) -> dict[str, Any]:
    """Describe the server, its models and its store."""
    return app.info()


@router.post("/infer/{model}")
async def infer(
    request: Request,
    app: Served,
    model: str,
    image: str,
    params: Annotated[str, Form()] = "{}",
    output: Literal["image", "json", "dicom_seg", "all"] = "all",
) -> Response:
    """Segment a study of the store; ``params`` are `InferOptions` as JSON."""
    if "params" not in await request.form() and request.headers.get("content-length", "0") != "0":
        raise ValueError('The body has no form field params; expected one with the options as JSON: {"use_t1": false}.')
    asked = app.infer_options.model_validate_json(params or "{}")
    return await in_turn(app.segmenting, request, app.worker.close, _infer, app, model, image, asked, output)


@router.post("/activelearning/{strategy}")
def next_sample(app: Served, strategy: str) -> dict[str, Any]:
    """Name a study without a final label."""
    return app.next_sample(strategy)


@router.get("/datastore/")
def datastore(app: Served, output: str = "stats") -> dict[str, Any]:
    """Count or list the studies and their labels."""
    store = app.datastore
    return store.json() if output == "all" else store.status()


@router.get("/datastore/image")
async def image(request: Request, app: Served, image: str) -> Response:
    """Return a study's reference volume."""
    return await read_in_turn(app.fetching, request, written, app.image, image)


@router.get("/datastore/label")
async def label(request: Request, app: Served, label: str, tag: str = "final") -> Response:
    """Return a study's newest label map."""
    return await read_in_turn(app.fetching, request, written, app.label, label, tag)


@router.put("/datastore/label")
async def save_label(
    request: Request,
    app: Served,
    image: str,
    label: Annotated[UploadFile, File()],
    tag: str = "final",
    params: Annotated[str, Form()] = "{}",
) -> Response:
    """Store a label map that a person has approved; ``params`` are `LabelParams` as JSON."""
    info = LabelParams.model_validate_json(params or "{}").label_info
    return await read_in_turn(app.fetching, request, _save_label, app.save_label, image, label, tag, info)


def _save_label(
    save: Callable[..., Any], reader: Worker, image: str, label: UploadFile, tag: str, info: Sequence[Segment] | None
) -> Response:
    with TemporaryDirectory() as folder:
        path = Path(folder, "sent")  # the client's file name is ignored
        with path.open("wb") as file:
            shutil.copyfileobj(label.file, file)
        return JSONResponse(save(reader, image, path, tag, info))


def _infer(app: App, model: str, image: str, asked: InferOptions, output: str) -> Response:
    with TemporaryDirectory() as folder:  # gone before the answer is sent
        result = app.model(model).segment_image(app.datastore, image, asked, Path(folder))
        params = result["params"]
        if output == "json":
            response: Response = JSONResponse(params)
        elif output == "image":
            response = file_response(result["file"])
        elif output == "dicom_seg":
            if result["dicom_seg"] is None:
                otherwise = ["There is no DICOM SEG: nothing was found, or the study is not DICOM."]
                no_seg = [each["text"] for each in params["remarks"] if each["code"] == "no_seg"]
                raise HTTPException(404, (no_seg or otherwise)[0])
            response = file_response(result["dicom_seg"])
        else:
            file = result["file"]
            parts = {"params": (None, json.dumps(params), "application/json"), "image": (file.name, file.read_bytes())}
            content, kind = encode_multipart_formdata(parts)
            response = Response(content, media_type=kind)
    said = [params["answer"], *(["The result is stored."] if params["stored"] else []), *params["warnings"]]
    response.headers[MESSAGE] = as_header(" ".join(said))
    return response
