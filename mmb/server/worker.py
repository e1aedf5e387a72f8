"""Worker processes for tasks that take long or may crash, and the turns in which they are done."""

import asyncio
import atexit
import json
import logging
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from mmb.errors import silence_libraries
from mmb.server.errors import RefusedStudy, refusal

SECONDS = 900  # time limit of one task in seconds
MESSAGE_BYTES = 16 << 20  # maximum size of what a task returns; images are in files
LONGEST = 70  # bytes of a folder's path below which a socket fits: it adds /pymp-******** and /listener-********
LOOK_SECONDS = 0.25  # how often it is looked whether somebody still waits for a task
CONTEXT = multiprocessing.get_context("forkserver")
Wanted = Callable[[], Awaitable[None]]  # raises an error if nobody waits for a task any more


_to_server: list[Connection] = []
"""The connection of this process, if it is a worker's."""


class Worker:
    """A process that runs functions, one at a time, while the server answers other requests.

    A thread would not do: registration holds Python's global lock all the time, and an abort in a library that decodes
    images ends the whole process. The worker starts when it is first needed, and again after it has died. It has its
    own folder for temporary files, which is removed with it. It ends with the server, however that ends. ``done`` says
    in messages what it does with a study, as a participle, e.g. ``read``; a task may take ``seconds``, and its process
    ``memory`` bytes (None: all there is).

    It answers in JSON, since a damaged image might have taken it over: what it sends is data, never code.
    """

    def __init__(self, done: str, seconds: float = SECONDS, memory: int | None = None) -> None:
        self.done, self.seconds, self.memory = done, seconds, memory
        self._one_at_a_time = Lock()
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(
        self, function: Callable[..., Any], *arguments: Any, on_progress: Callable[[Any], None] | None = None
    ) -> Any:
        """Run a function in the worker; its error becomes a `refusal`, its death or too long a run status 503.

        What it returns has to be JSON; ``on_progress`` is called with whatever it gives to `report_progress` meanwhile.
        """
        with self._one_at_a_time:
            if self._process is None:
                self._start()
            end = time.monotonic() + self.seconds
            try:
                self._connection.send((function, arguments))
                while True:
                    if not self._connection.poll(max(0.0, end - time.monotonic())):
                        what = f"The task exceeded the limit of {self.seconds:g} s and was stopped"
                        files = " and ".join(self._open_files())
                        raise HTTPException(503, f"{what}{files and f' at {files}; leave that file out'}.")
                    kind, content = json.loads(self._connection.recv_bytes(MESSAGE_BYTES))
                    if kind != "progress":
                        break
                    if on_progress:
                        on_progress(content)
            except (EOFError, ConnectionError):
                raise HTTPException(503, self._say_how_it_died()) from None
            except BaseException:
                self.close()
                raise
        if kind == "refused":
            status, detail, record = content
            raise RefusedStudy(status, detail, record) if record else HTTPException(status, detail)
        return content

    def close(self) -> None:
        """Kill the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
            self._folder.cleanup()
            atexit.unregister(self.close)

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="worker-", ignore_cleanup_errors=True)
        self._connection, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(theirs, self._folder.name, self.memory))
        process.start()
        theirs.close()  # so that this process notices its end
        self._process = process
        atexit.register(self.close)

    def _open_files(self) -> list[str]:
        """Return the names of the files of a study that the process holds open, as far as the system tells."""
        held = Path(f"/proc/{self._process and self._process.pid}/fd")
        try:
            paths = [each.readlink() for each in held.iterdir()]
        except OSError:
            return []
        return [path.name for path in paths if path.is_relative_to(tempfile.gettempdir())]

    def _say_how_it_died(self) -> str:
        process = self._process
        if process is None:
            return "The server is being stopped."
        process.join()
        self.close()
        code = process.exitcode or 0
        ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        cause = "memory may not suffice" if code == -signal.SIGKILL else "one of its images may be damaged"
        return f"The study could not be {self.done}: the process that does it ended ({ended}); {cause}."


def _serve(connection: Connection, folder: str, memory: int | None) -> None:
    """Run the functions that arrive through a connection until it is closed."""
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the server ends this one
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    silence_libraries()
    _to_server.append(connection)
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = json.dumps(["returned", function(*arguments)])
        except Exception as error:
            refused = refusal(error)
            answer = json.dumps(["refused", (refused.status_code, refused.detail, getattr(refused, "record", None))])
        connection.send_bytes(answer.encode())


def report_progress(what: Any) -> None:
    """Tell the server of a task's progress, in JSON; without a worker nobody hears it."""
    for connection in _to_server:
        connection.send_bytes(json.dumps(["progress", what]).encode())


def _end_with(server: multiprocessing.process.BaseProcess) -> None:
    server.join()
    os._exit(1)


def prepare(modules: list[str]) -> None:
    """Start what workers are forked from, so that each starts at once: it imports modules, and holds no study.

    The path of its socket may have 107 bytes. If the folder for temporary files has a long path, it lies in ``/tmp``.
    """
    CONTEXT.set_forkserver_preload(modules)
    usual = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST:
        tempfile.tempdir = "/tmp"
    forkserver.ensure_running()
    tempfile.tempdir = usual


class Turns:
    """The turns in which tasks are done, a few at a time. Who is gone leaves the queue; what is done for it ends."""

    def __init__(self, places: int = 1) -> None:
        self._places, self._free = places, asyncio.Semaphore(places)
        self._waiting: dict[asyncio.Future, None] = {}

    async def do(
        self,
        work: Callable[..., Any],
        *asked: Any,
        stop: Callable[[], None],
        require_wanted: Wanted,
        on_wait: Callable[[int], None] = lambda before: None,
    ) -> Any:
        """Return what a function, in a thread, returns.

        ``require_wanted`` raises an error if nobody waits for it any more, which then ends it by ``stop``; ``on_wait``
        hears how many are before it.
        """
        turn = asyncio.ensure_future(self._free.acquire())
        self._waiting[turn] = None
        try:
            await asyncio.sleep(0)  # if nobody is before it, its turn has come now
            while not turn.done():
                on_wait([*self._waiting].index(turn) + self._places)
                await asyncio.wait({turn}, timeout=LOOK_SECONDS)
                await require_wanted()
            self._waiting.pop(turn)
            await require_wanted()
            doing = asyncio.ensure_future(run_in_threadpool(work, *asked))
            try:
                while not (await asyncio.wait({doing}, timeout=LOOK_SECONDS))[0]:
                    await require_wanted()
            finally:
                while not doing.done():
                    await run_in_threadpool(stop)
                    await asyncio.wait({doing}, timeout=LOOK_SECONDS)
                doing.cancelled() or doing.exception()  # else asyncio logs it
            return doing.result()
        finally:
            self._waiting.pop(turn, None)
            if not turn.cancel():
                self._free.release()
