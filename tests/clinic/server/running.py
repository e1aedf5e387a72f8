"""The server of the app as a separate process, as users start it, and the most common requests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import requests
from processes import ROOT, free_port, serving

TOKEN = "a-token-of-the-tests"


@contextmanager
def server(folder: Path, studies: str | Path | None, token: str = TOKEN, **conf: str | None) -> Iterator[str]:
    """Run a server with the phantom's weights; yield its address, with its token.

    Args:
        folder: gets ``server.log``, ``output`` for trainings, and ``tmp`` for the server's temporary files.
        studies: see `mmb.verbs.serve.serve`.
        conf: further options of the server; None: not given.
    """
    port = free_port()
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    options = {"studies": studies, "port": port, "output_dir": folder / "output", "recipe": "phantom", "token": token}
    options |= conf
    command = [sys.executable, "-m", "mmb", "serve", *_words(options)]
    settings = {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    url = f"http://127.0.0.1:{port}" + (f"/{token}" if token != "none" else "")
    with serving(command, f"{url}/info/", folder / "server.log", **settings):
        yield url


def infer(url: str, image: str, output: str = "json", model: str = "m3ae", **params: object) -> requests.Response:
    """Request a segmentation; ``params`` are the options."""
    query = {"image": image, "output": output}
    return requests.post(f"{url}/infer/{model}", params=query, data={"params": json.dumps(params)}, timeout=300)


def put(
    url: str, image: str, content: bytes, tag: str = "final", name: str = "label.nii.gz", **params: object
) -> requests.Response:
    """Send a label map; ``params`` are what is said of it."""
    query, form = {"image": image, "tag": tag}, {"params": json.dumps(params)}
    files = {"label": (name, content)}
    return requests.put(f"{url}/datastore/label", params=query, data=form, files=files, timeout=60)


def result(url: str, image: str, path: Path, model: str = "m3ae", **params: object) -> tuple[dict, nib.Nifti1Image]:
    """Return what the server reports on a segmentation, and its label map."""
    answer = infer(url, image, "all", model, **params)
    assert answer.status_code == 200, answer.text
    parts = answer.content.split(b"--" + answer.headers["content-type"].split("boundary=")[1].encode())
    told, mask = (part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts[1:3])
    path.write_bytes(mask)
    return json.loads(told), nib.load(path)


def used(params: Mapping[str, Any]) -> list[str]:
    """Return the modalities that a result was made from."""
    return [each["modality"] for each in params["used"]]


def _words(options: Mapping[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items() if value is not None]
