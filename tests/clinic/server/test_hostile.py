"""Malicious or damaged requests are each answered with a reason, and the server keeps running."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from dicom_studies import edit, study, write_study
from fastapi import HTTPException
from processes import answering
from running import ROOT, infer, server

from clinic.server import archive as label_archive
from clinic.server import client_files
from clinic.server.archive import archive_session
from clinic.server.client_files import read_label_map
from clinic.server.datastore import FolderDatastore
from clinic.server.limits import FILE_BYTES, REQUEST_BYTES
from clinic.server.worker import Worker
from common.cohorts.registry import PHANTOM


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
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


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


def put(url: str, content: bytes, name: str = "label.nii.gz", **params: object) -> requests.Response:
    query, form = {"image": "good", "tag": "final"}, {"params": json.dumps(params)}
    files = {"label": (name, content)}
    return requests.put(f"{url}/datastore/label", params=query, data=form, files=files, timeout=60)


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

    @pytest.mark.parametrize(
        ("error", "status", "reason"),
        [
            ((ValueError, "no image"), 400, "no image"),
            ((FileNotFoundError, "no study"), 404, "no study"),
            ((OSError, 28, "No space left on device", "/data/Doe.nii"), 507, "temporary files is full"),
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


WORKING_SERVER = """
import os, time
from clinic.server.worker import Worker
if __name__ == "__main__":
    print(Worker("read").run(os.getpid), flush=True)
    time.sleep(600)
"""


def test_the_worker_of_a_killed_server_ends(tmp_path):
    (tmp_path / "main.py").write_text(WORKING_SERVER)
    settings = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, tmp_path / "main.py"], env=settings, stdout=subprocess.PIPE) as server:
        worker = Path("/proc", server.stdout.readline().decode().strip(), "cmdline")
        assert worker.read_bytes()
        server.kill()
    until = time.monotonic() + 20
    while worker.exists() and worker.read_bytes():  # empty, because it has ended
        assert time.monotonic() < until
        time.sleep(0.05)


def nrrd(voxels: bytes, *fields: str, encoding: str = "raw", sizes: tuple[int, ...] = (48, 64, 52)) -> bytes:
    """Return an NRRD file on the grid of the study, with additional fields."""
    lines = ["NRRD0004", "type: uint8", "dimension: 3", "space: right-anterior-superior", f"encoding: {encoding}"]
    lines += [f"sizes: {' '.join(map(str, sizes))}", "space directions: (-3,0,0) (0,-3,0) (0,0,3)"]
    return "\n".join([*lines, *fields, "", ""]).encode() + voxels


class TestLabelMaps:
    """The format of a label map is recognised by its content."""

    @pytest.mark.parametrize("name", ["label.nii.gz", "label.mhd", "label", "../../label.dcm", "\0.nrrd"])
    def test_nifti_by_any_name(self, url, store, drawn, name):
        for content in (drawn.to_bytes(), gzip.compress(drawn.to_bytes())):
            assert put(url, content, name).status_code == 200
            kept = nib.load(store / "labels" / "final" / "good.nii.gz")
            assert np.array_equal(kept.dataobj, drawn.dataobj)
            (store / "labels" / "final" / "good.nii.gz").unlink()

    @pytest.mark.parametrize("encoding", ["raw", "gzip"])
    def test_nrrd_with_its_voxels_inside(self, url, store, drawn, encoding):
        origin = f"space origin: ({','.join(map(str, drawn.affine[:3, 3]))})"
        voxels = np.asarray(drawn.dataobj, np.uint8).tobytes("F")
        content = nrrd(
            voxels if encoding == "raw" else gzip.compress(voxels), origin, "# a comment", "Segment0_Name:=Oedema",
            encoding=encoding,
        )  # fmt: skip
        answer = put(url, content)
        assert answer.status_code == 200, answer.text
        kept = nib.load(store / "labels" / "final" / "good.nii.gz")
        assert np.array_equal(kept.dataobj, drawn.dataobj)
        assert np.allclose(kept.affine, drawn.affine)

    @pytest.mark.parametrize("name", ["label.mhd", "label.mha", "label.nhdr", "label.nrrd", "label.nii", "label.hdr"])
    def test_no_header_is_followed_to_another_file(self, url, tmp_path, name):
        (tmp_path / "secret").write_bytes(b"p" * 48 * 64 * 52)
        there = tmp_path / "secret"
        meta = f"NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nHeaderSize = 2\nElementDataFile = {there}\n"
        pair = nib.Nifti1Pair(np.zeros((48, 64, 52), np.uint8), np.eye(4)).header.binaryblock
        for content in (
            meta.encode(),
            nrrd(b"", f"data file: {there}"),
            nrrd(b"", f"datafile: {there}"),
            nrrd(b"", f"Data File: {there}"),
            nrrd(b"", f"content: x\r\rdata file: {there}"),
            nrrd(b"", f"a:=b\rdata file: {there}"),
            nrrd(b"", f"data file: LIST\n{there}"),
            nrrd(b"", "byte skip: -1"),
            pair,
        ):
            answer = put(url, content, name)
            refused(answer, 400, "expected NIfTI (.nii, .nii.gz) or NRRD (.nrrd) with the voxels inside")
            assert "112" not in answer.text

    def test_what_is_damaged_or_too_large(self, url, place, drawn):
        whole = gzip.compress(drawn.to_bytes())
        wrong = bytearray(whole)
        wrong[-6] ^= 1  # of the checksum
        header = nib.Nifti1Header()
        header.set_data_shape((30000, 30000, 30000))
        header.set_data_dtype(np.uint8)
        huge = "MiB unpacked; save it as whole numbers of one byte"
        for content, reason in (
            (whole[:-100], "damaged or cut off (gzip)"),
            (bytes(wrong), "damaged or cut off (gzip)"),
            (header.binaryblock + bytes(4), huge),
            (nrrd(b"", sizes=(30000, 30000, 30000)), huge),
            (nrrd(b"\0" * 100), "The label map"),
            (nrrd(gzip.compress(bytes(48 * 64 * 52))[:-1], encoding="gzip"), "its compressed voxels are truncated"),
            (nrrd(b"", encoding="bzip2"), "expected raw or gzip"),
            (nrrd(b"")[:-1], "header does not end"),
            (drawn.to_bytes()[:5000], "The label map"),
            (b"", "a file of another kind"),
            (os.urandom(1000), "a file of another kind"),
        ):
            refused(put(url, content), 400, reason)

    @pytest.mark.parametrize(
        ("sizes", "reason"),
        [
            (None, "or 4 MiB unpacked; save it"),
            ((1 << 14, 1 << 14, 1), "or 4 MiB unpacked; save it"),
            ((64, 64, 64), "its header announces 262144 bytes of voxels, but it has 262145"),
        ],
    )
    def test_what_is_unpacked_is_bounded(self, tmp_path, monkeypatch, sizes, reason):
        monkeypatch.setattr(client_files, "LABEL_BYTES", 1 << 22)
        packed = gzip.compress(bytes(1 << 28))
        (tmp_path / "sent").write_bytes(nrrd(packed, encoding="gzip", sizes=sizes) if sizes else packed)
        with pytest.raises(ValueError, match=reason):
            read_label_map(tmp_path / "sent", tmp_path)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 23

    @pytest.mark.parametrize(
        ("info", "reason"),
        [
            (5, "label_info: expected a list"),
            ({"name": "Oedema"}, "label_info: expected a list"),
            (["Oedema"], "label_info: expected a list"),
            ([None], "label_info: expected a list"),
            ([{"name": 5}], "Segment '5'; expected some of"),
            ([{"name": "Oedema", "idx": [1]}], "but its idx is [1]"),
            ([{"name": ["\ud800"]}], "expected some of"),
        ],
    )
    def test_segments_of_wrong_types(self, url, drawn, info, reason):
        refused(put(url, drawn.to_bytes(), label_info=info), 400, reason)


JSON = {"content-type": "application/json"}


class TestBodies:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"max_epochs": 0}', "max_epochs 0.0: expected a number from 1"),
            ('{"max_epochs": "many"}', "max_epochs many: expected a number from 1"),
            ('{"val_split": 2}', "val_split"),
            ('{"max_epochs": Infinity}', "Infinity is not a number"),
            ('{"max_epochs": 1e999}', "max_epochs inf"),
            ('{"max_epochs": 1e300}', "max_epochs"),
            ('{"max_epochs": NaN}', "NaN is not a number"),
            ('{"max_epochs": [1]}', "max_epochs [1]"),
            ('{"val_split": {"a": 1}}', "val_split"),
            ("[" * 100_000, "expected a JSON object"),
            ('{"a":' * 100_000, "expected a JSON object"),
            ('{"a":' * 50 + "1" + "}" * 50, "nested more than"),
            ("[1]", "params: a list; expected a JSON object"),
            ("null", "params: a NoneType"),
            ('"\\ud800"', "params: a str"),
            ('{"max_epochs": "\\ud800"}', "max_epochs"),
            ("{", "expected a JSON object"),
            (b"\xff\xfe", "expected a JSON object"),
            ("9" * 5000, "expected a JSON object"),
        ],
    )
    def test_json_that_is_none(self, url, text, reason):
        refused(requests.post(f"{url}/train/m3ae", data=text, headers=JSON, timeout=30), 400, reason)
        if isinstance(text, str):
            whole = f'{{"m3ae": {text}}}'
            refused(requests.post(f"{url}/train/", data=whole, headers=JSON, timeout=30), 400, "")

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
    def test_json_by_another_name(self, url, kind):
        answer = requests.post(f"{url}/train/m3ae", data="{}", headers={"content-type": kind}, timeout=30)
        refused(answer, 415, "expected application/json")

    def test_a_request_that_brings_too_much_is_not_kept(self, url):
        most = REQUEST_BYTES >> 20
        for path in ("train/m3ae", "train/"):
            answer = requests.post(f"{url}/{path}", data=b"[" * (REQUEST_BYTES + 1), timeout=30)
            refused(answer, 413, f"exceeds {most} MiB")
        pieces = (b"[" * 65536 for _ in range(4 * most * 16))  # without a length
        assert requests.post(f"{url}/train/", data=pieces, timeout=30).status_code == 413

    def test_a_file_that_is_too_large_is_not_kept(self, url, place):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                f"PUT /datastore/label?image=good HTTP/1.1\r\nHost: {host}\r\nContent-Length: {FILE_BYTES + 1}\r\n"
                'Content-Type: multipart/form-data; boundary="b"\r\n\r\n'.encode()
            )
            assert b" 413 " in connection.recv(1000)

    def test_a_client_that_goes_away(self, url):
        """This is no error of the server; the fixture checks the log."""
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"POST /train/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert requests.get(f"{url}/info/", timeout=30).ok

    @pytest.mark.parametrize(
        ("params", "reason"),
        [({"use_t2": [1]}, ""), ({"use_t2": 5}, ""), ({"use_t2": "perhaps"}, "'perhaps': expected true or false"),
         ({"series": 5}, ""), ({"series": [5]}, ""), ({"series": {"t2": [7]}}, ""), ({"series": {"5": None}}, ""),
         ({"series": "t2"}, "expected modalities and SeriesNumbers"), ({"skull_strip": {}}, ""), ({"upright": 2}, ""),
         ({"decision": "best"}, "expected one of 'threshold', 'expected_dice'"),
         ({"store": "yes"}, ""), ({"result_extension": [".nii"]}, "expected one of .nii.gz")],
    )  # fmt: skip
    def test_options_of_wrong_types(self, url, params, reason):
        refused(infer(url, "good", **params), 400, reason)

    @pytest.mark.parametrize("value", [True, [2], 2.5])
    def test_epochs_of_wrong_types(self, url, value):
        refused(requests.post(f"{url}/train/m3ae", json={"max_epochs": value}, timeout=30), 400, "max_epochs")

    def test_a_field_that_is_missing(self, url):
        refused(requests.post(f"{url}/infer/m3ae", timeout=30), 422, "query.image: Field required.")
        refused(requests.put(f"{url}/datastore/label", params={"image": "good"}, timeout=30), 422, "body.label")


class TestOtherSites:
    @pytest.mark.parametrize(
        "headers",
        [{"origin": "http://elsewhere.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"},
         {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://[::1"}],
    )  # fmt: skip
    @pytest.mark.parametrize(("method", "path"), [("POST", "activelearning/random"), ("DELETE", "train/")])
    def test_their_pages_change_nothing(self, url, headers, method, path):
        assert requests.request(method, f"{url}/{path}", headers=headers, timeout=30).status_code in (400, 403)

    def test_its_own_pages_do(self, url):
        for headers in ({"origin": url}, {"origin": "https://label.example.org", "sec-fetch-site": "same-origin"}):
            assert requests.post(f"{url}/activelearning/random", headers=headers, timeout=30).ok

    @pytest.mark.parametrize(
        ("host", "known"),
        [("elsewhere.example", False), ("127.0.0.1.elsewhere.example", False), ("", False), ("localhost:80", True),
         ("10.0.0.1", True), ("[::1]:8000", True), ("label.example.org", True)],
    )  # fmt: skip
    def test_a_name_that_leads_here_from_elsewhere(self, url, host, known):
        answer = requests.get(f"{url}/info/", headers={"host": host}, timeout=30)
        assert answer.status_code == (200 if known else 400)

    def test_their_pages_may_not_read_answers(self, url):
        answer = requests.get(f"{url}/info/", headers={"origin": "http://elsewhere.example"}, timeout=30)
        assert "access-control-allow-origin" not in answer.headers


class TestArchive:
    """An archive that never stops sending, or sends more than fits."""

    @pytest.fixture
    def archive(self):
        class Endless(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                content = gzip.compress(bytes(1 << 26)) if "packed" in self.path else b"x" * 100_000
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                if "packed" in self.path:
                    self.send_header("content-encoding", "gzip")
                self.end_headers()
                with suppress(OSError):  # nobody is listening any more
                    for start in range(0, len(content), 1 if "slow" in self.path else 1 << 16):
                        self.wfile.write(content[start : start + (1 if "slow" in self.path else 1 << 16)])
                        time.sleep(0.05 * ("slow" in self.path))

            def log_message(self, *args: object) -> None:
                pass

        with answering(Endless) as address:
            yield address

    @pytest.mark.parametrize(("path", "stream"), [("slow", False), ("slow", True), ("packed", False), ("large", True)])
    def test_no_answer_is_read_beyond_the_limits(self, archive, monkeypatch, path, stream):
        monkeypatch.setattr(label_archive, "ANSWER_BYTES", 1 << 16)
        monkeypatch.setattr(label_archive, "ANSWER_SECONDS", 0.5)
        began = time.monotonic()
        with archive_session() as session, pytest.raises(HTTPException, match="it was cut off") as found:
            b"".join(session.get(f"{archive}/{path}", stream=stream).iter_content(1 << 20))
        assert found.value.status_code == 502
        assert time.monotonic() - began < 5

    def test_what_is_within_them_is_whole(self, archive):
        with archive_session() as session:
            assert session.get(f"{archive}/large").content == b"x" * 100_000
            assert b"".join(session.get(f"{archive}/large", stream=True).iter_content(1000)) == b"x" * 100_000


def test_a_store_whose_disk_is_full(store, tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda size: "")
    labels = tmp_path / "labels" / "final"
    labels.mkdir(parents=True)
    (labels / f".{os.getpid()}.good.nii.gz").symlink_to("/dev/full")  # the file that is written first
    with pytest.raises(HTTPException) as found:
        FolderDatastore(tmp_path, PHANTOM).save_label("good", "final", store.parent / "label.nii.gz")
    assert found.value.status_code == 507
    assert "The disk with the studies and their labels is full" in found.value.detail
    assert not list(labels.iterdir())
