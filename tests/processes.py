"""Separate processes that start at once: each is forked from one that has done the ten seconds of imports."""

import http.client
import http.server
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["monai.bundle", "monai.engines", "common.engines"])


def run(work: Callable, *arguments: object, processes: int = 1) -> tuple[int, str]:
    """Call a function in processes that know of each other, like those of torchrun.

    Returns:
        The first exit code that is not 0, or 0; and all that they wrote to stdout and stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        port = free_port()
        started = [
            start(work, *arguments, log=log, **(_torchrun(rank, processes, port) if processes > 1 else {}))
            for rank in range(processes)
        ]
        running = started
        while running and not any(process.exitcode for process in started):
            wait([process.sentinel for process in running])
            running = [process for process in started if process.exitcode is None]
        code = next((process.exitcode for process in started if process.exitcode), 0)
        for process in running:  # a process that waits for one that has failed
            process.kill()
            process.join()
        return code, log.read_text()


def start(work: Callable, *arguments: object, log: Path, **environment: object) -> ForkServerProcess:
    """Start a process that calls a function in the repository's root and writes its output to a file."""
    process = CONTEXT.Process(target=_call, args=(work, arguments, log, environment))
    process.start()
    return process


def run_module(*words: str) -> None:
    """Do as ``python -m`` does."""
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _call(work: Callable, arguments: tuple, log: Path, environment: dict[str, object]) -> None:
    os.environ.update({key: str(value) for key, value in environment.items()})
    os.chdir(ROOT)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    work(*arguments)


def _torchrun(rank: int, processes: int, port: int) -> dict[str, object]:
    """Return the environment that torchrun sets for one of several processes on this machine."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, **address}


@contextmanager
def serving(command: Sequence[str], page: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server that writes its output to a file, and end it; it runs once it answers the request for a page."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(page, timeout=5).close()
                break
            except (OSError, http.client.HTTPException):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"The server did not start:\n{log.read_text()}") from None
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def answering(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests in a thread of this process; yield the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def free_port() -> int:
    """Return a port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python without `site`, which would add, for example, an editable installation of the repository."""
    paths = dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-S", *words], cwd=cwd, env=environment, capture_output=True, text=True)
