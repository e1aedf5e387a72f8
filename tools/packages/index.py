"""The index of packages: a file beside them that lists name, version, size and SHA-256 of each."""

import hashlib
import json
import os
import threading
import urllib.request
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, BinaryIO
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit

from pydantic import AfterValidator, ConfigDict, Field
from tqdm import tqdm

from common.io.documents import Document, parse_json
from common.io.files import file_digest, replacing, require_writable
from tools.packages.limits import LISTING_SIZE, PACKAGE_SIZE, PATIENCE, SLOWEST
from tools.packages.package import Name, Version, place_package, read_manifest

INDEX = "index.json"
CHUNK = 1 << 20  # number of bytes to read at a time
REMEDY = f"It is not an index of packages of at most {PACKAGE_SIZE} bytes each, as `python -m tools package` writes it."


def _printable(url: str) -> str:
    if not url.isprintable():
        raise ValueError(f"{url!r}; expected a URL without control characters")
    return url


class Listed(Document):
    """A package in an index."""

    model_config = ConfigDict(extra="ignore")
    name: Name
    version: Version
    sha256: str
    size: int = Field(gt=0, le=PACKAGE_SIZE)
    url: Annotated[str, AfterValidator(_printable)]


def write_index(folder: str | os.PathLike) -> Path:
    """Write ``index.json`` for all packages in a folder; return its path."""
    entries = []
    for package in sorted(Path(folder).glob("*_v*.zip")):
        manifest = read_manifest(package)
        entry = {"name": manifest.bundle, "version": manifest.version, "file": package.name}
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
    """Download a package that an index lists, check it, and unpack it; return the bundle's folder.

    The arguments are the options of the verb ``download``, which `tools.download` describes. Nothing is unpacked unless
    the zip file has the size and the SHA-256 of the index, and each file in it those of the manifest. Limits on size
    and time are in `tools.packages.limits`. A bundle is code, and these checks are only as reliable as the index: so it
    has to come by https, and ``sha256`` verifies that it is the published one.

    Raises ConnectionError if the index or the package cannot be fetched; ValueError if what is fetched is not what was
    asked for and listed, or not safe to take; FileExistsError if the output folder already has something else with the
    bundle's name.
    """
    scheme = _scheme(index)
    if scheme == "http" and not allow_http:
        raise ValueError(
            f"{index}: expected https, since a bundle is code, and files that come by http can be changed on the way. "
            "If you trust the network, give --allow_http."
        )
    address = index if scheme in ("http", "https") else Path(index).resolve().as_uri()
    _fetch(address, LISTING_SIZE, listing := BytesIO())
    content = listing.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(
            f"{index}: has SHA-256 {digest}; expected {sha256}. It is another version of the index, or was changed: "
            "ask whoever published it."
        )
    entry = _select(content, index, name, version)
    try:
        url = urljoin(address, entry.url)
    except ValueError as error:
        raise ValueError(f"{index}: the URL of {name}, {entry.url}, is not valid ({error}).") from error
    expected = entry.size, entry.sha256
    if _scheme(url) not in ("https", _scheme(address)):
        raise ValueError(f"{index}: the URL of {name} is {url}; expected https, or a file beside the index.")
    folder = require_writable(output_dir)
    with TemporaryDirectory(prefix=".", dir=folder) as temporary:
        package = Path(temporary, f"{name}_v{entry.version}.zip")
        with package.open("wb") as file, tqdm(total=entry.size, unit="B", unit_scale=True) as progress:
            _fetch(url, entry.size, file, progress)
        found = package.stat().st_size, file_digest(package)
        if found != expected:
            raise ValueError(
                f"{url}: has {found[0]} bytes and SHA-256 {found[1]}; {index} lists {expected[0]} and {expected[1]}. "
                "It was cut off or changed: try again, or ask whoever published it."
            )
        manifest = read_manifest(package)
        if (manifest.bundle, manifest.version) != (name, entry.version):
            raise ValueError(
                f"{url}: is a package of {manifest.bundle} {manifest.version}, but the index lists it as "
                f"{name} {entry.version}. Ask whoever published the index."
            )
        return place_package(package, folder)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise ValueError(f"{url}: not a valid URL ({error}).") from error


def _select(content: bytes, index: str, name: str, version: str | None) -> Listed:
    """Return the entry of a bundle's name and version in an index; None selects the newest version."""
    if len(content) > LISTING_SIZE:
        raise ValueError(f"{index}: exceeds {LISTING_SIZE} bytes, the limit for an index of packages.")
    entries = parse_json(content, list[Listed], index, REMEDY)
    fitting = [entry for entry in entries if entry.name == name and version in (None, entry.version)]
    if not fitting:
        there = ", ".join(sorted(f"{entry.name} {entry.version}" for entry in entries)) or "nothing"
        raise ValueError(f"{index}: no {name}{'' if version is None else f' {version}'}; it lists {there}.")
    return max(fitting, key=lambda entry: [int(number) for number in entry.version.split(".")])


def _fetch(url: str, most: int, into: BinaryIO, progress: tqdm | None = None) -> None:
    """Write the content of a URL, up to one byte beyond the limit ``most``, so that excess is noticed.

    A thread reads it, since libraries' timeouts apply to a single wait on the socket, so that a server that sends a
    byte now and then, in its headers too, would never be timed out.
    """
    failed: list[Exception] = []

    def receive() -> None:
        try:
            with _OPENER.open(url, timeout=PATIENCE) as response:
                while part := response.read1(min(CHUNK, most + 1 - into.tell())):
                    into.write(part)
                    if progress is not None:
                        progress.update(len(part))
        except Exception as error:  # of the network, of HTTP, or of an invalid URL
            failed.append(error)

    thread, before = threading.Thread(target=receive, daemon=True), 0
    thread.start()
    while thread.join(PATIENCE) or thread.is_alive():
        got, before = into.tell() - before, into.tell()
        if got < SLOWEST * PATIENCE:
            raise ConnectionError(
                f"{url}: cannot be fetched ({got} bytes in {PATIENCE} seconds; expected {SLOWEST} per second)."
            )
    for error in failed:
        raise ConnectionError(f"{url}: cannot be fetched ({error or type(error).__name__}).") from error


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https, and from http to http, but refuses all others."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise URLError(f"redirected to {newurl}; expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirections)
