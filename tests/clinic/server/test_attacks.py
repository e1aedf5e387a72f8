"""Who tries to keep others out: meanwhile the page answers within a second, and another user's study is read."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import shutil
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
import requests
from nginx import LOGIN, NAME, needs_nginx, nginx
from processes import ROOT
from running import server

from mmb.server.limits import READ_BYTES, SILENT_SECONDS

pytestmark = pytest.mark.slow
SECONDS = 1.0
"""In which others are answered; on a slow machine three times what it takes without an attack."""


@pytest.fixture(scope="module")
def url(place, subject) -> Iterator[str]:
    (place / "store" / "good").mkdir(parents=True)
    shutil.copy(subject / "Doe_t2.nii.gz", place / "store" / "good")
    with server(place, place / "store", models="m3ae", names=NAME) as address:
        other_user(address, subject)  # by now everything has started
        yield address
    assert "ERROR" not in (place / "server.log").read_text()


def timed(method: str, address: str, **body: object) -> tuple[float, requests.Response]:
    began = time.monotonic()
    answer = requests.request(method, address, timeout=150, **body)
    return time.monotonic() - began, answer


def other_user(url: str, subject: Path) -> dict[str, float]:
    """Return the seconds that another user waits for the server, the page, and a study to be taken and read."""
    took, answers = {}, {}
    took["healthz"], answers["healthz"] = timed("GET", url.rpartition("/")[0] + "/healthz")
    took["page"], answers["page"] = timed("GET", f"{url}/")
    took["study"], answers["study"] = timed("POST", f"{url}/studies")
    assert answers["study"].ok, answers["study"].text
    study = f"{url}/studies/{answers['study'].json()['study']}"
    content = (subject / "Doe_t2.nii.gz").read_bytes()
    took["file"], answers["file"] = timed("PUT", f"{study}/files?name=x_t2.nii.gz", data=content)
    took["read"], answers["read"] = timed("POST", f"{study}/read")
    assert all(answer.ok for answer in answers.values()), {name: answer.text for name, answer in answers.items()}
    assert answers["read"].json()["automatic"] == {"t2": "x_t2.nii.gz"}
    assert requests.delete(study, timeout=60).ok
    return {name: round(seconds, 2) for name, seconds in took.items()}


@pytest.fixture(scope="module")
def nobody_waits(url, subject):
    """A function that requires that another user is served as if there were no attack."""
    usual = other_user(url, subject)

    def require(attack: str) -> None:
        took = other_user(url, subject)
        print(f"{attack}: {took}; usually {usual}")
        assert all(took[name] < max(SECONDS, 3 * usual[name]) for name in took), (attack, took, usual)

    return require


@contextmanager
def held(address: str, count: int, first: bytes = b"", source: str = "") -> Iterator[list[socket.socket]]:
    """Hold connections that have sent no more than ``first``."""
    at, connections = urlsplit(address), []
    try:
        for _ in range(count):
            bound = (source, 0) if source else None
            connections.append(socket.create_connection((at.hostname, at.port), 30, bound))
            connections[-1].sendall(first)
        time.sleep(0.5)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def request(method: str, url: str, path: str, content: bytes = b"", announced: int | None = None) -> bytes:
    head = f"{method} {urlsplit(url).path}{path} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{head}Content-Length: {len(content) if announced is None else announced}\r\n\r\n".encode() + content


def ended(connection: socket.socket, within: float) -> bytes:
    """Return what the server sent before it closed a connection."""
    connection.settimeout(within)
    content = b""
    while piece := connection.recv(65536):
        content += piece
    return content


def test_uploads_that_fall_silent(url, nobody_waits):
    study = requests.post(f"{url}/studies", timeout=60).json()["study"]
    halves = [request("PUT", url, f"/studies/{study}/files?name={n}", b"abc", announced=1000) for n in range(32)]
    began = time.monotonic()
    with held(url, 32) as silent:
        for connection, half in zip(silent, halves, strict=True):
            connection.sendall(half)
        nobody_waits("32 silent uploads of one study")
        answers = [ended(connection, SILENT_SECONDS + 30) for connection in silent]
    assert time.monotonic() - began < SILENT_SECONDS + 30
    statuses = [int(answer.split()[1]) for answer in answers]
    assert statuses.count(408) == 4  # files of one study at once
    assert statuses.count(503) == 28
    requests.delete(f"{url}/studies/{study}", timeout=60)
    with held(url, 32, request("POST", url, "/segment/m3ae", b"PK\3\4", announced=1000)):
        nobody_waits("32 silent studies in one request")


def test_requests_whose_client_hung_up(url, nobody_waits):
    infer = request("POST", url, "/infer/m3ae?image=good&output=json", b"params=%7B%7D")
    infer = infer.replace(b"\r\n\r\n", b"\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n", 1)
    with held(url, 32, infer):
        nobody_waits("32 inferences")
    time.sleep(2)
    # Nothing is computed for those that have gone: the next one's turn comes at once.
    answer = requests.post(f"{url}/infer/m3ae?image=good&output=json", data={"params": "{}"}, timeout=300)
    assert answer.status_code == 200, answer.text


def explicit(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def dicom(syntax: bytes, dataset: bytes) -> bytes:
    """Return a DICOM file of a data set, which is written in a transfer syntax."""
    meta = explicit(2, 0x10, b"UI", syntax + bytes(len(syntax) % 2))
    return bytes(128) + b"DICM" + explicit(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + dataset


def deflated(mebibytes: int) -> bytes:
    """Return a small DICOM file whose data set inflates to one large private element."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = struct.pack("<HH2sHI", 0x7FDF, 0x1001, b"OB", 0, mebibytes << 20)
    parts = [pack.compress(explicit(8, 0x60, b"CS", b"MR") + head)]
    parts += [pack.compress(bytes(1 << 20)) for _ in range(mebibytes)]
    return dicom(b"1.2.840.10008.1.2.1.99", b"".join(parts) + pack.flush())


def nested(items: int) -> bytes:
    """Return a zip of a DICOM file with a sequence of many tiny items."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 10) + explicit(8, 0x60, b"CS", b"MR")
    sequence = struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF) + item * items
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a.dcm", dicom(b"1.2.840.10008.1.2.1", sequence))
    return packed.getvalue()


def readers() -> dict[int, int]:
    """Return the memory in bytes of the processes that have limited it as readers do, by their ids."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{READ_BYTES}" in (process / "limits").read_text():
                pages = int((process / "statm").read_text().split()[1])
                found[int(process.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    return found


def sent(url: str, name: str, content: bytes) -> str:
    study = f"{url}/studies/{requests.post(f'{url}/studies', timeout=60).json()['study']}"
    assert requests.put(f"{study}/files?name={name}", data=content, timeout=60).ok
    return study


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux tells the memory of processes")
def test_a_file_that_inflates(url, nobody_waits):
    content = deflated(1500)
    assert len(content) < 2 << 20
    study, answers, most = sent(url, "deflated.dcm", content), [], 0
    reading = Thread(target=lambda: answers.append(requests.post(f"{study}/read", timeout=200)))
    reading.start()
    time.sleep(0.5)
    nobody_waits("a DICOM of 1.5 MB that inflates to 1.5 GiB")
    while reading.is_alive():
        most = max(most, *readers().values(), 0)
        time.sleep(0.1)
    print(f"most memory {most >> 20} MiB; {answers[0].status_code} {answers[0].text}")
    assert most < READ_BYTES
    assert answers[0].status_code in (200, 400, 503)
    requests.delete(study, timeout=60)


def test_a_file_of_a_million_items(url, nobody_waits):
    content = nested(1_000_000)
    assert len(content) < 100_000
    study, answers = sent(url, "items.zip", content), []
    reading = Thread(target=lambda: answers.append(requests.post(f"{study}/read", timeout=200)))
    reading.start()
    time.sleep(1)
    nobody_waits("a zip of 44 kB with a million items")
    assert readers()
    assert requests.delete(study, timeout=60).ok
    reading.join(10)  # what is removed is not read to its end
    assert not reading.is_alive()
    assert not readers()
    assert answers[0].status_code == 404


def test_a_study_that_is_removed_or_cancelled_is_not_computed(url, subject):
    def begun() -> str:
        study = sent(url, "x_t2.nii.gz", (subject / "Doe_t2.nii.gz").read_bytes())
        assert requests.post(f"{study}/read", timeout=60).ok
        assert requests.post(f"{study}/segment/m3ae", json={}, timeout=60).status_code == 202
        return study

    def wait_for(study: str, *states: str) -> dict:
        until = time.monotonic() + 120
        while (now := requests.get(study, timeout=60).json())["state"] not in states:
            assert time.monotonic() < until, now
            time.sleep(0.1)
        return now

    first, second = begun(), begun()
    wait_for(first, "running")
    assert "one study is before this one" in wait_for(second, "waiting")["step"]
    assert requests.delete(first, timeout=60).ok
    began = time.monotonic()
    wait_for(second, "running")
    assert time.monotonic() - began < 10
    assert requests.post(f"{second}/cancel", timeout=60).ok
    assert wait_for(second, "received")["told"] == "Cancelled."
    assert requests.post(f"{second}/segment/m3ae", json={}, timeout=60).status_code == 202  # it can be asked for again
    wait_for(second, "done")
    requests.delete(second, timeout=60)


@needs_nginx
class TestBehindNginx:
    """The limits of connections, headers and bodies are nginx's, by the file in the documentation."""

    @pytest.fixture(scope="class")
    def front(self, url, tmp_path_factory):
        with nginx(tmp_path_factory.mktemp("nginx"), url) as front:
            yield front

    def ask(self, front, method: str, path: str, content: bytes | None = None, **headers: str):
        """Return seconds, status, headers and content of an answer to somebody who has logged in."""
        port, context = front
        began = time.monotonic()
        raw = socket.create_connection(("127.0.0.1", port), 60)
        connection = http.client.HTTPSConnection(NAME, port, context=context)
        connection.sock = context.wrap_socket(raw, server_hostname=NAME)
        login = base64.b64encode(":".join(LOGIN).encode()).decode()
        headers = {"Host": NAME, "Authorization": f"Basic {login}", **headers}
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        told = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return round(time.monotonic() - began, 2), *told

    def test_the_token_stays_within_tls(self, url, front):
        token = urlsplit(url).path
        for path, target in ((token, f"{token}/"), (f"{token}/info", f"{token}/info/")):
            _, status, headers, _ = self.ask(front, "GET", path)
            location = {name.lower(): value for name, value in headers.items()}["location"]
            assert (status, location) == (307, target)  # neither scheme nor host
        assert "X-Forwarded-Proto $scheme" in Path(ROOT, "docs", "nginx.conf").read_text()
        _, status, *_ = self.ask(front, "GET", f"{token}/info/", Origin=f"https://{NAME}")
        assert status == 200
        _, status, *_ = self.ask(front, "GET", "/healthz", Authorization="")
        assert status == 200

    @pytest.mark.parametrize(
        ("what", "first"), [("nothing", b""), ("half a header", b"GET / HTTP/1.1\r\nHost: x\r\nX: ")]
    )
    def test_connections_that_send(self, url, front, subject, what, first):
        token, port = urlsplit(url).path, front[0]
        with held(f"https://127.0.0.1:{port}", 2000, first, source="127.0.0.2") as silent:
            took = {"healthz": self.ask(front, "GET", "/healthz")}
            took["page"] = self.ask(front, "GET", f"{token}/")
            took["study"] = self.ask(front, "POST", f"{token}/studies")
            study = f"{token}/studies/{json.loads(took['study'][3])['study']}"
            content = (subject / "Doe_t2.nii.gz").read_bytes()
            took["file"] = self.ask(front, "PUT", f"{study}/files?name=x_t2.nii.gz", content)
            took["read"] = self.ask(front, "POST", f"{study}/read")
            print(f"2000 connections that send {what}: { {name: each[:2] for name, each in took.items()} }")
            assert all(each[1] == 200 for each in took.values())
            assert all(took[name][0] < SECONDS for name in ("healthz", "page", "study", "file"))
            for connection in silent[::100]:
                with suppress(ConnectionResetError):
                    ended(connection, 60)  # nginx closes them by itself
        self.ask(front, "DELETE", study)
