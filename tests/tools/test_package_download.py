"""Packages are downloaded from an index, over a local HTTP server, as users type it."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from processes import answering
from run_tools import run
from small_bundle import write_bundle

from tools.packages import index


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ``/moved/<file>`` redirected; for other files it sends no content type.

    It sends half of the announced content for ``/cut/<file>``, endless content for ``/endless/<file>``, and a byte now
    and then for ``/slow/<file>`` or, in the headers, for ``/late/<file>``. ``/away/<file>`` redirects to an address of
    another scheme.
    """

    def do_GET(self):
        kind, _, name = self.path[1:].partition("/")
        if kind in ("moved", "away"):
            self.send_response(302)
            self.send_header("Location", f"/{name}" if kind == "moved" else f"ftp://127.0.0.1/{name}")
            self.end_headers()
        elif kind in ("endless", "slow", "late"):
            with contextlib.suppress(OSError):
                self.send_drops(kind)
        elif kind == "cut":
            content = Path(self.directory, name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def send_drops(self, kind: str):
        self.send_response(200)
        if kind != "late":
            self.end_headers()
        self.wfile.write(b"X-Late: " if kind == "late" else b"[")
        while True:
            self.wfile.write(b" " * (1 << 16 if kind == "endless" else 1))
            time.sleep(0 if kind == "endless" else 0.05)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with two versions of one bundle, one version of another, and their index."""
    folder = tmp_path_factory.mktemp("packages")
    for name, version in (("tiny", "0.9.0"), ("tiny", "0.10.0"), ("other", "1.0.0")):
        bundle = write_bundle(folder / f"{name}{version}" / name, name, version, weights=version.encode())
        assert run("package", bundle, folder / "dist") is None
    return folder / "dist"


@pytest.fixture
def site(packages, tmp_path) -> Iterator[tuple[Path, str]]:
    """A copy of the packages' folder that tests may change, and the URL at which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    for path in packages.iterdir():
        os.link(path, folder / path.name)
    with answering(partial(Handler, directory=str(folder))) as url:
        yield folder, url


def download(url: str, out: Path, name: str = "tiny", *more: object) -> int | str | None:
    return run("download", name, "--index", url, "--output_dir", out, "--allow_http", *more)


def edit_index(folder: Path, **changes: object) -> None:
    """Change entries of the index."""
    index = folder / "index.json"
    entries = [entry | changes for entry in json.loads(index.read_text())]
    index.unlink()  # it is linked to
    index.write_text(json.dumps(entries))


def replace(folder: Path, content) -> None:
    """Change every zip, but not the index."""
    for path in folder.glob("*.zip"):
        changed = content(path.read_bytes())
        path.unlink()
        path.write_bytes(changed)


def test_index(packages):
    index = json.loads((packages / "index.json").read_text())
    assert [f"{entry['name']} {entry['version']}" for entry in index] == ["other 1.0.0", "tiny 0.10.0", "tiny 0.9.0"]
    assert [entry["size"] for entry in index] == [(packages / entry["file"]).stat().st_size for entry in index]
    assert all(entry["url"] == entry["file"] == f"{entry['name']}_v{entry['version']}.zip" for entry in index)
    assert sorted(os.listdir(packages)) == sorted(["index.json", *(entry["file"] for entry in index)])


@pytest.mark.parametrize(("more", "version"), [((), "0.10.0"), (("--version", "0.9.0"), "0.9.0")])
def test_download_by_name_and_version(site, more, version, tmp_path, capsys):
    _, url = site
    assert download(f"{url}/index.json", tmp_path / "new" / "out", "tiny", *more) is None
    placed = tmp_path / "new" / "out" / "tiny"
    assert (placed / "models" / "model.pt").read_text() == version
    assert (placed / "common" / "modalities.py").is_file()
    assert os.listdir(placed.parent) == ["tiny"]
    said = capsys.readouterr()
    assert str(placed) in said.out
    assert "100%" in said.err
    assert download(f"{url}/index.json", placed.parent, "tiny", *more) is None  # it is there


def test_packages_elsewhere_and_redirections(site, tmp_path):
    folder, url = site
    edit_index(folder, url=f"{url}/moved/tiny_v0.10.0.zip")
    assert download(f"{url}/moved/index.json", tmp_path, "tiny", "--version", "0.10.0") is None
    assert (tmp_path / "tiny" / "LICENSE").is_file()


def overwrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


FAILURES = {
    "changed": (lambda folder, url: replace(folder, lambda content: content[:-1] + b"x"), "and SHA-256"),
    "truncated": (lambda folder, url: replace(folder, lambda content: content[:1000]), "1000 bytes and SHA-256"),
    "cut": (lambda folder, url: edit_index(folder, url="cut/tiny_v0.10.0.zip"), "tiny_v0.10.0.zip: "),
    "other": (
        lambda folder, url: edit_index(folder, **json.loads((folder / "index.json").read_text())[0] | {"name": "tiny"}),
        "a package of other 1.0.0, but the index lists it as tiny 1.0.0",
    ),
    "absent": (lambda folder, url: edit_index(folder, url="nosuch.zip"), "nosuch.zip: cannot be fetched .*404"),
    "file": (lambda folder, url: edit_index(folder, url="file:///etc/passwd"), "expected https"),
    "digest": (lambda folder, url: edit_index(folder, sha256=None), "not an index of packages"),
    "size": (lambda folder, url: edit_index(folder, size=-1), "not an index of packages"),
    "too large": (
        lambda folder, url: edit_index(folder, size=10**9),
        "not an index of packages of at most 268435456 bytes",
    ),
    "endless": (lambda folder, url: edit_index(folder, url="endless/x.zip"), "and SHA-256"),
    "terminal": (lambda folder, url: edit_index(folder, name="\x1b]0;owned\x07"), "not an index of packages"),
    "nested": (lambda folder, url: overwrite(folder / "index.json", b"[" * 10**6), "not an index of packages"),
    "no URL": (
        lambda folder, url: edit_index(folder, url="http://[::1"),
        r"the URL of tiny, http://\[::1, is not valid",
    ),
    "no list": (lambda folder, url: overwrite(folder / "index.json", b"{}"), "not an index of packages"),
    "away": (lambda folder, url: edit_index(folder, url="away/x.zip"), "redirected to ftp:.*; expected https"),
    "version": (lambda folder, url: edit_index(folder, version="new"), "not an index of packages"),
    "dead": (
        lambda folder, url: edit_index(folder, url="http://127.0.0.1:9/x.zip"),
        "x.zip: cannot be fetched .*refused",
    ),
}


@pytest.mark.parametrize("how", FAILURES)
def test_nothing_is_placed_unless_all_is_right(site, how, tmp_path):
    (folder, url), (damage, complaint) = site, FAILURES[how]
    damage(folder, url)
    out = tmp_path / "out"
    out.mkdir()
    said = download(f"{url}/index.json", out)
    assert isinstance(said, str)
    assert said.startswith("error: ")
    assert re.search(complaint, said), said
    assert os.listdir(out) == []


@pytest.mark.parametrize(
    ("index", "name", "more", "complaint"),
    [
        ("index.json", "nosuch", (), "no nosuch; it lists other 1.0.0, tiny 0.10.0, tiny 0.9.0"),
        ("index.json", "tiny", ("--version", "2.0.0"), "no tiny 2.0.0; it lists"),
        ("nosuch.json", "tiny", (), "nosuch.json: cannot be fetched (HTTP Error 404"),
        ("tiny_v0.9.0.zip", "tiny", (), "not an index of packages"),
        ("endless/index.json", "tiny", (), "exceeds 4194304 bytes, the limit for an index of packages"),
    ],
    ids=["name", "version", "no-index", "not-an-index", "endless"],
)
def test_what_is_not_there(site, index, name, more, complaint, tmp_path):
    said = download(f"{site[1]}/{index}", tmp_path / "out", name, *more)
    assert complaint in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["slow", "late"])
@pytest.mark.parametrize("what", ["index", "package"])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(monkeypatch, site, kind, what, tmp_path):
    monkeypatch.setattr(index, "PATIENCE", 0.5)
    folder, url = site
    edit_index(folder, url=f"{kind}/x.zip")
    began = time.monotonic()
    said = download(f"{url}/{'' if what == 'package' else kind + '/'}index.json", tmp_path / "out")
    assert re.search(r"cannot be fetched \(\d+ bytes in 0.5 seconds; expected 10000 per second\)", said)
    assert time.monotonic() - began < 5
    assert not list(tmp_path.glob("out/*"))


def test_http_is_taken_only_when_told(site, tmp_path):
    said = run("download", "tiny", "--index", f"{site[1]}/index.json", "--output_dir", tmp_path / "out")
    assert "expected https, since a bundle is code, and files that come by http can be changed on the way." in said
    edit_index(site[0], url=f"{site[1]}/tiny_v0.10.0.zip")
    said = run("download", "tiny", "--index", site[0] / "index.json", "--output_dir", tmp_path / "out")
    assert "expected https, or a file beside the index" in said
    assert not (tmp_path / "out").exists()


def test_https_does_not_lead_to_http():
    request = urllib.request.Request("https://example.org/index.json")
    follow = index._Redirections().redirect_request
    assert follow(request, None, 302, "Found", {}, "https://example.org/2").full_url == "https://example.org/2"
    with pytest.raises(urllib.error.URLError, match=r"redirected to http://example\.org/2; expected https"):
        follow(request, None, 302, "Found", {}, "http://example.org/2")


def test_sha256_of_the_index_is_printed_and_can_be_asked_for(packages, tmp_path, capsys):
    bundle = write_bundle(tmp_path / "other" / "tiny", "tiny", "0.10.0", weights=b"0.10.0")
    assert run("package", bundle, packages) is None
    digest = re.search(r"^([0-9a-f]{64}) is the index's SHA-256", capsys.readouterr().out, re.MULTILINE)[1]
    assert digest == hashlib.sha256((packages / "index.json").read_bytes()).hexdigest()
    said = download(str(packages / "index.json"), tmp_path / "out", "tiny", "--sha256", "0" * 64)
    assert f"index.json: has SHA-256 {digest}; expected {'0' * 64}. It is another version" in said
    assert "nosuch.json: cannot be fetched" in download(str(tmp_path / "nosuch.json"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert download(str(packages / "index.json"), tmp_path / "out", "tiny", "--sha256", digest.upper()) is None
    assert (tmp_path / "out" / "tiny" / "LICENSE").is_file()
    assert "It is code" not in capsys.readouterr().out
    assert download(str(packages / "index.json"), tmp_path / "out") is None
    assert "It is code that runs with your rights." in capsys.readouterr().out


def test_a_zip_that_is_no_package_is_not_indexed(packages, tmp_path):
    bundle = write_bundle(tmp_path / "tiny")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "a_v1.zip").write_bytes(b"PK")
    assert "a_v1.zip: not a valid package of a bundle" in run("package", bundle, tmp_path / "dist")
    assert not (tmp_path / "dist" / "index.json").exists()


@pytest.mark.slow  # a fresh process that imports everything
def test_monai_downloads_it(site, tmp_path):
    """MONAI 1.6.1 needs the name; without it, it unpacks the zip and then fails."""
    words = [sys.executable, "-m", "monai.bundle", "download", "tiny", "--url", f"{site[1]}/tiny_v0.9.0.zip"]
    done = subprocess.run([*words, "--bundle_dir", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "tiny" / "models" / "model.pt").read_text() == "0.9.0"
    assert (tmp_path / "out" / "tiny" / "configs" / "metadata.json").is_file()
