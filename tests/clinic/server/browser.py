"""Headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
import websocket

PROGRAM = "/usr/bin/chromium"
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""The viewer draws with WebGL, and there may be no GPU."""


class RefusedError(RuntimeError):
    """The browser refused a call: it shows no dialog, or the page is being replaced by another."""


class Page:
    """A tab."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, suppress_origin=True, timeout=120)
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RefusedError(f"{method}: {message['error']}")
                return message["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:1000])
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true; errors in it, and pages that are just being replaced, are ignored."""
        tried = f"(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(RefusedError):
                if self.evaluate(tried):
                    return
            time.sleep(0.5)
        raise TimeoutError(f"After {seconds} s not true: {expression}")

    def open(self, url: str) -> None:
        """Go to another page and wait until its scripts have run."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def back(self) -> None:
        """Go to the page before; not within the call, which would end with its page."""
        self.evaluate("void setTimeout(() => history.back())")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(folder: Path, width: int = 1400, height: int = 900) -> Iterator[Page]:
    """Run a browser with its profile in a folder; yields an empty tab."""
    profile = folder / "chromium"
    command = [
        PROGRAM, "--headless=new", "--no-sandbox", "--no-first-run", "--remote-debugging-port=0", *SOFTWARE_GL,
        f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank",
    ]  # fmt: skip
    with open(folder / "chromium.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        port = _port(profile / "DevToolsActivePort", process, folder / "chromium.log")
        tabs = requests.get(f"http://127.0.0.1:{port}/json", timeout=30).json()
        page = Page(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        yield page
    finally:
        process.terminate()
        process.wait(30)


def _port(file: Path, process: subprocess.Popen, log: Path) -> int:
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if file.is_file() and (lines := file.read_text().split()):
            return int(lines[0])
        time.sleep(0.1)
    raise RuntimeError(f"Chromium did not start: {log.read_text(errors='replace')[-2000:]}")
