"""The server with a folder of studies, over HTTP: what it answers and refuses, and what MONAI Label got wrong."""

from __future__ import annotations

import gzip
import re
import shutil
import signal
import sys
import threading
import time
from functools import cache
from pathlib import Path

import highdicom as hd
import itk
import nibabel as nib
import numpy as np
import pytest
import requests
from bundles.running import shipped
from dicom_studies import edit_series, study, write_study
from pydicom.uid import generate_uid
from run_tools import Here
from running import infer, put, result, server, used

from common.cohorts.phantom.simulation import SPACING
from common.cohorts.registry import PHANTOM
from common.cohorts.scan import find_cases
from common.io.bundle import bundle_root
from common.io.checkpoints import read_checkpoint, write_checkpoint
from mmb.__main__ import main
from mmb.clinic.examples.patient import CASE
from mmb.clinic.options import Options
from mmb.clinic.study import predict
from mmb.predictors.bundle import SYNTHETIC
from mmb.server.app import App
from mmb.server.datastore import Datastore
from mmb.server.export import export_labelled_studies
from mmb.server.model import BundleInferTask
from mmb.server.options import InferOptions, options_for

SECRETS = re.compile(r"Secret|SECRET|19700101|1\.2\.826\.0|Doe")
NAMES = {"Necrotic core": 1, "Oedema": 2, "Enhancing tumour": 4}
DEMO = Path(bundle_root("m3ae"), "models", "phantom.pt")
FOUND = {"one": ["t2"], "two": ["t1c", "flair"], "four": [*PHANTOM.modalities]}
"""Name of a study of image files -> its sequences."""


@pytest.fixture(scope="module")
def store(subject, tmp_path_factory) -> Path:
    """Studies with one to four sequences, NIfTI and DICOM, and some unusable ones."""
    root = tmp_path_factory.mktemp("store")
    for name, modalities in FOUND.items():
        (root / name).mkdir()
        for modality in modalities:
            shutil.copy(subject / f"Doe_{'t1ce' if modality == 't1c' else modality}.nii.gz", root / name)
    write_study(root / "dicom", subject, study(("t1c", "t2")))
    for name in ("patients", "candidates"):
        shutil.copytree(root / "dicom", root / name)
    edit_series(root / "patients", 3, {"PatientID": "SECRET-2"})
    shutil.copytree(root / "candidates" / "006", root / "candidates" / "009")
    edit_series(root / "candidates", 9, {"SeriesInstanceUID": generate_uid(), "SeriesNumber": 9})
    edit_series(root / "candidates", 9, lambda dataset: setattr(dataset, "SOPInstanceUID", generate_uid()))
    (root / "unusable").mkdir()
    shutil.copytree(root / "dicom" / "001", root / "unusable" / "001")
    return root


@pytest.fixture(scope="module")
def url(store, place):
    (place / "site.json").write_text('{"none": ["ep2d*"]}')
    with server(place, store, site=str(place / "site.json")) as address:
        (place / "site.json").unlink()  # it is read at the start
        yield address
    assert not any((place / "tmp").iterdir())  # at its end no patient data are left
    log = (place / "server.log").read_text()
    assert "POST /infer/{model} m3ae 200" in log
    assert not SECRETS.search(log)


@pytest.fixture(scope="module")
def segmented(url, tmp_path_factory):
    """Return a function that segments a study once, with m3ae and the phantom's weights."""
    folder = tmp_path_factory.mktemp("segmented")
    return cache(lambda image: result(url, image, folder / f"{image}.nii.gz"))


def test_info_lists_all_bundles(url):
    info = requests.get(f"{url}/info/", timeout=10).json()
    assert (sorted(info["models"]), info["trainers"]) == (shipped(), {})
    assert next(iter(info["models"])) == "m3ae"
    for model in info["models"].values():
        assert (model["type"], model["labels"]) == ("segmentation", NAMES)
        assert {"use_t1", "use_t1c", "use_t2", "use_flair"} <= set(model["config"])
    assert info["datastore"]["total"] == 7


@pytest.mark.parametrize(("image", "found"), [*FOUND.items(), ("dicom", ["t1c", "t2"])])
def test_any_subset(url, segmented, image, found, tmp_path):
    params, label = segmented(image)
    assert used(params) == found
    assert params["missing"] == [name for name in PHANTOM.modalities if name not in found]
    assert (params["left_out"], params["empty"], params["stored"]) == ([], False, None)
    assert params["trained_on"].startswith("patients drawn by this software")
    assert "only on synthetic images: never trust" in params["warnings"][0]
    assert "grid" in [remark["code"] for remark in params["remarks"]]
    assert gzip.decompress(Path(label.get_filename()).read_bytes())[344:348] == b"n+1\0"  # NIfTI, as its name says
    shown = requests.get(f"{url}/datastore/image", params={"image": image}, timeout=60)
    (tmp_path / "image.nii.gz").write_bytes(shown.content)
    expected = nib.load(tmp_path / "image.nii.gz")
    assert label.shape == expected.shape  # one volume, not a channel for each region
    assert np.allclose(label.affine, expected.affine, atol=1e-3)
    assert label.get_data_dtype() == np.uint8
    voxels = np.asarray(label.dataobj)
    assert set(np.unique(voxels)) == {0, *params["label_names"].values()}


@pytest.mark.parametrize("model", [name for name in shipped() if name != "m3ae"])
def test_every_bundle_segments(url, model):
    params = infer(url, "two", model=model).json()
    assert used(params) == ["t1c", "flair"]
    assert params["volumes"]["WT"] > 5


def test_a_sequence_is_left_out_and_nrrd_lies_where_nifti_does(url, segmented, tmp_path):
    left = infer(url, "two", use_t1c=False).json()
    assert (used(left), left["left_out"], left["missing"]) == (["flair"], ["t1c"], ["t1", "t2"])
    assert any("No T1c" in warning for warning in left["warnings"])
    _, nifti = segmented("dicom")
    (tmp_path / "a.nrrd").write_bytes(infer(url, "dicom", "image", result_extension=".nrrd").content)
    nrrd = itk.imread(tmp_path / "a.nrrd")
    assert np.array_equal(itk.array_from_image(nrrd).T, np.asarray(nifti.dataobj))
    corner = nifti.affine @ [1, 2, 3, 1]
    assert np.allclose(nrrd.TransformIndexToPhysicalPoint([1, 2, 3]), corner[:3] * [-1, -1, 1], atol=1e-3)


def test_the_server_answers_while_it_infers(url):
    done, answers = [], 0
    thread = threading.Thread(target=lambda: done.append(infer(url, "four").status_code))
    thread.start()
    while thread.is_alive():
        requests.get(f"{url}/info/", timeout=30).raise_for_status()
        answers += 1
        time.sleep(0.05)
    assert done == [200]
    assert answers > 5  # a server that waits for the network would answer once or twice


@pytest.mark.parametrize(
    ("image", "params", "status", "reason"),
    [
        ("patients", {}, 400, "The study: images of 2 patients"),
        ("candidates", {}, 400, "series 6, series 9: all are T1c and cannot be told apart"),
        ("unusable", {}, 400, "Nothing is recognised as one of T1, T1c, T2, FLAIR"),
        ("nobody", {}, 404, "no study of this name"),
        ("/etc/passwd", {}, 403, "is not in the study store"),
        ("../store/two", {}, 403, "is not in the study store"),
        ("labels", {}, 404, "no study of this name"),
        ("two", {"use_t1c": False, "use_flair": False}, 400, "none of the requested modalities"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(url, store, image, params, status, reason):
    before = sorted(store.rglob("*"))
    answer = infer(url, image, store=True, **params)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]
    assert len(answer.json()["detail"].splitlines()) == 1
    assert not re.search(r"Traceback|/tmp|SECRET", answer.text)
    assert sorted(store.rglob("*")) == before


def test_two_candidates_are_decided_by_hand(url):
    params = infer(url, "candidates", series="t1c=9, t2=3").json()
    assert "series 5: left out: by the site's table." in params["explanations"]
    assert {one["modality"]: one["source"] for one in params["used"]} == {"t1c": "series 9", "t2": "series 3"}
    assert any(line.startswith("series 6: T1c") and "not used, as requested" in line for line in params["explanations"])


class TestLabels:
    def test_labels_are_taken_by_name_and_on_the_grid_of_an_image(self, url, store, subject, tmp_path):
        truth = nib.load(subject / "Doe_seg.nii.gz")
        voxels = np.asarray(truth.dataobj)
        file = tmp_path / "label.nii.gz"

        def save(values: np.ndarray, affine: np.ndarray = truth.affine) -> None:
            nib.save(nib.Nifti1Image(values.astype(np.uint8), affine), file)

        def listed(*names: str) -> dict:
            return {"label_info": [{"name": name, "idx": number} for number, name in enumerate(names, start=1)]}

        def final(image: str, number: int = -1) -> np.ndarray:
            return np.asarray(nib.load(sorted((store / "labels" / "final" / image).iterdir())[number]).dataobj)

        save((voxels == 2).astype(int))
        for refused, params, reason in [
            ("one", listed("Oedema", "Tumour"), "Segment 'Tumour'; expected some of Necrotic core"),
            ("dicom", {}, "does not lie on the grid of any image of the study"),
        ]:
            answer = put(url, refused, file.read_bytes(), **params)
            assert answer.status_code == 400
            assert reason in answer.json()["detail"]
        assert put(url, "one", file.read_bytes(), tag="original").status_code == 400
        save(voxels + 1)
        assert "values [3, 5]" in put(url, "one", file.read_bytes()).json()["detail"]
        save(voxels, np.diag([1.0, 1, 1, 1]))
        assert put(url, "one", file.read_bytes()).status_code == 400
        assert not (store / "labels").exists()

        # With oedema alone, the only value is oedema, not the first class of a list.
        save((voxels == 2).astype(int))
        assert put(url, "two", file.read_bytes(), **listed("Oedema")).status_code == 200
        kept = final("two")
        assert np.array_equal(kept, np.where(voxels == 2, 2, 0))
        save(np.select([voxels == 4, voxels == 1, voxels == 2], [1, 2, 3]))
        names = ("Enhancing tumour", "Necrotic core", "Oedema")
        for image in ("two", "four"):
            assert put(url, image, file.read_bytes(), **listed(*names)).status_code == 200
            assert np.array_equal(final(image), voxels)
        assert np.array_equal(final("two", 0), kept)  # approved earlier, and still there
        assert requests.get(f"{url}/info/", timeout=10).json()["datastore"]["completed"] == 2
        left = {requests.post(f"{url}/activelearning/random", timeout=10).json()["id"] for _ in range(20)}
        assert not left & {"two", "four"}

    @pytest.mark.parametrize(
        "request_line",
        ["PUT model/m3ae", "DELETE model/m3ae", "GET logs/", "POST reload", "PUT session/", "POST train/m3ae",
         "DELETE datastore/image?id=x", "GET datastore/dataset", "GET ohif/", "GET proxy/dicom/wado/studies"],
    )  # fmt: skip
    def test_the_rest_of_the_stock_server_does_not_exist(self, url, request_line):
        method, path = request_line.split()
        assert requests.request(method, f"{url}/{path}", timeout=30).status_code in (404, 405)

    def test_the_client_of_3d_slicer(self, url, subject, tmp_path):
        """MONAI Label's own client, which its extension for 3D Slicer includes."""
        client = pytest.importorskip("monailabel.client.client").MONAILabelClient(url, str(tmp_path))
        assert client.info()["models"]["m3ae"]["labels"] == NAMES
        assert client.next_sample("random", {})["id"] not in ("two", "four")
        file, params = client.infer("m3ae", "two", {"use_t1c": False})
        assert used(params) == ["flair"]
        assert set(np.unique(nib.load(file).dataobj)) == {0, *params["label_names"].values()}
        names = {"label_info": [{"name": name, "idx": value} for name, value in [("Necrotic core", 1), ("Oedema", 2)]]}
        truth = nib.load(subject / "Doe_seg.nii.gz")
        drawn = nib.Nifti1Image(np.asarray(truth.dataobj) % 4, truth.affine)  # no enhancing tumour, 4
        nib.save(drawn, tmp_path / "label.nii.gz")
        before = client.download_label("two", "final")
        assert client.save_label("two", str(tmp_path / "label.nii.gz"), "final", names)["image"] == "two"
        assert np.array_equal(nib.load(client.download_label("two", "final")).dataobj, drawn.dataobj)
        assert client.datastore()["objects"]["two"] == {"labels": {"final": {}}}
        client.save_label("two", before, "final", {})


def test_labelled_studies_become_cases_without_absent_modalities(subject, tmp_path):
    for name, modalities in {"Doe 1": ("t1", "t1ce", "flair"), "Doe 2": ("flair",), "no label": ("t2",)}.items():
        (tmp_path / "studies" / name).mkdir(parents=True)
        for modality in modalities:
            shutil.copy(subject / f"Doe_{modality}.nii.gz", tmp_path / "studies" / name)
    labels = tmp_path / "studies" / "labels" / "final"
    labels.mkdir(parents=True)
    shutil.copy(subject / "Doe_seg.nii.gz", labels / "Doe 1.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), labels / "Doe 2.nii.gz")  # on no image's grid
    names, (reason,) = export_labelled_studies(str(tmp_path / "studies"), tmp_path / "cases", "phantom")
    assert names == ["case_000"]
    assert "does not lie on the grid of any image" in reason
    (case,) = find_cases(tmp_path / "cases", PHANTOM)
    assert case["modalities"] == ["t1", "t1c", "flair"]
    assert not SECRETS.search("".join(path.name for path in (tmp_path / "cases").iterdir()))
    truth, label, image = (nib.load(path) for path in (labels / "Doe 1.nii.gz", case["label"], case["image"][0]))
    assert np.array_equal(label.affine, image.affine)
    assert np.asarray(label.dataobj)[np.asarray(image.dataobj) == 0].mean() < 0.01
    for value in NAMES.values():
        small, large = (np.count_nonzero(np.asarray(each.dataobj) == value) for each in (truth, label))
        assert large == pytest.approx(small * SPACING**3, rel=0.1)


def test_the_bare_command_serves_the_weights_of_patients_and_the_example(tmp_path):
    with server(tmp_path, None, token="none", recipe=None, models="m3ae") as url:
        assert requests.get(f"{url}/info/", timeout=10).json()["warnings"] == []
        assert requests.get(f"{url}/studies", timeout=10).json()["studies"] == [CASE]
        assert requests.post(f"{url}/studies?image=..", timeout=10).status_code == 403
        name = requests.post(f"{url}/studies?image={CASE}", timeout=60).json()["study"]
        read = requests.post(f"{url}/studies/{name}/read", timeout=120).json()
    assert {*read["automatic"]} == {"t1", "t1c", "t2", "flair"}
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"example"}


def test_of_the_phantom_it_is_said_at_once_that_it_is_not_for_patients(tmp_path):
    with server(tmp_path, None, token="none", models="m3ae") as url:
        assert requests.get(f"{url}/info/", timeout=10).json()["warnings"] == [f"m3ae: {SYNTHETIC}"]
        assert requests.get(f"{url}/datastore/image", params={"image": "Phantom_001"}, timeout=60).ok
    assert SYNTHETIC in (tmp_path / "server.log").read_text()


def test_studies_get_the_weights_of_patients_with_their_own_settings(store, tmp_path):
    """The windows are those that the weights record, as for `predict`."""
    app = App(str(store), ["m3ae"])
    app.models["m3ae"].worker = Here()
    params = app.models["m3ae"].segment_image(app.datastore, "four", app.infer_options(), tmp_path)["params"]
    assert app.info()["models"]["m3ae"]["labels"] == NAMES | {"Enhancing tumour": 3}
    assert params["trained_on"].startswith("36 openly licensed cases")
    assert not any("trained on" in warning for warning in params["warnings"])
    volumes = predict(store / "four", tmp_path / "predicted", Options("m3ae", None)).summary.volumes
    assert params["volumes"] == pytest.approx(volumes, abs=0.001)


OTHER_WEIGHTS = bundle_root("gss") + "/models/phantom.pt"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"port": 99999}, "--port 99999"),
        ({"studies": "out#1"}, "out#1: no such folder"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: other machines could keep everyone out by open connections."),
        ({"send": "archive"}, "--send archive: expected the URL"),
        ({"site": "absent.json"}, "--site absent.json: no such file"),
        ({"gss.ckpt_path": "x"}, "--gss.ckpt_path: no such option"),
        ({"m3ae.ckpt_path": OTHER_WEIGHTS}, f"{OTHER_WEIGHTS}: its network was trained with spacing"),
    ],
)
def test_options_that_cannot_be_used(store, monkeypatch, option, reason):
    options = {"studies": store, "models": "m3ae", "recipe": "phantom"} | option
    monkeypatch.setattr(sys, "argv", ["mmb", "serve", *(f"--{key}={value}" for key, value in options.items())])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=f"^error: {re.escape(reason)}"):
            main()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("biases", "present"), [((1e3, -1e3, -1e3), {"Oedema": 2}), ((-1e3, -1e3, -1e3), {})])
def test_classes_keep_their_names_and_nothing_is_stored_of_an_empty_result(store, tmp_path, biases, present):
    weights = {key: value.float() for key, value in read_checkpoint(DEMO).items()}
    weights["unet.head.bias"] += weights["unet.head.bias"].new_tensor(biases)
    write_checkpoint(weights, tmp_path / "own.pt")
    shutil.copytree(store / "dicom", tmp_path / "studies" / "dicom")
    task = BundleInferTask("m3ae", Here(), "phantom", str(tmp_path / "own.pt"))
    asked = options_for(InferOptions, PHANTOM.modalities)(store=True)
    result = task.segment_image(Datastore(tmp_path / "studies", PHANTOM), "dicom", asked, tmp_path)
    params, label = result["params"], nib.load(result["file"])
    assert params["label_names"] == present
    assert params["empty"] is not bool(present)
    assert params["trained_on"] is None
    assert set(np.unique(np.asarray(label.dataobj))) == {0, *present.values()}
    stored = tmp_path / "studies" / "labels" / "original" / "dicom"
    if present:
        found = hd.seg.segread(result["dicom_seg"])
        assert [found.get_segment_description(n).segment_label for n in found.segment_numbers] == ["Oedema"]
        assert params["stored"] == "dicom"
        assert np.array_equal(nib.load(next(stored.iterdir())).dataobj, label.dataobj)
    else:
        assert (params["stored"], result["dicom_seg"]) == (None, None)
        assert not stored.exists()
