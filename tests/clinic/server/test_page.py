"""The server's page in headless Chromium, from a dropped study to its result, and the same in one request."""

from __future__ import annotations

import io
import json
import re
import shutil
import socket
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import browser
import nibabel as nib
import numpy as np
import pytest
import requests
from browser import Page, RefusedError, chromium
from dicom_studies import study, write_study
from orthanc import needs_orthanc, orthanc, series
from phantom_case import weights_of_patients
from running import server

from mmb.server.limits import UPLOAD_BYTES

SECRETS = re.compile(r"Secret|SECRET|19700101|1\.2\.826\.0|Doe|summary")
needs_chromium = pytest.mark.skipif(not Path(browser.PROGRAM).is_file(), reason="Debian's package chromium")


@pytest.fixture(scope="module")
def dropped(place, subject) -> Path:
    """A DICOM study in a folder with a patient's name."""
    write_study(place / "Doe", subject, study(("t1c", "t2")))
    return place / "Doe"


@pytest.fixture(scope="module")
def url(place):
    """The server's address. At its end nothing of a study is left, and no name was logged."""
    (place / "store").mkdir()
    options = {"models": "m3ae", "m3ae.ckpt_path": str(weights_of_patients(place))}
    with server(place, place / "store", names="label.example.org", **options) as address:
        yield address
    assert not any((place / "tmp").iterdir())
    log = (place / "server.log").read_text()
    assert "POST /segment/{model} m3ae 200" in log
    assert not SECRETS.search(log)
    assert "ERROR" not in log


def packed(folder: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder.parent))
    return content.getvalue()


def results(answer: requests.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def label(files: dict[str, bytes], path: Path) -> np.ndarray:
    path.write_bytes(files["label.nii.gz"])
    return np.asarray(nib.load(path).dataobj)


class TestOneRequest:
    def test_a_zip_goes_in_and_a_zip_comes_out(self, url, dropped, tmp_path):
        made = [results(requests.post(f"{url}/segment/m3ae", data=packed(dropped), timeout=600)) for _ in range(2)]
        assert {"label.nii.gz", "seg.dcm", "summary.html"} <= {*made[0]}
        first, second = (label(files, tmp_path / "label.nii.gz") for files in made)
        assert first.any()
        assert np.array_equal(first, second)  # nothing is kept of the study before

    def test_a_refusal_says_what_was_found(self, url, subject):
        image = (subject / "Doe_t2.nii.gz").read_bytes()
        files = [("files", (f"Doe_{name}.nii.gz", image)) for name in ("t1", "t2")]
        said = requests.post(f"{url}/segment/m3ae", files=files, timeout=600).json()
        assert "the same image" in said["detail"]
        assert (said["code"], said["about"]) == ("unusable", [])
        assert [(each["modality"], each["use"]) for each in said["found"]] == [("t1", "undecided"), ("t2", "undecided")]

    def test_files_in_a_form_and_options_in_the_address(self, url, subject, tmp_path):
        files = [
            ("files", (f"Doe_{name}.nii.gz", (subject / f"Doe_{name}.nii.gz").read_bytes())) for name in ("t2", "flair")
        ]
        both = results(requests.post(f"{url}/segment/m3ae", files=files, timeout=600))
        one = results(requests.post(f"{url}/segment/m3ae?use_t2=false", files=files, timeout=600))
        assert not np.array_equal(label(both, tmp_path / "a.nii.gz"), label(one, tmp_path / "b.nii.gz"))
        assert "seg.dcm" not in both

    @pytest.mark.parametrize(
        ("path", "content", "status", "reason"),
        [
            ("m3ae", b"no study", 400, "The body is no zip; send a zip of the study"),
            ("m3ae?decision=best", b"", 422, "'threshold', 'expected_dice'"),
            ("m3ae", b"PK\3\4" + bytes(50), 400, "The zip is damaged"),
            ("m3ae?use_t1x=false", b"", 422, "use_t1x: Extra inputs are not permitted"),
            ("m3ae?store=true", b"", 422, "store: Extra inputs are not permitted"),
            ("unet", b"", 404, "Unknown model 'unet'; expected one of m3ae"),
        ],
    )
    def test_what_is_no_study_is_refused_in_a_line(self, url, path, content, status, reason):
        answer = requests.post(f"{url}/segment/{path}", data=content, timeout=300)
        assert answer.status_code == status, answer.text
        assert re.search(reason, answer.json()["detail"])
        assert not re.search(r"\n|/tmp|study-", answer.json()["detail"])

    @pytest.mark.parametrize("request_line", ["POST {}/segment/m3ae", "PUT {}/studies/x/files?name=x"])
    def test_one_that_is_too_large_is_refused_before_it_is_read(self, url, request_line):
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            head = f"{request_line.format(address.path)} HTTP/1.1\r\nHost: {address.hostname}\r\n"
            connection.sendall(f"{head}Content-Length: {UPLOAD_BYTES + 1}\r\n\r\n".encode())
            assert b" 413 " in connection.recv(1000) or request_line.startswith("PUT")

    def test_a_study_that_nobody_sent(self, url):
        for method, path in (("GET", ""), ("PUT", "/files?name=x"), ("POST", "/read"), ("GET", "/summary.html")):
            assert requests.request(method, f"{url}/studies/nobody{path}", timeout=60).status_code == 404


@needs_orthanc
def test_results_are_sent_to_an_archive(dropped, tmp_path):
    (tmp_path / "store").mkdir()
    with orthanc(tmp_path) as archive:
        options = {"models": "m3ae", "m3ae.ckpt_path": str(weights_of_patients(tmp_path))}
        with server(tmp_path, tmp_path / "store", send=f"{archive}/dicom-web", **options) as url:
            results(requests.post(f"{url}/segment/m3ae", data=packed(dropped), timeout=600))
        assert len(series(archive, "SEG")) == 1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser"), height=1600) as tab:
        yield tab


def drop(page: Page, folder: Path) -> None:
    """Drop a folder from another program onto the page."""
    x, y = page.evaluate(
        "(({ x, y, width }) => [x + width / 2, y + 20])(document.getElementById('drop').getBoundingClientRect())"
    )
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)


def leave(page: Page) -> None:
    """Say yes when the browser asks whether to leave a page that works."""
    until = time.monotonic() + 30
    while True:
        try:
            page.call("Page.handleJavaScriptDialog", accept=True)
            return
        except RefusedError:  # it has not asked yet
            assert time.monotonic() < until
            time.sleep(0.1)


def set_to(page: Page, name: str, value: str) -> None:
    """Choose what is used as a sequence."""
    chosen = f"document.querySelector('select[name={name}]')"
    page.evaluate(f"{chosen}.value = {json.dumps(value)}")
    page.evaluate(f"{chosen}.dispatchEvent(new Event('change', {{ bubbles: true }}))")


def shown(name: str) -> str:
    return f"!document.getElementById('{name}').hidden && !document.body.hasAttribute('aria-busy')"


@needs_chromium
class TestPage:
    def test_from_a_dropped_folder_to_the_result(self, page, url, dropped, tmp_path):
        page.open(f"{url}/")
        drop(page, dropped)
        page.wait(shown("recognised"))
        assert page.evaluate("document.activeElement.innerText") == "2. Check what was recognised"
        cards = page.evaluate("document.getElementById('candidates').innerText")
        assert re.search(r"series 6.*\n+\d+ images, .* mm\n+Taken for T1c \(", cards)
        pictures = "[...document.querySelectorAll('#candidates img')].map((image) => image.naturalWidth)"
        assert 0 < min(page.evaluate(pictures)) <= max(page.evaluate(pictures)) <= 160
        chosen = "[...document.querySelectorAll('#sequences select')].map((s) => s.selectedOptions[0].text)"
        assert [text.split(":")[1] for text in page.evaluate(chosen)[1:3]] == [" series 6", " series 3"]
        assert page.evaluate(chosen)[1].count(": ") == 2  # the series is described

        # What can be found at once does not wait for its turn.
        set_to(page, "t1", "=6")
        set_to(page, "t1c", "=6")
        assert "series 6" in page.evaluate("document.getElementById('refused').innerText")
        assert page.evaluate("document.getElementById('segment').disabled")
        for name, value in (("t1", "none"), ("t1c", "none"), ("t2", "none"), ("flair", "none")):
            set_to(page, name, value)
        assert page.evaluate("document.getElementById('segment').disabled")
        for name, value in (("t1", ""), ("t1c", ""), ("flair", "")):
            set_to(page, name, value)
        assert not page.evaluate("document.getElementById('refused').innerText")

        page.evaluate("document.getElementById('label').value = 'Left-handed'")
        page.evaluate("document.querySelector('#recognised button').focus()")
        page.evaluate("document.querySelector('#recognised button').click()")
        page.wait("document.getElementById('status').textContent.includes('aligning')", 300)
        assert page.evaluate("document.activeElement.innerText") == "Segment"
        page.call("Network.enable")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.call("Network.emulateNetworkConditions", offline=True, **offline)
        page.wait("document.getElementById('status').textContent.includes('trying again')")
        page.call("Network.emulateNetworkConditions", offline=False, **offline)
        page.call("Page.enable")
        page.call("Page.reload")
        leave(page)
        page.wait("document.title.startsWith('Working')")
        page.wait(shown("result"), 600)
        assert page.evaluate("document.title") == "Done \u2013 Left-handed \u2013 Segment a study"
        assert page.evaluate("document.querySelector('select[name=t2]').value") == "none"
        assert page.evaluate("document.getElementById('picture').naturalWidth") > 0
        assert re.search(r"Whole tumour.*\d", page.evaluate("document.getElementById('regions').innerText"))
        assert "Done." in page.evaluate("document.getElementById('status').innerText")
        saves = page.evaluate("[...document.querySelectorAll('#saves a')].map((a) => [a.download, a.href])")
        assert {"results.zip", "label.nii.gz", "seg.dcm", "summary.html"} <= {name for name, _ in saves}
        files = results(requests.get(dict(saves)["results.zip"], timeout=60))
        said = json.loads(files["summary.json"])
        assert page.evaluate("document.getElementById('answer').innerText") == said["answer"]
        listed = page.evaluate("document.getElementById('warnings').innerText")
        assert all(each["text"] in listed for each in said["remarks"] if each["gravity"] != "note")
        assert b"missing: T1, T2, FLAIR" in files["summary.html"]
        assert b"Left-handed" in files["summary.html"]
        assert {*results(requests.get(page.evaluate("document.getElementById('save').href"), timeout=60))} == {
            "seg.dcm", "report.dcm",
        }  # fmt: skip
        page.screenshot(tmp_path / "result.png")

        # Neither can the result's page be framed nor has its script the server's origin, or any network.
        summary = page.evaluate("document.getElementById('open').href")
        page.open(summary)
        page.wait("document.title.startsWith('Segmentation')")
        assert page.evaluate("self.origin") == "null"
        blocked = page.evaluate(f"fetch({json.dumps(url + '/info/')}).then(() => 'read', () => 'blocked')")
        assert blocked == "blocked"
        page.back()
        page.wait(shown("result"))
        page.evaluate("document.getElementById('remove').click()")
        page.wait("document.getElementById('result').hidden && !location.hash")
        assert requests.get(summary, timeout=60).status_code == 404

    def test_files_are_chosen_and_corrected_by_keyboard_and_on_a_telephone(self, page, url, subject, tmp_path):
        page.call("Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=1, mobile=True)
        for name, held in (("MRI brain post contrast", "t2"), ("b_flair", "flair")):
            shutil.copy(subject / f"Doe_{held}.nii.gz", tmp_path / f"{name}.nii.gz")
        page.open(f"{url}/")
        (node,) = (page.call("Runtime.evaluate", expression="document.getElementById('files')")["result"],)
        page.call(
            "DOM.setFileInputFiles", files=[str(path) for path in sorted(tmp_path.iterdir())], objectId=node["objectId"]
        )
        page.wait(shown("recognised"))
        page.evaluate("document.querySelector('select[name=t2]').focus()")
        page.call("Input.insertText", text="M")
        set_to(page, "t2", "=MRI brain post contrast.nii.gz")
        page.evaluate("document.querySelector('#recognised button').click()")
        page.wait(shown("result"), 600)
        summary = requests.get(page.evaluate("document.getElementById('open').href"), timeout=60).text
        assert "from T2, FLAIR" in summary
        for width in (420, 320):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(tmp_path / "telephone.png")

    def test_what_is_no_study_is_a_line_on_the_page(self, page, url, tmp_path):
        (tmp_path / "<img src=x onerror=alert(1)>.txt").write_text("text")
        page.open(f"{url}/")
        drop(page, tmp_path)
        page.wait("!document.getElementById('problem').hidden")
        assert "The study" in page.evaluate("document.activeElement.innerText")
        assert page.evaluate(f"!({shown('recognised')})")
