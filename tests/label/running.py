"""A server of the app as a process of its own, as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests
from orthanc import free_port

ROOT = Path(__file__).parents[2]


@contextmanager
def server(folder: Path, studies: str | Path | None, **conf: str | None) -> Iterator[str]:
    """Run a server of the phantom's weights; yields its address.

    Args:
        folder: gets ``server.log``, ``output`` for trainings, and ``tmp`` for the server's temporary files.
        studies: see `label.server.serve`.
        conf: further options of it; None: not given.
    """
    port = free_port()
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    options = {"studies": studies, "port": port, "output_dir": folder / "output", "recipe": "phantom", **conf}
    command = [sys.executable, "-m", "label.server", *_words(options)]
    settings = {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "server.log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _words(options: Mapping[str, object]) -> list[str]:
    return [f"--{key}={value}" for key, value in options.items() if value is not None]


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < until:
        try:
            requests.get(f"{url}/info/", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.2)
    raise RuntimeError(f"The server did not start:\n{log.read_text()}")
