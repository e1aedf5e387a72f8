"""The synthetic DICOM studies show the patients of the phantom's NIfTI files, and are recognised by their headers."""

import nibabel as nib
import numpy as np
import pytest
from run_tools import run

from common.cohorts.phantom.cohort import generate
from common.cohorts.registry import PHANTOM
from mmb.clinic.dicom import read_series
from mmb.clinic.dicom.phantom import write_studies
from mmb.clinic.study.predict import RESULTS
from mmb.clinic.study.reading import read_folder

SEED = 5


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return write_studies(tmp_path_factory.mktemp("phantom") / "studies", 2, SEED)


def test_voxels_and_places_are_those_of_the_files(studies, tmp_path):
    files = generate(tmp_path / "files", 3, SEED)
    found = read_folder(studies / "Phantom_002", PHANTOM)
    assert list(found.images) == ["t1", "t1c", "t2", "flair"]
    for name, image in found.images.items():
        expected = nib.load(files / "Phantom_002" / f"Phantom_002_{'t1ce' if name == 't1c' else name}.nii.gz")
        given, back = nib.as_closest_canonical(image), nib.as_closest_canonical(expected)
        np.testing.assert_array_equal(given.get_fdata(), back.get_fdata())
        np.testing.assert_allclose(given.affine, back.affine, atol=1e-4)


def test_each_series_is_used_or_left_out_for_its_reason(studies):
    found = read_folder(studies / "Phantom_001", PHANTOM)
    assert found.sources == {"t1": "series 2", "t1c": "series 5", "t2": "series 3", "flair": "series 4"}
    left_out = [line for line in found.explanations if "left out" in line]
    assert [line.split("left out: ")[1].split(" ")[0] for line in left_out] == ["localizer", "subtraction"]
    assert {one.header.StudyInstanceUID for one in read_series(studies / "Phantom_001")}.isdisjoint(
        one.header.StudyInstanceUID for one in read_series(studies / "Phantom_002")
    )


@pytest.mark.slow  # a segmentation
def test_a_study_is_segmented_with_its_seg(studies, tmp_path):
    study = studies / "Phantom_001"
    assert run("predict", study, tmp_path / "out", "m3ae", "--recipe", "phantom", "--device", "cpu") is None
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*RESULTS.values()}
    assert np.any(nib.load(tmp_path / "out" / "label.nii.gz").dataobj)


def test_the_verb_writes_them_and_overwrites_nothing(tmp_path, capsys):
    assert run("phantom", tmp_path / "dicom", "--dicom", "--subjects", 1) is None
    assert capsys.readouterr().out == f"{tmp_path / 'dicom'}\n"
    assert len(list(tmp_path.glob("dicom/Phantom_001/*/*.dcm"))) == 5 * 52 + 4
    assert "is not overwritten" in run("phantom", tmp_path / "dicom", "--dicom")
    assert "subjects 0: expected a whole number" in run("phantom", tmp_path / "none", "--dicom", "--subjects", 0)
    assert not (tmp_path / "none").exists()
