"""The patient that `mmb example` writes, and what the default weights make of it."""

import re
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from run_tools import run

from common.cohorts import get_cohort
from mmb.clinic.examples.patient import CASE, IMAGES, LABEL, SCORES
from mmb.clinic.recognise.reading import read_folder
from mmb.clinic.remark import Gravity

ROOT = Path(__file__).parents[2]
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "patient"
    assert run("example", folder) is None
    return folder


@pytest.mark.parametrize("subset", SCORES)
def test_the_default_weights_segment_it_as_well_as_is_printed(patient, tmp_path, subset):
    assert run("predict", patient, tmp_path / "result", "--modalities", subset.replace("+", ",")) is None
    truth, found = (
        np.asarray(nib.load(path).dataobj) for path in (patient / LABEL, tmp_path / "result" / "label.nii.gz")
    )
    masks = [(np.isin(truth, values), np.isin(found, values)) for values in REGIONS.values()]
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in masks]
    assert dice == pytest.approx(SCORES[subset].dice, abs=0.02)


@pytest.mark.parametrize("subset", SCORES)
def test_what_is_printed_is_what_was_evaluated(patient, subset):
    table = pd.read_csv(ROOT / "docs/open_glioma/results/mean_of_two_networks/by_sequences/results.csv")
    rows = table[(table.metric == "dice") & (table.modalities == subset)]
    cases = rows.pivot(index="case", columns="region", values="value")[list(REGIONS)]
    assert cases.loc[CASE].to_numpy() == pytest.approx(SCORES[subset].dice, abs=0.0006)
    assert cases.mean(axis=1).rank(ascending=False)[CASE] == SCORES[subset].rank
    assert len(cases) == 9


def test_dicom_holds_the_same_voxels_in_the_same_place(patient, tmp_path):
    assert run("example", tmp_path / "study", "--dicom", "--only", "t1c,flair") is None
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"002", "004", "ATTRIBUTION.txt"}
    slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "study" / "002").iterdir())]
    expected = nib.load(patient / IMAGES["t1c"])
    voxels = np.asarray(expected.dataobj)
    k, row, column = (int(value) for value in np.array(np.unravel_index(voxels.argmax(), voxels.shape))[[2, 1, 0]])
    (brightest,) = (one for one in slices if one.pixel_array.max() == voxels.max())
    y, x = np.unravel_index(brightest.pixel_array.argmax(), brightest.pixel_array.shape)
    place = np.array(brightest.ImagePositionPatient, float) + np.array([x, y, 0])
    assert (-place[0], -place[1], place[2]) == pytest.approx(tuple((expected.affine @ (column, row, k, 1))[:3]))
    assert sum(int(one.pixel_array.sum(dtype=np.int64)) for one in slices) == voxels.sum(dtype=np.int64)
    assert {one.StudyDescription for one in slices} == {"derived, no scanner's header"}
    assert {tuple(one.ImageType) for one in slices} == {("DERIVED", "SECONDARY", "OTHER")}
    assert not any(one.RepetitionTime or one.EchoTime for one in slices)  # nobody knows them


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
def test_its_dicom_is_valid(tmp_path):
    assert run("example", tmp_path / "study", "--dicom") is None
    for path in (tmp_path / "study").glob("*/080.dcm"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True).stderr
        assert not re.findall("^Error.*", said, re.M), said


def test_its_dicom_is_recognised_by_its_headers(tmp_path):
    assert run("example", tmp_path / "study", "--dicom") is None
    study = read_folder(tmp_path / "study", get_cohort("open_glioma"))
    assert study.sources == {name: f"series {number}" for number, name in enumerate(IMAGES, start=1)}
    assert [(each.code, each.gravity, each.about) for each in study.remarks] == [("prepared", Gravity.NOTE, (*IMAGES,))]
    for path in (tmp_path / "study" / "004").iterdir():  # one that a scanner made: the others should have been so too
        dataset = pydicom.dcmread(path)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        dataset.save_as(path)
    remarks = {each.code: each.about for each in read_folder(tmp_path / "study", get_cohort("open_glioma")).remarks}
    assert remarks["reformatted"] == ("t1", "t1c", "t2")
    assert {"t1", "t1c"} <= {*remarks["little_confidence"]}
    assert "prepared" not in remarks


def test_only_some_sequences_are_written_and_none_that_does_not_exist(tmp_path):
    said = run("example", tmp_path / "patient", "--only", "dwi")
    assert said == "error: Unknown modality 'dwi'; expected one of t1, t1c, t2, flair."
    assert not (tmp_path / "patient").exists()
    assert run("example", tmp_path / "patient", "--only", "FLAIR,t1ce") is None
    names = {path.name for path in (tmp_path / "patient").iterdir()}
    assert names == {IMAGES["t1c"], IMAGES["flair"], LABEL, "ATTRIBUTION.txt"}


@pytest.mark.parametrize("more", [(), ("--dicom",)])
def test_a_folder_that_is_not_empty_is_refused(tmp_path, more):
    (tmp_path / "notes.txt").write_text("mine")
    said = run("example", tmp_path, *more)
    assert "is there already, and is not overwritten; expected a new or an empty folder." in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
