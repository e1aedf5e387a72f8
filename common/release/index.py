"""Where packages are found: an index file beside them lists name, version, size and SHA-256 of each."""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from common.io.files import replacing, require_writable
from common.io.fingerprint import file_digest
from common.release.package import VERSION, place_package, read_manifest

INDEX = "index.json"
CHUNK = 1 << 20
"""Bytes that are read at a time."""
TIMEOUT = 60
"""Seconds without an answer after which a download fails."""


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


def download_bundle(name: str, index: str, output_dir: str | os.PathLike, version: str | None = None) -> Path:
    """Fetch a package that an index lists, check it, and place the bundle's folder; return that.

    Nothing is placed unless the zip has the size and the SHA-256 of the index, and each file those of its manifest.

    Args:
        name: of the bundle, e.g. ``m3ae``.
        index: URL (http, https) or path of the index; the packages' URLs in it may be relative to it.
        output_dir: where the bundle's folder is placed; made if need be.
        version: e.g. ``0.1.0``; None: the newest.

    Raises:
        ConnectionError: the index or the package cannot be fetched.
        ValueError: there is no such bundle or version; the index, or what was fetched, is damaged.
        FileExistsError: there is something else of the bundle's name.
    """
    address = index if urlsplit(index).scheme in ("http", "https") else Path(index).resolve().as_uri()
    entry = _select(_read_index(address), index, name, version)
    url, expected = urljoin(address, entry["url"]), (entry["size"], entry["sha256"])
    if urlsplit(url).scheme not in ("https", urlsplit(address).scheme):
        raise ValueError(f"{index}: the URL of {name} is {url}; expected https, or a file beside the index.")
    folder = require_writable(output_dir)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
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


def _read_index(address: str) -> list[dict[str, Any]]:
    with _open_url(address) as response:
        content = response.read()
    try:
        entries = json.loads(content)
        kinds = {"name": str, "version": str, "sha256": str, "size": int, "url": str}
        usable = all(isinstance(entry[key], kind) for entry in entries for key, kind in kinds.items())
        usable = usable and all(VERSION.fullmatch(entry["version"]) and entry["size"] > 0 for entry in entries)
    except (KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"{address}: no index of packages as `python -m tools package` writes it.")
    return entries


def _select(entries: list[dict[str, Any]], index: str, name: str, version: str | None) -> dict[str, Any]:
    """Return the entry of a name and version; None is the newest version."""
    fitting = [entry for entry in entries if entry["name"] == name and version in (None, entry["version"])]
    if not fitting:
        there = ", ".join(sorted(f"{entry['name']} {entry['version']}" for entry in entries)) or "nothing"
        raise ValueError(f"{index}: no {name}{'' if version is None else f' {version}'}; it lists {there}.")
    return max(fitting, key=lambda entry: [int(number) for number in entry["version"].split(".")])


def _download(url: str, path: Path, size: int) -> None:
    """Fetch a file, but not more than one byte over its size, so that what is too long is seen."""
    with _open_url(url) as response, path.open("wb") as file, tqdm(total=size, unit="B", unit_scale=True) as progress:
        while chunk := response.read(min(CHUNK, size + 1 - progress.n)):
            file.write(chunk)
            progress.update(len(chunk))


@contextmanager
def _open_url(url: str) -> Iterator[Any]:
    """Open a URL, and say of whatever goes wrong on the way which one it is."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            yield response
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{url}: cannot be fetched ({error or type(error).__name__}).") from error
