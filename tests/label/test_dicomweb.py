"""The server on an archive: Orthanc with its DICOMweb plugin."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_studies import resample
from orthanc import needs_orthanc, orthanc, series, upload
from running import server
from stack import PATIENTS, SERIES, Stack, uid, write_studies

from common.study.dicom import read_study

pytestmark = needs_orthanc
SECRETS = re.compile(r"secret|1970|1980|1990|\d+\.\d+\.\d+\.\d+\.\d+", re.IGNORECASE)


def infer(stack: Stack, image: str, output: str = "json", model: str = "m3ae", **params: object) -> requests.Response:
    query = {"image": image, "output": output}
    return requests.post(f"{stack.url}/infer/{model}", params=query, data={"params": json.dumps(params)}, timeout=300)


def volume(stack: Stack, image: str, path: Path, **options: object) -> nib.Nifti1Image:
    path.write_bytes(infer(stack, image, "image", **options).content)
    return nib.load(path)


def stored(stack: Stack, series_uid: str) -> hd.seg.Segmentation:
    """Return a SEG as it lies in Orthanc."""
    find = {"Level": "Instance", "Query": {"SeriesInstanceUID": series_uid}}
    (name,) = requests.post(f"{stack.archive}/tools/find", json=find, timeout=30).json()
    return hd.seg.segread(BytesIO(requests.get(f"{stack.archive}/instances/{name}/file", timeout=30).content))


def on_source_grid(seg: hd.seg.Segmentation, study: Path, label: nib.Nifti1Image) -> dict[str, np.ndarray]:
    """Return the segments by label, (columns, rows, slices), by which image of the source they refer to."""
    series_uid = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    images = [pydicom.dcmread(path, stop_before_pixels=True) for path in study.rglob("*.dcm")]
    images = [image for image in images if image.SeriesInstanceUID == series_uid]
    towards = label.affine[:3, 2] * [-1, -1, 1]  # along the slices, LPS
    images.sort(key=lambda image: np.dot(image.ImagePositionPatient, towards))
    frames = seg.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], assert_missing_frames_are_empty=True
    )
    names = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    return {name: frames[..., number].T for number, name in enumerate(names)}


@pytest.mark.parametrize("study", ["four", "two", "one"])
def test_a_study_is_segmented_and_stored_in_the_archive(stack, study, tmp_path):
    before = set(series(stack.archive, "SEG"))
    answer = infer(stack, uid(study), store=True)
    assert answer.status_code == 200, answer.text
    params = answer.json()
    names = {2: "t1", 3: "t2", 4: "flair", 6: "t1c"}
    assert {names[number] for number in SERIES[study] if number in names} == set(params["modalities"])
    assert len(set(series(stack.archive, "SEG")) - before) == 1

    seg = stored(stack, params["stored"])
    assert (seg.PatientID, seg.StudyInstanceUID) == (PATIENTS[study]["PatientID"], uid(study))
    label = volume(stack, uid(study), tmp_path / "label.nii.gz")
    voxels = np.asarray(label.dataobj)
    segments = on_source_grid(seg, stack.folder / study, label)
    assert list(segments) == list(params["label_names"])
    for name, value in params["label_names"].items():
        assert np.array_equal(segments[name] > 0, voxels == value)
    truth = resample(stack.label, label.affine, label.shape, order=0) > 0
    dice = 2 * np.count_nonzero(truth & (voxels > 0)) / (np.count_nonzero(truth) + np.count_nonzero(voxels))
    assert dice > 0.6


def test_the_result_lies_on_the_viewed_series_and_on_no_other(stack, tmp_path):
    loaded = {one.number: one for one in read_study(stack.folder / "four") if one.number in (2, 3)}
    for number, one in loaded.items():
        label = volume(stack, uid("four", number), tmp_path / f"{number}.nii.gz")
        assert label.shape == one.shape
        assert np.allclose(label.affine, one.affine, atol=1e-3)
    answer = infer(stack, uid("four", 1))
    assert answer.status_code == 400
    assert "series 2" in answer.json()["detail"]
    left = infer(stack, uid("four", 3), use_t1c=False).json()
    assert (left["left_out"], sorted(left["modalities"])) == (["t1c"], ["flair", "t1", "t2"])


def test_oedema_alone_is_named_so_and_nothing_is_stored_of_nothing(stack, tmp_path):
    params = infer(stack, uid("two"), model="oedema", store=True).json()
    assert params["label_names"] == {"Oedema": 2}
    seg = stored(stack, params["stored"])
    assert [seg.get_segment_description(number).segment_label for number in seg.segment_numbers] == ["Oedema"]
    direct = infer(stack, uid("two"), "dicom_seg", model="oedema")
    assert direct.headers["content-type"] == "application/dicom"
    (segment,) = pydicom.dcmread(BytesIO(direct.content)).SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence[0].CodeValue) == ("Oedema", "79654002")

    before = series(stack.archive, "SEG")
    answer = infer(stack, uid("two"), model="nothing", store=True)
    assert answer.status_code == 200
    assert (answer.json()["empty"], answer.json()["stored"]) == (True, None)
    assert "Nothing was found" in json.loads(answer.headers["x-said"])
    assert not np.asarray(volume(stack, uid("two"), tmp_path / "empty.nii.gz", model="nothing").dataobj).any()
    refused = infer(stack, uid("two"), "dicom_seg", model="nothing")
    assert (refused.status_code, "nothing was found" in refused.json()["detail"]) == (404, True)
    assert series(stack.archive, "SEG") == before


@pytest.mark.parametrize(("image", "status"), [("1.2.3", 404), ("/etc/passwd", 403), ("../four", 403), ("", 403)])
def test_what_is_not_in_the_archive_is_refused(stack, image, status):
    assert infer(stack, image).status_code == status


class TestProxy:
    @pytest.mark.parametrize("key", ["StudyInstanceUID", "0020000D", "PatientID"])
    def test_a_query_reaches_the_archive(self, stack, key):
        value = PATIENTS["two"]["PatientID"] if key == "PatientID" else uid("two")
        query = {key: value, "limit": 101, "includefield": "00081030"}
        found = requests.get(f"{stack.url}/proxy/dicom/qido/studies", params=query, timeout=30).json()
        assert [study["0020000D"]["Value"] for study in found] == [[uid("two")]]

    @pytest.mark.parametrize(
        "path",
        [
            "../instances",
            "studies/../../instances",
            "studies/%2e%2e/%2e%2e/system",
            "system",
            "",
            "studies//..;/system",
        ],
    )
    def test_only_dicomweb_is_reached(self, stack, path):
        request = requests.Request("GET", f"{stack.url}/x").prepare()
        request.url = f"{stack.url}/proxy/dicom/wado/{path}"  # as it stands: requests would shorten it
        answer = requests.Session().send(request, timeout=30)
        assert answer.status_code == 404
        assert "Orthanc" not in answer.text

    def test_another_study_than_was_asked_for_is_not_shown(self, stack, tmp_path):
        """An archive, or a server between, that does not heed the query."""
        everything = requests.get(f"{stack.archive}/dicom-web/studies", timeout=30).content

        class Heedless(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/dicom+json")
                self.end_headers()
                self.wfile.write(everything if "offset=0" in self.path or "offset" not in self.path else b"[]")

            def log_message(self, *args: object) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heedless) as archive:
            threading.Thread(target=archive.serve_forever, daemon=True).start()
            with server(tmp_path, f"http://127.0.0.1:{archive.server_port}", models="m3ae") as url:
                proxied = f"{url}/proxy/dicom/qido/studies"
                assert len(requests.get(proxied, timeout=30).json()) == len(SERIES)
                for answer in (
                    requests.get(proxied, params={"StudyInstanceUID": uid("two")}, timeout=30),
                    requests.get(f"{proxied}/{uid('two')}/series", timeout=30),
                ):
                    assert (answer.status_code, "another StudyInstanceUID" in answer.text) == (502, True)
                    assert "SECRET" not in answer.text
            archive.shutdown()


def test_an_archive_that_is_gone(tmp_path):
    with orthanc(tmp_path) as archive, server(tmp_path, f"{archive}/dicom-web", models="m3ae") as url:
        stack = Stack(archive, url, tmp_path, None)
        requests.post(f"{archive}/tools/shutdown", timeout=30)
        with suppress(requests.ConnectionError):
            while requests.get(f"{archive}/system", timeout=30):
                time.sleep(0.1)
        for answer in (infer(stack, uid("two")), requests.get(f"{url}/proxy/dicom/qido/studies", timeout=60)):
            assert (answer.status_code, answer.json()["detail"]) == (502, "The DICOMweb archive does not answer.")


def test_other_sites_pages_can_do_nothing(stack):
    query = {"image": uid("one")}
    asked = requests.post(f"{stack.url}/infer/m3ae", params=query, headers={"sec-fetch-site": "cross-site"}, timeout=60)
    assert asked.status_code == 403
    assert requests.get(f"{stack.url}/info/", headers={"host": "elsewhere.example"}, timeout=30).status_code == 400
    answer = requests.get(f"{stack.url}/info/", headers={"origin": "http://elsewhere.example"}, timeout=30)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "model/m3ae"), ("DELETE", "model/m3ae"), ("GET", "logs/"), ("POST", "reload"), ("PUT", "session/"),
     ("POST", "batch/infer/m3ae"), ("DELETE", "datastore/image?id=x"), ("GET", "datastore/dataset")],
)  # fmt: skip
def test_the_rest_of_the_stock_server_does_not_exist(stack, method, path):
    assert requests.request(method, f"{stack.url}/{path}", timeout=30).status_code in (404, 405)


def test_no_patient_in_the_log_and_no_file_is_left(tmp_path):
    """A server of its own, so that it can be looked at after its end."""
    write_studies(tmp_path)
    with orthanc(tmp_path) as archive:
        upload(archive, tmp_path / "one")
        with server(tmp_path, f"{archive}/dicom-web", models="m3ae") as url:
            stack = Stack(archive, url, tmp_path, None)
            assert infer(stack, uid("one"), store=True).status_code == 200
            assert infer(stack, uid("one", 1)).status_code == 404
            assert requests.get(f"{url}/proxy/dicom/qido/studies", params={"PatientID": "SECRET-0042"}, timeout=30).ok
            left = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
            assert not left
        assert not list((tmp_path / "tmp").iterdir())
    log = (tmp_path / "server.log").read_text()
    assert "POST /infer/{model} m3ae 200" in log
    assert not SECRETS.search(log.replace(f"{archive}/dicom-web", "").replace(url, ""))
