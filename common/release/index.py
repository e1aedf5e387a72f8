"""Where packages are found: an index file beside them lists name, version, size and SHA-256 of each."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from common.io.files import replacing, require_writable
from common.io.fingerprint import file_digest
from common.io.lock import scratch_folder
from common.release.limits import LISTING_SIZE, PACKAGE_SIZE, PATIENCE, SLOWEST
from common.release.package import VERSION, place_package, read_manifest

INDEX = "index.json"
CHUNK = 1 << 20
"""Bytes that are read at a time."""


def write_index(folder: str | os.PathLike) -> Path:
    """Write ``index.json`` of all packages in a folder; return its path.

    Raises:
        ValueError: a zip there is no package.
    """
    entries = []
    for package in sorted(Path(folder).glob("*_v*.zip")):
        manifest = read_manifest(package)
        entry = {"name": manifest["bundle"], "version": manifest["version"], "file": package.name}
        entry |= {"sha256": file_digest(package), "size": package.stat().st_size, "url": package.name}
        entries.append(entry)
    index = Path(folder, INDEX)
    with replacing(index) as temporary:
        temporary.write_text(json.dumps(entries, indent=1))
    return index


def download_bundle(
    name: str,
    index: str,
    output_dir: str | os.PathLike,
    version: str | None = None,
    sha256: str | None = None,
    allow_http: bool = False,
) -> Path:
    """Fetch a package that an index lists, check it, and place the bundle's folder; return that.

    Nothing is placed unless the zip has the size and the SHA-256 of the index, and each file those of its manifest.
    What it may cost is in `common.release.limits`. A bundle is code, and these checks are as good as the index: it
    comes by https, and ``sha256`` says that it is the one that was published.

    Args:
        name: of the bundle, e.g. ``m3ae``.
        index: URL or path of the index; the packages' URLs in it may be relative to it.
        output_dir: where the bundle's folder is placed; made if need be.
        version: e.g. ``0.1.0``; None: the newest.
        sha256: of the index; None: it is not checked.
        allow_http: take an index, and its packages, by http too.

    Raises:
        ConnectionError: the index or the package cannot be fetched.
        ValueError: there is no such bundle or version; the index, or what was fetched, is damaged, too large, another
            one or comes by http.
        FileExistsError: there is something else of the bundle's name.
        BlockingIOError: another process downloads it to the same place.
    """
    scheme = _scheme(index)
    if scheme == "http" and not allow_http:
        raise ValueError(
            f"{index}: what comes by http can be changed on its way, and a bundle is code; expected https. If you "
            "trust the network, give --allow_http."
        )
    address = index if scheme in ("http", "https") else Path(index).resolve().as_uri()
    content = b"".join(_fetch(address, LISTING_SIZE))
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(
            f"{index}: has SHA-256 {digest}; expected {sha256}. It is another version of the index, or was changed: "
            "ask whoever published it."
        )
    entry = _select(_read_index(content, index), index, name, version)
    try:
        url = urljoin(address, entry["url"])
    except ValueError as error:
        raise ValueError(f"{index}: the URL of {name} is {entry['url']}, which is none ({error}).") from error
    expected = entry["size"], entry["sha256"]
    if _scheme(url) not in ("https", _scheme(address)):
        raise ValueError(f"{index}: the URL of {name} is {url}; expected https, or a file beside the index.")
    folder = require_writable(output_dir)
    with scratch_folder(folder, f"{name}.download", f"a download of {name}") as temporary:
        package = Path(temporary, f"{name}_v{entry['version']}.zip")
        _download(url, package, entry["size"])
        found = package.stat().st_size, file_digest(package)
        if found != expected:
            raise ValueError(
                f"{url}: {found[0]} bytes with SHA-256 {found[1]}, but {index} says {expected[0]} and {expected[1]}. "
                "It was cut off or changed: try again, or ask whoever published it."
            )
        manifest = read_manifest(package)
        if (manifest["bundle"], manifest["version"]) != (name, entry["version"]):
            raise ValueError(f"{url}: a package of {manifest['bundle']} {manifest['version']}, listed as another one.")
        return place_package(package, folder)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise ValueError(f"{url}: no URL ({error}).") from error


def _read_index(content: bytes, index: str) -> list[dict[str, Any]]:
    """Return the entries of an index, in which all is that is asked of it, and nothing that a terminal would obey."""
    if len(content) > LISTING_SIZE:
        raise ValueError(f"{index}: more than {LISTING_SIZE} bytes, too large for an index of packages.")
    try:
        entries = json.loads(content)
        kinds = {"name": str, "version": str, "sha256": str, "size": int, "url": str}
        usable = isinstance(entries, list)
        usable = usable and all(isinstance(entry[key], kind) for entry in entries for key, kind in kinds.items())
        usable = usable and all(
            entry["name"].isidentifier()
            and VERSION.fullmatch(entry["version"])
            and 0 < entry["size"] <= PACKAGE_SIZE
            and entry["url"].isprintable()
            for entry in entries
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        usable = False
    if not usable:
        raise ValueError(
            f"{index}: no index of packages, of {PACKAGE_SIZE} bytes at most, as `python -m tools package` writes it."
        )
    return entries


def _select(entries: list[dict[str, Any]], index: str, name: str, version: str | None) -> dict[str, Any]:
    """Return the entry of a name and version; None is the newest version."""
    fitting = [entry for entry in entries if entry["name"] == name and version in (None, entry["version"])]
    if not fitting:
        there = ", ".join(sorted(f"{entry['name']} {entry['version']}" for entry in entries)) or "nothing"
        raise ValueError(f"{index}: no {name}{'' if version is None else f' {version}'}; it lists {there}.")
    return max(fitting, key=lambda entry: [int(number) for number in entry["version"].split(".")])


def _download(url: str, path: Path, size: int) -> None:
    with path.open("wb") as file, tqdm(total=size, unit="B", unit_scale=True) as progress:
        for part in _fetch(url, size):
            file.write(part)
            progress.update(len(part))


def _fetch(url: str, most: int) -> Iterator[bytes]:
    """Yield what a URL gives, but not more than one byte over the most, so that what is too long is seen.

    A thread reads it. No library's timeout bounds a server that sends a byte now and then, in its headers too: they
    are all for one wait on the socket.

    Raises:
        ConnectionError: it cannot be fetched, or comes more slowly than `SLOWEST`.
    """
    received: Queue[bytes | Exception] = Queue(maxsize=8)
    threading.Thread(target=_receive, args=(url, most, received), daemon=True).start()
    began, got = time.monotonic(), 0
    while True:
        if (wait := began + PATIENCE - time.monotonic()) <= 0:
            if got < SLOWEST * PATIENCE:
                raise ConnectionError(
                    f"{url}: cannot be fetched ({got} bytes in {PATIENCE} seconds; expected {SLOWEST} a second)."
                )
            began, got, wait = time.monotonic(), 0, PATIENCE
        try:
            part = received.get(timeout=wait)
        except Empty:
            continue
        if isinstance(part, Exception):
            raise ConnectionError(f"{url}: cannot be fetched ({part or type(part).__name__}).") from part
        if not part:
            return
        got += len(part)
        yield part


def _receive(url: str, most: int, received: Queue[bytes | Exception]) -> None:
    """Put the parts of what a URL gives, then nothing, or else what went wrong."""
    left = most + 1
    try:
        with _OPENER.open(url, timeout=PATIENCE) as response:
            while left and (part := response.read1(min(CHUNK, left))):
                left -= len(part)
                received.put(part)
        received.put(b"")
    except Exception as error:  # of the network, of HTTP, of a URL that is none
        received.put(error)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to https, or from http to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise URLError(f"redirected to {newurl}; expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirections)
