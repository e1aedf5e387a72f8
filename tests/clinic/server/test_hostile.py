"""Malicious or damaged requests are each answered with a reason, and the server keeps running."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
import requests
from dicom_studies import edit, study, write_study
from fastapi import HTTPException
from processes import answering
from running import ROOT, TOKEN, put, server

from mmb.server import label_files
from mmb.server.archive import store as store_in
from mmb.server.errors import refusal
from mmb.server.guard import WITHOUT_TOKEN, Guard, chosen_token
from mmb.server.label_files import read_label_map
from mmb.server.limits import REQUEST_BYTES, REQUESTS
from mmb.server.worker import Worker, report_progress


@pytest.fixture(scope="module")
def store(tmp_path_factory, subject) -> Path:
    """A usable study, and one whose pixels make ITK abort its process."""
    root = tmp_path_factory.mktemp("store")
    (root / "good").mkdir()
    shutil.copy(subject / "Doe_t2.nii.gz", root / "good")
    shutil.copy(subject / "Doe_seg.nii.gz", root.parent / "label.nii.gz")
    write_study(root / "palette", subject, study(("t1c",)))
    for path in (root / "palette").rglob("*.dcm"):
        edit(path, lambda dataset: setattr(dataset, "PhotometricInterpretation", "PALETTE COLOR"))
    return root


@pytest.fixture(scope="module")
def url(store, place):
    """The server's address. At its end, no request has left anything behind, and no error was unexpected."""
    with server(place, store, models="m3ae", names="label.example.org") as address:
        yield address
        assert not [path for path in (place / "tmp").rglob("*") if path.is_file()]
    assert not any((place / "tmp").iterdir())
    assert "ERROR" not in (place / "server.log").read_text()


@pytest.fixture
def drawn(store) -> nib.Nifti1Image:
    """A usable label map."""
    return nib.load(store.parent / "label.nii.gz")


def refused(answer: requests.Response, status: int, reason: str) -> None:
    """Require that a request was refused with this status, in one line that names no file of the server."""
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
    assert json.loads(answer.headers["x-message"]) == answer.json()["detail"]
    for path in ("/tmp", "server0", "store0", "Traceback", "Doe"):
        assert path not in answer.text
    assert "\n" not in answer.json()["detail"]


def test_a_study_that_ends_the_process_that_reads_it(url):
    answer = requests.get(f"{url}/datastore/image", params={"image": "palette"}, timeout=120)
    assert (answer.status_code, "The study could not be read" in answer.text) in ((503, True), (400, False))
    assert requests.get(f"{url}/datastore/image", params={"image": "good"}, timeout=120).ok


def abort(folder_of: str) -> None:
    """Leave a file in the folder for temporary files and end as an aborting library would."""
    Path(folder_of).write_text(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"of a patient")
    os.kill(os.getpid(), signal.SIGABRT)


def tell_and_return(what: str) -> dict:
    report_progress(what)
    return {what: [1, None]}


def refuse(kind: type[Exception], *arguments: object) -> None:
    raise kind(*arguments)


@pytest.fixture(scope="module")
def worker():
    one = Worker("read", seconds=60)
    yield one
    one.close()


class TestWorker:
    def test_its_death_is_told_and_leaves_nothing(self, worker, tmp_path):
        with pytest.raises(HTTPException) as found:
            worker.run(abort, str(tmp_path / "folder"))
        assert found.value.status_code == 503
        assert "could not be read: the process that does it ended (by SIGABRT)" in found.value.detail
        assert not Path((tmp_path / "folder").read_text()).exists()
        assert worker.run(abs, -1) == 1

    def test_its_answers_are_data_and_never_code(self, worker):
        told = []
        assert worker.run(tell_and_return, "a", on_progress=told.append) == {"a": [1, None]}
        assert told == ["a"]
        with pytest.raises(HTTPException, match="unexpected error"):
            worker.run(Path, "an object")

    @pytest.mark.parametrize(
        ("error", "status", "reason"),
        [
            ((ValueError, "no image"), 400, "no image"),
            ((FileNotFoundError, "no study"), 404, "no study"),
            ((OSError, 28, "No space left on device", "/data/Doe.nii"), 507, "A disk of the server is full"),
            ((PermissionError, 13, "Permission denied", "/data/Doe.nii"), 500, "of its own (Permission denied)."),
            ((requests.ConnectionError, "http://archive/1.2.3"), 502, "archive does not answer"),
            ((MemoryError, "Unable to allocate 2.35 TiB"), 503, "Unable to allocate 2.35 TiB"),
            ((KeyError, "Doe"), 500, "unexpected error"),
        ],
    )
    def test_errors_are_told_without_names_of_files(self, worker, error, status, reason):
        with pytest.raises(HTTPException) as found:
            worker.run(refuse, *error)
        assert (found.value.status_code, reason in found.value.detail) == (status, True)
        assert "Doe" not in found.value.detail

    def test_what_takes_too_long_is_ended(self):
        worker = Worker("read", seconds=0.5)
        with pytest.raises(HTTPException, match=r"exceeded the limit of 0\.5 s"):
            worker.run(signal.pause)
        worker.close()


HOLDING_SERVER = """
import os, sys, time
from mmb.server.temporary import own_temporary_folder
from mmb.server.upload_store import Uploads
from mmb.server.worker import Worker, prepare
if __name__ == "__main__":
    prepare([])
    with own_temporary_folder():
        _, upload = Uploads().new()
        (upload.study / "x_t1.nii").write_bytes(b"x")
        worker = Worker("read")
        print(worker.run(str, upload.folder), worker.run(os.getpid), flush=True)
        if sys.argv[1:]:
            worker.run(time.sleep, 600)
        sys.stdin.readline()
"""


def test_the_worker_of_a_killed_server_ends_and_the_next_server_removes_what_it_held(tmp_path):
    """And nothing of one that runs."""
    (tmp_path / "main.py").write_text(HOLDING_SERVER)
    (tmp_path / "tmp").mkdir()
    settings = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}

    def start(*words: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, tmp_path / "main.py", *words], env=settings, text=True, **pipes)

    with start("busy") as killed, start() as running:
        (held, process), (kept, _) = (map(Path, server.stdout.readline().split()) for server in (killed, running))
        worker = Path("/proc", process, "cmdline")
        assert worker.read_bytes()
        time.sleep(0.5)  # it has begun what takes long
        killed.kill()
        killed.wait()
        until = time.monotonic() + 20
        while worker.exists() and worker.read_bytes():  # empty, because it has ended
            assert time.monotonic() < until
            time.sleep(0.05)
        assert held.exists()
        with start() as following:
            following.communicate("\n", timeout=120)
        assert (held.exists(), len([*kept.rglob("*.nii")])) == (False, 1)
        running.communicate("\n", timeout=120)
    assert not [*(tmp_path / "tmp").glob("mmb-server-*")]
    assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]  # a socket stays of the killed one


def nrrd(voxels: bytes, *fields: str, encoding: str = "raw", sizes: tuple[int, ...] = (48, 64, 52)) -> bytes:
    """Return an NRRD file on the grid of the study, with additional fields."""
    lines = ["NRRD0004", "type: uint8", "dimension: 3", "space: right-anterior-superior", f"encoding: {encoding}"]
    lines += [f"sizes: {' '.join(map(str, sizes))}", "space directions: (-3,0,0) (0,-3,0) (0,0,3)"]
    return "\n".join([*lines, *fields, "", ""]).encode() + voxels


def newest(store: Path) -> Path:
    """Return the newest final label of the study."""
    return max((store / "labels" / "final" / "good").iterdir())


class TestLabelMaps:
    """The format of a label map is recognised by its content."""

    @pytest.mark.parametrize("name", ["label.mhd", "../../label.dcm", "\0.nrrd"])
    def test_nifti_by_any_name(self, url, store, drawn, name):
        for content in (drawn.to_bytes(), gzip.compress(drawn.to_bytes())):
            assert put(url, "good", content, name=name).status_code == 200
            assert np.array_equal(nib.load(newest(store)).dataobj, drawn.dataobj)

    @pytest.mark.parametrize("encoding", ["raw", "gzip"])
    def test_nrrd_with_its_voxels_inside(self, url, store, drawn, encoding):
        origin = f"space origin: ({','.join(map(str, drawn.affine[:3, 3]))})"
        voxels = np.asarray(drawn.dataobj, np.uint8).tobytes("F")
        packed = gzip.compress(voxels) if encoding == "gzip" else voxels
        answer = put(url, "good", nrrd(packed, origin, "# a comment", "Segment0_Name:=Oedema", encoding=encoding))
        assert answer.status_code == 200, answer.text
        kept = nib.load(newest(store))
        assert np.array_equal(kept.dataobj, drawn.dataobj)
        assert np.allclose(kept.affine, drawn.affine)

    @pytest.mark.parametrize("name", ["label.mhd", "label.nhdr", "label.nii"])
    def test_no_header_is_followed_to_another_file(self, url, tmp_path, name):
        secret = tmp_path / "secret"
        secret.write_bytes(b"p" * 48 * 64 * 52)
        meta = f"NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nHeaderSize = 2\nElementDataFile = {secret}\n"
        pair = nib.Nifti1Pair(np.zeros((48, 64, 52), np.uint8), np.eye(4)).header.binaryblock
        fields = [f"data file: {secret}", f"datafile: {secret}", f"Data File: {secret}", f"a:=b\rdata file: {secret}"]
        fields += [f"content: x\r\rdata file: {secret}", f"data file: LIST\n{secret}", "byte skip: -1"]
        for content in (meta.encode(), pair, *(nrrd(b"", field) for field in fields)):
            answer = put(url, "good", content, name=name)
            refused(answer, 400, "expected NIfTI (.nii, .nii.gz) or NRRD (.nrrd) with the voxels inside")
            assert "112" not in answer.text

    def test_what_is_damaged_or_too_large(self, url, drawn):
        whole = gzip.compress(drawn.to_bytes())
        wrong = bytearray(whole)
        wrong[-6] ^= 1  # of the checksum
        header = nib.Nifti1Header()
        header.set_data_shape((30000, 30000, 30000))
        header.set_data_dtype(np.uint8)
        for content, reason in (
            (whole[:-100], "(gzip)"),
            (bytes(wrong), "(gzip)"),
            (header.binaryblock + bytes(4), "MiB unpacked"),
            (nrrd(b"", sizes=(30000, 30000, 30000)), "MiB unpacked"),
            (nrrd(b"\0" * 100), "The label map"),
            (nrrd(gzip.compress(bytes(48 * 64 * 52))[:-30], encoding="gzip"), "cannot be read as an image"),
            (nrrd(b"", encoding="bzip2"), "cannot be read as an image"),
            (nrrd(b"")[:-1], "header is damaged"),
            (drawn.to_bytes()[:5000], "The label map"),
            (b"", "another kind"),
        ):
            refused(put(url, "good", content), 400, reason)

    def test_what_is_unpacked_is_bounded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(label_files, "LABEL_BYTES", 1 << 22)
        (tmp_path / "sent").write_bytes(gzip.compress(bytes(1 << 28)))
        with pytest.raises(ValueError, match="4 MiB unpacked"):
            read_label_map(tmp_path / "sent", tmp_path)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 23


INFER, LABEL = ("POST", "/infer/m3ae?image=good"), ("PUT", "/datastore/label?image=good")
ALL_LEFT_OUT = {f"use_{name}": False for name in ("t1", "t1c", "t2", "flair")}


def asked(params: object) -> dict:
    """Return the body of a request with parameters: JSON as text or bytes, or what is to become it."""
    return {"data": {"params": params if isinstance(params, str | bytes) else json.dumps(params)}}


def drawn_as(*info: object) -> dict:
    return asked({"label_info": info})


REFUSALS = [
    (INFER, asked('{"a":' * 50_000), 422, "Invalid JSON"),
    (INFER, asked('"\\ud800"'), 422, "Invalid JSON"),
    (INFER, asked(b"\xff\xfe"), 422, "Invalid JSON"),
    (INFER, asked("9" * 5000), 422, "Invalid JSON"),
    (INFER, asked([1]), 422, "an object"),
    (INFER, asked(False), 422, "an object"),
    (INFER, asked({"use_t2": 5}), 422, "use_t2: "),
    (INFER, asked({"use_t2": "perhaps"}), 422, "use_t2: Input should be a valid boolean"),
    (INFER, asked({"series": {"t2": [7]}}), 422, "series.t2"),
    (INFER, asked({"series": "t2"}), 422, "series: expected modalities and SeriesNumbers"),
    (INFER, asked({"skull_strip": {}}), 422, "skull_strip: Input should be 'auto', 'yes' or 'no'"),
    (INFER, asked({"decision": "best"}), 422, "'threshold', 'expected_dice'"),
    (INFER, asked({"result_extension": [".nii"]}), 422, ".nii.gz"),
    (INFER, asked(ALL_LEFT_OUT), 422, "All modalities are left out"),
    (INFER, {"json": {"use_t1c": False}}, 400, "params"),
    (INFER, {"data": {"use_t1c": "false"}}, 400, "params"),
    (LABEL, asked({"label_info": {"name": "Oedema"}}), 422, "label_info: Input should be a valid array"),
    (LABEL, drawn_as(None), 422, "label_info.0"),
    (LABEL, drawn_as({"name": 5}), 422, "label_info.0.name"),
    (LABEL, drawn_as({"name": "Oedema", "idx": [1]}), 422, "label_info.0.idx"),
    (LABEL, drawn_as({"name": "Oedema", "idx": 2}), 400, "number 1 in the list, but its idx is 2"),
    (LABEL, drawn_as({"name": "Tumour"}), 400, "expected some of"),
    (("POST", "/infer/m3ae"), {}, 422, "query.image"),
    (LABEL, {"json": {}}, 422, "body.label"),
    (("POST", "/infer/unet?image=good"), {}, 404, "m3ae"),
    (("POST", "/infer/m3ae?image=nobody"), asked({"image": "good"}), 404, "no study of this name"),
]
"""Method and path, body, status, and a fact of the reason."""


@pytest.mark.parametrize(("request_line", "body", "status", "reason"), REFUSALS)
def test_what_a_request_gets_wrong(url, drawn, request_line, body, status, reason):
    method, path = request_line
    files = {"label": ("label.nii.gz", drawn.to_bytes())} if request_line == LABEL and "data" in body else None
    refused(requests.request(method, url + path, files=files, timeout=60, **body), status, reason)


class TestBodies:
    def test_a_request_that_brings_too_much_is_not_kept(self, url):
        answer = requests.post(f"{url}/infer/m3ae?image=good", data={"params": "9" * REQUEST_BYTES}, timeout=30)
        refused(answer, 413, f"exceeds {REQUEST_BYTES >> 20} MiB")
        pieces = (b"[" * 65536 for _ in range(64 * REQUEST_BYTES >> 20))  # without a length
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = requests.post(f"{url}/infer/m3ae?image=good", data=pieces, headers=form, timeout=30)
        assert answer.status_code == 413

    def test_one_that_falls_silent_ends(self, monkeypatch):
        from mmb.server import api  # not above, since workers import this module

        monkeypatch.setattr(api, "SILENT_SECONDS", 0.1)
        sent = iter([{"type": "http.request", "body": b"x", "more_body": True}])

        async def receive():
            return next(sent, None) or await asyncio.sleep(60)

        async def read(scope, receive, send):
            while (await receive())["more_body"]:
                pass

        with pytest.raises(HTTPException) as ended:
            asyncio.run(api._LimitedBody(read)({"type": "http", "method": "PUT", "headers": []}, receive, None))
        assert (ended.value.status_code, ended.value.headers) == (408, {"connection": "close"})

    def test_one_whose_end_is_not_clear(self, url):
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            head = f"POST {address.path}/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))  # it closes the connection
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.count(b"HTTP/1.1") == 1

    def test_a_client_that_goes_away(self, url):
        """This is no error of the server; the fixture checks the log."""
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(
                f"POST {address.path}/infer/m3ae?image=good HTTP/1.1\r\nHost: {address.hostname}\r\n"
                "Content-Length: 9\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{".encode()
            )
        assert requests.get(f"{url}/info/", timeout=30).ok


class TestOtherSites:
    @pytest.mark.parametrize(
        ("header", "value"),
        [
            *(("origin", value) for value in ("http://elsewhere.example", "null", "http://127.0.0.1:1", "http://[::1")),
            *(("sec-fetch-site", value) for value in ("cross-site", "same-site")),
        ],
    )
    def test_their_pages_change_nothing_and_read_nothing(self, url, header, value):
        for method, path in (("POST", "/activelearning/random"), ("GET", "/datastore/image?image=good"), ("GET", "/")):
            answer = requests.request(method, url + path, headers={header: value}, timeout=30)
            assert answer.status_code in (400, 403)
            assert "access-control-allow-origin" not in answer.headers

    def test_its_own_pages_do(self, url):
        for origin in (url.rpartition("/")[0], "https://label.example.org"):
            headers = {"origin": origin, "sec-fetch-site": "same-origin"}
            assert requests.post(f"{url}/activelearning/random", headers=headers, timeout=30).ok

    def test_a_name_that_leads_here_from_elsewhere(self, url):
        unknown = ("elsewhere.example", "127.0.0.1.elsewhere.example", "")
        for host in (*unknown, "localhost:80", "10.0.0.1", "[::1]:8000", "label.example.org"):
            answer = requests.get(f"{url}/info/", headers={"host": host}, timeout=30)
            assert answer.status_code == (400 if host in unknown else 200), host


class TestToken:
    @pytest.mark.parametrize("path", ["/", "/info/", "/wrong-token-of-16/info/", "//info/", f"/{TOKEN}x/info/"])
    def test_nothing_is_answered_without_it(self, url, path):
        answer = requests.post(url.rpartition("/")[0] + path, data={"params": "x"}, timeout=30)
        assert (answer.status_code, answer.text) == (401, WITHOUT_TOKEN)

    def test_whether_the_server_runs_is_told_without_it(self, url):
        health = url.rpartition("/")[0] + "/healthz"
        assert requests.get(health, timeout=30).json() == {"status": "ok"}
        for page in (health, f"{url}/"):  # as monitors probe
            assert requests.head(page, timeout=30).ok

    def test_idle_connections_without_it_keep_nobody_out(self, url):
        address = urlsplit(url)
        with ExitStack() as idle:
            for number in range(40):
                connection = idle.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
                if number % 2:  # the other half does not even ask
                    connection.sendall(b"POST /info/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert requests.get(f"{url}/info/", timeout=60).ok

    def test_requests_with_it_have_a_limit(self):
        async def wait(scope, receive, send):
            await done.wait()

        async def send(message):
            if message["type"] == "http.response.start":
                answered.append(message["status"])

        async def ask():
            guard, scope = Guard(wait, TOKEN), {"type": "http", "path": f"/{TOKEN}/info/"}
            tasks = [asyncio.create_task(guard(scope | {}, None, send)) for _ in range(REQUESTS + 1)]
            await asyncio.sleep(0)
            await guard({"type": "http", "path": "/"}, None, send)
            done.set()
            await asyncio.gather(*tasks)
            return guard.running

        done, answered = asyncio.Event(), []
        assert asyncio.run(ask()) == 0
        assert sorted(answered) == [401, 503]

    def test_a_redirect_stays_where_the_browser_is(self, url):
        for path in ("", "/info", "/datastore?output=all"):
            answer = requests.get(url + path, allow_redirects=False, timeout=30)
            assert (answer.status_code, answer.headers["location"][:1]) == (307, "/")
            assert requests.get(url + path, timeout=30).ok

    def test_which_hosts_need_one(self):
        assert len(chosen_token(None, "127.0.0.1")) > 20
        assert chosen_token(None, "::1") != chosen_token(None, "::1")
        assert [chosen_token("none", host) for host in ("127.0.0.1", "::1", "localhost")] == [""] * 3
        for given, host in (("none", "0.0.0.0"), ("none", "::"), ("none", "example.org"), ("short", "127.0.0.1"),
                            ("with/a/slash/in/it", "127.0.0.1")):  # fmt: skip
            with pytest.raises(ValueError, match="--token"):
                chosen_token(given, host)


def test_no_answer_may_run_as_a_page(url):
    for path in ("/info/", "/nowhere", "/datastore/image?image=good"):
        headers = requests.get(url + path, timeout=60).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]


def test_an_archive_sends_nobody_elsewhere(store):
    class Leading(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(307)
            self.send_header("location", "/system")
            self.end_headers()

    with answering(Leading) as address, pytest.raises(requests.TooManyRedirects) as found:
        store_in(address, [next((store / "palette").rglob("*.dcm"))])
    assert "start the server with the URL" in refusal(found.value).detail
