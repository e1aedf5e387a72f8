"""Folders that are refused before PyTorch is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from mmb.clinic.dicom.phantom import mr_image
from mmb.clinic.study.folder import require_one_study, study_files

ROOT = Path(__file__).parents[3]


def image(patient: str) -> FileDataset:
    dataset = mr_image(patient, 1, 1, "t1", {})
    dataset.PatientName = dataset.PatientID = patient
    return dataset


@pytest.fixture
def folders(tmp_path) -> Path:
    """Folders that hold no study of one patient."""
    for name in ("empty", "files", "dicom"):
        (tmp_path / name).mkdir()
    for subject in ("P_1", "P_2"):
        (tmp_path / "files" / subject).mkdir()
        for end in ("t1", "FLAIR"):
            (tmp_path / "files" / subject / f"{subject}_{end}.nii.gz").touch()
        (tmp_path / "dicom" / subject).mkdir()
        image(subject).save_as(tmp_path / "dicom" / subject / "1.dcm", enforce_file_format=True)
    return tmp_path


def test_a_folder_is_refused_before_pytorch_is_loaded(folders):
    words = [["predict", str(folders / name), str(folders / "out")] for name in ("none", "empty", "files", "dicom")]
    program = f"""
import sys, json
from mmb.__main__ import main
for words in {words!r}:
    sys.argv = ["tools", *words]
    try:
        main()
    except SystemExit as end:
        print(json.dumps(end.code))
print(json.dumps(sorted({{"torch", "monai", "pandas", "scipy"}} & sys.modules.keys())))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    none, empty, files, dicom, slow = map(json.loads, done.stdout.splitlines())
    assert slow == []
    assert none.endswith("none: no such folder; expected one with the DICOM or NIfTI files of a study.")
    assert "an empty folder" in empty
    assert "2 subjects, P_1, P_2; give the folder of one, or --each if every subfolder is a study." in files
    assert "images of 2 patients (by ID, name); give the folder of one, or --each" in dicom
    assert not (folders / "out").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("a/x_t1.nii.gz", "b/x_flair.nii.gz", "c/x_seg.nii.gz"),  # a folder for each sequence
        ("x_t1.nii.gz", "x_flair.nii.gz", "masks/x_t1.nii.gz"),
        ("T1/T1_AX_1.nii.gz", "T1/T1_AX_2.nii.gz", "T2/T2_AX_1.nii.gz", "T2/T2_AX_2.nii.gz"),
        ("ax/AX_T1.nii.gz", "ax/AX_FLAIR.nii.gz", "sag/SAG_T2.nii.gz", "sag/SAG_PD.nii.gz"),
    ],
)
def test_what_may_be_a_study_is_left_to_its_reader(names, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    require_one_study(tmp_path)


def test_a_relative_folder_is_listed_by_whole_paths(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "t1.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    found = study_files("study")
    assert found.folder == tmp_path / "study"
    assert list(found.images) == [tmp_path / "study" / "t1.nii.gz"]
