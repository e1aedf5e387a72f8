"""The server with an archive: Orthanc and its DICOMweb plugin."""

from __future__ import annotations

import gzip
from io import BytesIO

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from archive_stack import PATIENTS, SERIES, Stack, uid
from dicom_studies import read_series, resample
from orthanc import needs_orthanc, series
from running import infer, put, result, used

from common.cohorts.registry import PHANTOM
from mmb.clinic.report.segmentation import read_seg
from mmb.server.datastore import DICOMWebDatastore
from mmb.server.export import export_labelled_studies

pytestmark = needs_orthanc


def stored(stack: Stack, series_uid: str) -> hd.seg.Segmentation:
    """Return a SEG as stored in Orthanc."""
    find = {"Level": "Instance", "Query": {"SeriesInstanceUID": series_uid}}
    (name,) = requests.post(f"{stack.archive}/tools/find", json=find, timeout=30).json()
    return hd.seg.segread(BytesIO(requests.get(f"{stack.archive}/instances/{name}/file", timeout=30).content))


@pytest.mark.parametrize("study", ["four", "two", "one"])
def test_a_study_is_segmented_and_stored_in_the_archive(stack, study, tmp_path):
    before = set(series(stack.archive, "SEG"))
    params, label = result(stack.url, uid(study), tmp_path / "label.nii.gz", store=True)
    names = {2: "t1", 3: "t2", 4: "flair", 6: "t1c"}
    assert {names[number] for number in SERIES[study] if number in names} == set(used(params))
    assert len(set(series(stack.archive, "SEG")) - before) == 1

    seg = stored(stack, params["stored"])
    assert (seg.PatientID, seg.StudyInstanceUID) == (PATIENTS[study]["PatientID"], uid(study))
    voxels = np.asarray(label.dataobj)
    segments = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    assert segments == list(params["label_names"])
    referred = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    source = next(one for one in read_series(stack.folder / study) if one.uid == referred)
    seg.save_as(tmp_path / "seg.dcm")
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", source, PHANTOM.labels.values), voxels)
    truth = resample(stack.label, label.affine, label.shape, order=0) > 0
    dice = 2 * np.count_nonzero(truth & (voxels > 0)) / (np.count_nonzero(truth) + np.count_nonzero(voxels))
    assert dice > 0.6


def test_the_result_lies_on_the_viewed_series_and_on_no_other(stack, tmp_path):
    loaded = {one.number: one for one in read_series(stack.folder / "four") if one.number in (2, 3)}
    for number, one in loaded.items():
        _, label = result(stack.url, uid("four", number), tmp_path / f"{number}.nii.gz")
        assert label.shape == one.shape
        assert np.allclose(label.affine, one.affine, atol=1e-3)
    answer = infer(stack.url, uid("four", 1))
    assert answer.status_code == 400
    assert "series 2" in answer.json()["detail"]
    left = infer(stack.url, uid("four", 3), use_t1c=False).json()
    assert (left["left_out"], sorted(used(left))) == (["t1c"], ["flair", "t1", "t2"])


@pytest.mark.parametrize(
    ("image", "status"), [("1.2.3", 404), ("/etc/passwd", 403), ("../four", 403), ("", 403), ("1.2&StudyDate=2", 403)]
)
def test_what_is_not_in_the_archive_is_refused(stack, image, status):
    answer = infer(stack.url, image)
    assert (answer.status_code, len(answer.json()["detail"].splitlines())) == (status, 1)


@pytest.mark.parametrize(
    "request_line",
    ["PUT model/m3ae", "DELETE model/m3ae", "GET logs/", "POST reload", "PUT session/", "POST train/m3ae",
     "DELETE datastore/image?id=x", "GET datastore/dataset", "GET ohif/", "GET proxy/dicom/wado/studies"],
)  # fmt: skip
def test_the_rest_of_the_stock_server_does_not_exist(stack, request_line):
    method, path = request_line.split()
    assert requests.request(method, f"{stack.url}/{path}", timeout=30).status_code in (404, 405)


def test_final_labels_become_cases_and_results_of_models_do_not(stack, tmp_path):
    url, archive = stack.url, stack.archive
    studies = DICOMWebDatastore(f"{archive}/dicom-web", PHANTOM)
    images = [uid("one"), uid("two")]
    assert set(images) < set(studies.list_images())

    # The result of a model is stored, but is no label to train on.
    assert infer(url, images[0], store=True).json()["stored"]
    assert images[0] in studies.labelled_images("original")
    assert not studies.labelled_images("final")
    listed = requests.get(f"{url}/datastore/", params={"output": "all"}, timeout=10).json()["objects"]
    assert (listed.keys(), listed[images[0]]) == (set(studies.list_images()), {"labels": {"original": {}}})
    with pytest.raises(ValueError, match="None of 0 studies with a final label"):
        export_labelled_studies(studies.location, tmp_path / "cases", "phantom")

    # A person draws on the image that the server shows.
    drawn, before = {}, set(series(archive, "SEG"))
    for image in images:
        shown = requests.get(f"{url}/datastore/image", params={"image": image}, timeout=60)
        grid = nib.Nifti1Image.from_bytes(gzip.decompress(shown.content))
        voxels = resample(stack.label, grid.affine, grid.shape, order=0).astype(np.uint8)
        drawn[image] = nib.Nifti1Image(np.select([voxels == 4, voxels == 2], [1, 2], 0).astype(np.uint8), grid.affine)
        nib.save(drawn[image], tmp_path / "label.nii.gz")
        names = [{"name": "Enhancing tumour", "idx": 1}, {"name": "Oedema", "idx": 2}]
        assert put(url, image, (tmp_path / "label.nii.gz").read_bytes(), label_info=names).status_code == 200
    assert studies.labelled_images("final") == set(images)
    kept = [
        pydicom.dcmread(BytesIO(requests.get(f"{archive}/instances/{name}/file", timeout=10).content))
        for one in series(archive, "SEG")
        if one not in before
        for name in requests.get(f"{archive}/series/{one}", timeout=10).json()["Instances"]
    ]
    labels = [[(s.SegmentLabel, s.SegmentAlgorithmType) for s in one.SegmentSequence] for one in kept]
    assert labels == [[("Oedema", "SEMIAUTOMATIC"), ("Enhancing tumour", "SEMIAUTOMATIC")]] * 2

    # It is returned as drawn, and exported like that.
    again = requests.get(f"{url}/datastore/label", params={"label": images[0], "tag": "final"}, timeout=60)
    (tmp_path / "again.nii.gz").write_bytes(again.content)
    voxels = np.asarray(drawn[images[0]].dataobj)
    assert np.array_equal(nib.load(tmp_path / "again.nii.gz").dataobj, np.select([voxels == 1, voxels == 2], [4, 2], 0))
    names, refused = export_labelled_studies(studies.location, tmp_path / "cases", "phantom")
    assert (len(names), refused) == (2, [])
    files = sorted(path.name.removesuffix(".nii.gz") for path in (tmp_path / "cases").iterdir())
    assert sorted(name.split("_", 2)[2] for name in files) == ["flair", "flair", "seg", "seg", "t2"]
