import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_studies import Scan, study, write_study
from monai.data import MetaTensor

from common.cohorts.check import findings
from common.cohorts.myops import MYOPS
from common.cohorts.phantom.cohort import PHANTOM
from common.cohorts.phantom.simulation import SPACING, simulate
from common.study.reading import read_folder

LPS = np.diag([-SPACING, -SPACING, SPACING, 1.0])


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "case"
    folder.mkdir()
    for name, voxels in simulate(7)[0].items():
        nib.save(nib.Nifti1Image(voxels, LPS), folder / f"case_{'t1ce' if name == 't1c' else name}.nii.gz")
    return folder


def test_files_are_told_apart_by_name_and_those_not_wanted_are_left_out(subject):
    found = read_folder(subject, PHANTOM, ["flair", "t1c"])
    assert list(found.images) == ["t1c", "flair"]
    expected = nib.load(subject / "case_t1ce.nii.gz")
    np.testing.assert_array_equal(found.images["t1c"].affine, expected.affine)
    np.testing.assert_array_equal(found.images["t1c"].dataobj, expected.dataobj)
    assert found.frames["t1c"] == found.frames["flair"]
    assert not found.remarks
    assert not found.series
    assert found.explanations == [
        "case_t1.nii.gz: T1, by its name; not requested.",
        "case_t1ce.nii.gz: T1c, by its name.",
        "case_t2.nii.gz: T2, by its name; not requested.",
        "case_flair.nii.gz: FLAIR, by its name.",
    ]


def test_a_folder_of_both_kinds_is_refused(subject, tmp_path):
    write_study(tmp_path, subject, study(("t1",)))
    (tmp_path / "001").rename(tmp_path / "localizer")
    (tmp_path / "case_t2.nii.gz").symlink_to(subject / "case_t2.nii.gz")
    with pytest.raises(ValueError, match=r"both DICOM and image files \(1\)"):
        read_folder(tmp_path, PHANTOM)


def test_files_on_different_grids_are_warned_about(subject, tmp_path):
    voxels = np.random.default_rng(0).uniform(1, 9, (20, 20, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 2, 3, 1])), tmp_path / "a_t1.nii.gz")
    nib.save(nib.Nifti1Image(voxels + 1, LPS), tmp_path / "a_t2.nii.gz")
    (remark,) = read_folder(tmp_path, PHANTOM).remarks
    assert "different grids" in remark.said


def test_a_dicom_study_is_read_with_its_frames_and_reasons(subject, tmp_path):
    scans = study(("t1", "flair"))
    volumes = {scan.image: volume for scan, volume in zip(scans, write_study(tmp_path, subject, scans), strict=True)}
    found = read_folder(tmp_path, PHANTOM)
    assert list(found.images) == ["t1", "flair"]
    assert found.sources == {"t1": "series 2", "flair": "series 4"}
    assert found.frames["t1"] != found.frames["flair"]
    np.testing.assert_allclose(found.images["flair"].affine, volumes["flair"].affine, atol=1e-4)
    np.testing.assert_allclose(found.images["flair"].dataobj, volumes["flair"].dataobj)
    assert "TI 1800 ms" in found.reasons["flair"]
    assert 0.8 < found.confidences["flair"] <= 1
    assert len(found.explanations) == 6  # three localizers, T1, FLAIR, ADC
    assert found.series["t1"].number == 2


def test_a_series_set_by_hand_goes_before_what_is_recognised(subject, tmp_path):
    write_study(tmp_path, subject, study(("t1", "flair")))
    found = read_folder(tmp_path, PHANTOM, by_hand={"T1ce": 2})
    assert found.sources == {"t1c": "series 2", "flair": "series 4"}
    assert found.confidences["t1c"] is None
    with pytest.raises(ValueError, match="--series: t1c is not among the modalities to use, flair"):
        read_folder(tmp_path, PHANTOM, ["flair"], {"t1c": 2})


@pytest.mark.parametrize(
    ("by_hand", "message"),
    [
        ({"t1c": 2, "T1ce": 4}, "one modality is given twice in t1c, T1ce"),
        ([("t1c", 2)], r"--series \[\('t1c', 2\)\]: expected sequences and SeriesNumbers"),
        ("t1c", "--series 't1c': expected sequences and SeriesNumbers"),
        ({5: 2}, "Unknown modality '5'"),
        ({None: 2}, "Unknown modality 'None'"),
        ({"t1c": [2]}, r"t1c: \[2\]: there is no such series; expected one of"),
        ({"t1c": 2.5}, r"t1c: 2\.5: there is no such series"),
        ({"t1c": True}, "t1c: True: there is no such series"),
        ({"t1c": {"t1": 2}}, "there is no such series"),
    ],
)
def test_what_is_set_by_hand_is_checked(subject, tmp_path_factory, by_hand, message):
    folder = tmp_path_factory.getbasetemp() / "by_hand"
    if not folder.exists():
        write_study(folder, subject, study(("t1", "flair")))
    with pytest.raises(ValueError, match=message):
        read_folder(folder, PHANTOM, by_hand=by_hand)


def test_links_in_a_ring_and_pipes(subject, tmp_path):
    study = shutil.copytree(subject, tmp_path / "study")
    (study / "ring").symlink_to(study)
    (study / "up").symlink_to("..")
    os.mkfifo(study / "pipe")
    assert len(read_folder(study, PHANTOM).images) == 4


def test_a_folder_that_cannot_be_looked_into_is_said(subject, tmp_path, as_anybody):
    study = shutil.copytree(subject, tmp_path / "study")
    (study / "Doe").mkdir(mode=0)
    with as_anybody(), pytest.raises(PermissionError, match=r"^study: a folder in it cannot be read") as refused:
        read_folder("study", PHANTOM)
    assert "Doe" not in str(refused.value)


def test_a_broken_series_that_is_not_wanted_does_not_matter(subject, tmp_path):
    scans = (
        Scan(1, "t1", "t1_se_tra", {"RepetitionTime": 500, "EchoTime": 9, "ScanningSequence": "SE"}),
        Scan(2, "t2", "t2_tse_tra", {"RepetitionTime": 5000, "EchoTime": 98, "ScanningSequence": "SE"}),
    )
    write_study(tmp_path, subject, scans)
    sorted((tmp_path / "002").iterdir())[20].unlink()
    assert list(read_folder(tmp_path, PHANTOM, ["t1"]).images) == ["t1"]
    with pytest.raises(ValueError, match=r"series 2 .* slices are missing"):
        read_folder(tmp_path, PHANTOM)


def test_what_cannot_be_one_study_is_refused(subject, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_folder(tmp_path / "absent", PHANTOM)
    with pytest.raises(ValueError, match="--series is for DICOM"):
        read_folder(subject, PHANTOM, by_hand={"t1": 3})
    (tmp_path / "other_t1.nii.gz").symlink_to(subject / "case_t1.nii.gz")
    with pytest.raises(ValueError, match=r"none of the requested modalities \(t2\); it has t1"):
        read_folder(tmp_path, PHANTOM, ["t2"])
    (tmp_path / "another_t1.nii.gz").symlink_to(subject / "case_t1.nii.gz")
    with pytest.raises(ValueError, match="2 subjects, another, other"):
        read_folder(tmp_path, PHANTOM)


def test_an_image_that_is_none_is_refused(tmp_path):
    voxels = np.ones((9, 9, 9), np.float32)
    nib.save(nib.Nifti1Image(voxels, LPS), tmp_path / "a_t1.nii.gz")
    with pytest.raises(ValueError, match=r"T1.*every voxel is 1"):
        read_folder(tmp_path, PHANTOM)
    voxels[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels, LPS), tmp_path / "a_t1.nii.gz")
    with pytest.raises(ValueError, match=r"T1.*1 voxels are NaN"):
        read_folder(tmp_path, PHANTOM)


def test_a_skull_is_seen_by_air_that_is_not_0_and_by_a_head_too_large_for_a_brain(subject, tmp_path):
    brain = read_folder(subject, PHANTOM, ["t1", "t2", "flair"])
    assert (brain.skulls, brain.remarks) == ([], [])
    t1 = np.asarray(brain.images["t1"].dataobj)
    noisy = np.where(t1 == 0, np.random.default_rng(0).integers(1, 9, t1.shape), t1)
    x, y, z = np.indices(t1.shape) - (np.array(t1.shape)[:, None, None, None] - 1) / 2
    head = np.where((t1 == 0) & (x**2 + y**2 + z**2 < (90 / SPACING) ** 2), 50, t1)  # mm
    assert (head == 0).mean() > 0.5
    for name, voxels in {"t1": noisy, "t2": head, "flair": brain.images["flair"].dataobj}.items():
        nib.save(nib.Nifti1Image(np.asarray(voxels), LPS), tmp_path / f"a_{name}.nii.gz")
    assert read_folder(tmp_path, PHANTOM).skulls == ["t1", "t2"]
    assert not any(found.skull for found in findings({"t1": MetaTensor(noisy), "t2": MetaTensor(head)}, MYOPS))


def test_a_head_is_no_warning_of_the_study_as_it_may_be_stripped(subject, tmp_path):
    t2 = np.asarray(nib.load(subject / "case_t2.nii.gz").dataobj)
    noisy = t2 + np.random.default_rng(0).integers(1, 9, t2.shape).astype(t2.dtype)
    nib.save(nib.Nifti1Image(noisy, LPS), tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert (found.skulls, found.remarks) == (["t2"], [])


def test_one_image_under_two_names_is_refused(subject, tmp_path):
    shutil.copytree(subject, tmp_path / "case")
    shutil.copy(subject / "case_t1.nii.gz", tmp_path / "case" / "case_t1ce.nii.gz")
    with pytest.raises(ValueError, match=r"\(T1\) and .*\(T1c\): the same image\. Give each image once"):
        read_folder(tmp_path / "case", PHANTOM)
    assert list(read_folder(tmp_path / "case", PHANTOM, ["t1", "t2"]).images) == ["t1", "t2"]


@pytest.mark.parametrize("value", [-1000, -0.75, 5000, np.nan])
def test_a_background_other_than_0_becomes_0(value, subject, tmp_path):
    t2 = np.asarray(nib.load(subject / "case_t2.nii.gz").dataobj).astype(np.float32)
    given = t2 + value if value < 0 else np.where(t2 == 0, np.float32(value), t2)
    nib.save(nib.Nifti1Image(given, LPS), tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert (found.skulls, found.remarks) == ([], [])
    np.testing.assert_allclose(np.asarray(found.images["t2"].dataobj), t2, atol=1e-3)
    given[tuple(np.array(t2.shape) // 2)] = np.nan
    nib.save(nib.Nifti1Image(given, LPS), tmp_path / "a_t2.nii.gz")
    with pytest.raises(ValueError, match=r"\(T2\): 1 voxels are NaN or Inf"):
        read_folder(tmp_path, PHANTOM)


def test_a_brain_too_small_for_its_voxel_size_is_warned_about(subject, tmp_path):
    t2 = np.asarray(nib.load(subject / "case_t2.nii.gz").dataobj)
    nib.save(nib.Nifti1Image(t2, LPS @ np.diag([0.5, 0.5, 0.5, 1])), tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    (remark,) = found.remarks
    assert remark.modalities == ("t2",)
    assert remark.said.startswith("a whole brain of only ")
    assert "with voxels of 1.5 x 1.5 x 1.5 mm" in remark.said
    assert found.skulls == []


def test_files_that_do_not_say_how_they_lie_are_warned_about(subject, tmp_path):
    t2 = nib.load(subject / "case_t2.nii.gz")
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["pixdim"][1:4] = SPACING
    nib.save(nib.Nifti1Image(np.asarray(t2.dataobj), None, header), tmp_path / "a_t2.nii.gz")
    (remark,) = read_folder(tmp_path, PHANTOM).remarks
    assert remark.modalities == ("t2",)
    assert remark.said.startswith("its header does not state the orientation")
