"""Labels in a DICOMweb archive: what a person approved of is a DICOM SEG that trainings are made from."""

from __future__ import annotations

import gzip
import io
import json
import re
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_studies import resample, study, write_study
from orthanc import needs_orthanc, orthanc, series, upload
from running import server

from common.cohorts.phantom.cohort import PHANTOM
from common.cohorts.phantom.simulation import SPACING, simulate
from label.studies import Archive
from label.train import collect

LPS = np.diag([-SPACING, -SPACING, SPACING, 1.0])
pytestmark = needs_orthanc
SECRETS = re.compile(r"Secret|SECRET|19700101|1\.2\.826\.0|2\.25\.")


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    images, label = simulate(1000 * 2023 + 29)
    for name, voxels in (images | {"seg": label}).items():
        nib.save(nib.Nifti1Image(voxels, LPS), folder / f"case_{'t1ce' if name == 't1c' else name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def archive(subject, tmp_path_factory):
    """Two studies, of T1c and T2 and of T2 alone, in Orthanc; yields its URL."""
    folder = tmp_path_factory.mktemp("orthanc")
    with orthanc(folder) as url:
        for name, modalities in {"one": ("t2",), "two": ("t1c", "t2")}.items():
            write_study(folder / name, subject, study(modalities), seed=name)
            upload(url, folder / name)
        yield url


@pytest.fixture(scope="module")
def url(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with server(folder, f"{archive}/dicom-web", models="m3ae") as address:
        yield address
    assert not any((folder / "tmp").iterdir())
    assert not SECRETS.search((folder / "server.log").read_text())


def test_final_labels_train_and_results_of_models_do_not(url, archive, subject, tmp_path):
    place = f"{archive}/dicom-web"
    studies = Archive(place, PHANTOM)
    images = studies.list_images()
    assert len(images) == 2
    listed = requests.get(f"{url}/datastore/", params={"output": "all"}, timeout=10).json()["objects"]
    assert listed == {image: {"labels": {}} for image in images}

    # What a model made is stored, and is no label to train on.
    result = requests.post(
        f"{url}/infer/m3ae",
        params={"image": images[0], "output": "json"},
        data={"params": json.dumps({"store": True})},
        timeout=300,
    )
    stored = result.json()["stored"]
    assert stored
    assert (studies.labelled("original"), studies.labelled("final")) == ({images[0]}, set())
    answer = requests.post(f"{url}/train/m3ae", json={"max_epochs": 1}, timeout=60)
    assert answer.status_code == 400
    assert "No study has a final label" in answer.json()["detail"]

    # A person draws on the image that the server shows.
    truth = nib.load(subject / "case_seg.nii.gz")
    drawn = {}
    for image in images:
        shown = requests.get(f"{url}/datastore/image", params={"image": image}, timeout=60)
        grid = nib.Nifti1Image.from_bytes(gzip.decompress(shown.content))
        voxels = resample(truth, grid.affine, grid.shape, order=0).astype(np.uint8)
        drawn[image] = nib.Nifti1Image(np.select([voxels == 4, voxels == 2], [1, 2], 0).astype(np.uint8), grid.affine)
        nib.save(drawn[image], tmp_path / "label.nii.gz")
        names = [{"name": "Enhancing tumour", "idx": 1}, {"name": "Oedema", "idx": 2}]
        answer = requests.put(
            f"{url}/datastore/label",
            params={"image": image, "tag": "final"},
            data={"params": json.dumps({"label_info": names})},
            files={"label": (tmp_path / "label.nii.gz").open("rb")},
            timeout=60,
        )
        assert answer.status_code == 200
    assert studies.labelled("final") == set(images)
    kept = [
        pydicom.dcmread(io.BytesIO(requests.get(f"{archive}/instances/{name}/file", timeout=10).content))
        for one in series(archive, "SEG")
        for name in requests.get(f"{archive}/series/{one}", timeout=10).json()["Instances"]
    ]
    labels = {
        str(one.SeriesInstanceUID): [(s.SegmentLabel, s.SegmentAlgorithmType) for s in one.SegmentSequence]
        for one in kept
    }
    assert {kind for _, kind in labels.pop(stored)} == {"AUTOMATIC"}
    assert list(labels.values()) == [[("Oedema", "SEMIAUTOMATIC"), ("Enhancing tumour", "SEMIAUTOMATIC")]] * 2

    # It comes back as it was drawn, and so it goes into the training.
    again = requests.get(f"{url}/datastore/label", params={"label": images[0], "tag": "final"}, timeout=60)
    (tmp_path / "again.nii.gz").write_bytes(again.content)
    voxels = np.asarray(drawn[images[0]].dataobj)
    assert np.array_equal(nib.load(tmp_path / "again.nii.gz").dataobj, np.select([voxels == 1, voxels == 2], [4, 2], 0))
    items, refused = collect(studies, tmp_path)
    assert not refused
    assert sorted(item["modalities"] for item in items) == [["t1c", "t2"], ["t2"]]
    assert not SECRETS.search(json.dumps(items))

    assert requests.post(f"{url}/train/m3ae", json={"max_epochs": 1, "val_split": 0}, timeout=60).status_code == 200
    while (status := requests.get(f"{url}/train/", timeout=10).json())["status"] == "RUNNING":
        time.sleep(0.5)
    assert (status["status"], status["training_studies"]) == ("DONE", 2)


def test_what_is_not_in_the_archive(url):
    for image, status in (("1.2.3.4", 404), ("../../instances", 403), ("/etc/passwd", 403), ("1.2&StudyDate=2", 403)):
        answer = requests.post(f"{url}/infer/m3ae", params={"image": image}, timeout=30)
        assert answer.status_code == status
        assert len(answer.json()["detail"].splitlines()) == 1
