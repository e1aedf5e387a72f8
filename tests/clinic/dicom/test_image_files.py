"""Files with names from dcm2niix, BIDS, 3D Slicer and users, and with the JSON of dcm2niix (times in seconds)."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_case import LPS

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.image_files import recognise_files
from mmb.clinic.recognise.reading import read_folder
from mmb.errors import StudyError

MPRAGE = {"ScanningSequence": "GR_IR", "EchoTime": 0.00298, "RepetitionTime": 2.3, "InversionTime": 0.9}
MPRAGE |= {"MRAcquisitionType": "3D"}
TSE = {"ScanningSequence": "SE", "EchoTime": 0.098, "RepetitionTime": 5.0}
FLAIR = {"ScanningSequence": ["SE", "IR"], "EchoTime": 0.09, "RepetitionTime": 9.0, "InversionTime": 2.5}
AGENT = {"ContrastBolusIngredient": "GADOLINIUM"}


@pytest.fixture(scope="module")
def voxels(phantom_volumes) -> dict[str, np.ndarray]:
    return {name: np.asarray(image.dataobj) for name, image in phantom_volumes.items()}


def write(path: Path, voxels: np.ndarray, said: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, LPS), path)
    if said is not None:
        path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("name", "said", "modality"),
    [
        ("5_T1_MPRAGE_post_20200101", None, "t1c"),
        ("3 T1 AX POST", None, "t1c"),
        ("8: Ax T2 FLAIR fs", None, "flair"),
        ("5_x_20200101", {**MPRAGE, **AGENT}, "t1c"),
        ("5_x_20200101", MPRAGE, "t1"),
        ("5_x_20200101", FLAIR, "flair"),
        ("5_x_20200101", {**TSE, "EchoTime": 98, "RepetitionTime": 5000}, "t2"),  # in ms
        ("5_x_20200101", {**FLAIR, "SeriesDescription": "t2_spc_flair"}, "flair"),
        ("5_T1_20200101", {**TSE, "SeriesDescription": "t2_tse"}, "t2"),  # the JSON takes precedence over the name
        ("5_T1_KM_20200101", {**MPRAGE, "ImageType": ["DERIVED", "SECONDARY", "SUBTRACT"]}, None),
        ("sub-01_T1w_brain", None, "t1"),  # sub stands for subject, not subtraction
        ("sub-01_T1w_mask", None, None),
        ("tumor_T1_segmentation_final", None, None),
        ("5_ep2d_diff_20200101", None, None),
        ("T1_T2_9", {"SeriesDescription": ["t2_tse"], "EchoTime": "98", "RepetitionTime": {}}, None),
        ("7_x", [1, 2], None),
    ],
)
def test_what_a_file_holds(tmp_path, name, said, modality):
    if said is not None:
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    assert recognise_files([tmp_path / f"{name}.nii.gz"])[0].says.modality == modality


def test_each_file_is_listed_once(tmp_path, voxels):
    for name, modality in (("x_t1", "t1"), ("x_t2", "t2"), ("x_seg", "t2"), ("7_ADC", "t2")):
        write(tmp_path / f"{name}.nii.gz", voxels[modality])
    listed = read_folder(tmp_path, PHANTOM).explanations
    assert sorted(line.split(":")[0] for line in listed) == sorted(path.name for path in tmp_path.iterdir())
    assert "x_seg.nii.gz: left out: a label, by its name." in listed


def test_a_study_of_dcm2niix(tmp_path, voxels):
    write(tmp_path / "4_T1_MPRAGE_20200101.nii.gz", voxels["t1"], {**MPRAGE, "SeriesDescription": "t1_mprage"})
    said = {**MPRAGE, **AGENT, "SeriesDescription": "t1_mprage_KM"}
    write(tmp_path / "9_T1_MPRAGE_20200101.nii.gz", voxels["t1c"][..., None], said)  # 4D with one volume
    write(tmp_path / "5_T2_20200101.nii.gz", voxels["t2"], {**TSE, "SeriesDescription": "t2_tse"})
    write(tmp_path / "6_FLAIR_20200101.nii", voxels["flair"], {**FLAIR, "SeriesDescription": "t2_flair"})
    write(tmp_path / "7_ADC_20200101.nii.gz", voxels["t2"], {"SeriesDescription": "ep2d_diff_ADC"})
    found = read_folder(tmp_path, PHANTOM)
    assert list(found.images) == ["t1", "t1c", "t2", "flair"]
    for name, image in found.images.items():
        np.testing.assert_array_equal(image.dataobj, voxels[name])
    assert found.remarks == []
    assert found.used["t1c"].reason.startswith("by its JSON: words: 't1'; parameters: TR 2300 ms, TE 2.98 ms")
    (left_out,) = (line for line in found.explanations if "left out" in line)
    assert left_out.startswith("7_ADC_20200101.nii.gz: left out: by its JSON: diffusion")
    assert "2020" not in "".join(file.reason for file in found.used.values())  # they are shown on the page


def test_a_folder_for_each_series_of_slicer(tmp_path, voxels):
    for name, modality in (("3 T1 AX POST", "t1c"), ("4 FLAIR AX", "flair")):
        write(tmp_path / name / f"{name}.nii.gz", voxels[modality])
    found = read_folder(tmp_path, PHANTOM)
    np.testing.assert_array_equal(found.images["t1c"].dataobj, voxels["t1c"])
    assert (list(found.images), [each.code for each in found.remarks]) == (["t1c", "flair"], [])
    assert found.used["t1c"].by_image
    write(tmp_path / "4 FLAIR AX" / "5 T2.nii.gz", voxels["t2"])
    with pytest.raises(ValueError, match="lie in 2 folders, and one of these has several"):
        read_folder(tmp_path, PHANTOM)


def test_a_file_named_after_its_modality_goes_before_and_a_json_against_the_name_is_said(tmp_path, voxels):
    write(tmp_path / "x_t1.nii.gz", voxels["t1c"], {**MPRAGE, **AGENT, "SeriesDescription": "t1_mprage_KM"})
    write(tmp_path / "5_T1_MPRAGE_2020.nii.gz", voxels["t1"])
    write(tmp_path / "x_t2.nii.gz", voxels["t2"], {**TSE, "SeriesDescription": "t2_tse"})
    found = read_folder(tmp_path, PHANTOM)
    assert list(found.images) == ["t1", "t2"]
    np.testing.assert_array_equal(found.images["t1"].dataobj, voxels["t1c"])
    assert [(remark.code, remark.about) for remark in found.remarks] == [("json_contradicts", ("t1",))]


def test_of_two_candidates_the_surer_is_taken_and_equal_ones_are_refused(tmp_path, voxels):
    write(tmp_path / "4_T2_2020.nii.gz", voxels["t2"])
    write(tmp_path / "5_T2_2020.nii.gz", voxels["flair"], {**TSE, "SeriesDescription": "t2_tse"})
    found = read_folder(tmp_path, PHANTOM)
    np.testing.assert_array_equal(found.images["t2"].dataobj, voxels["flair"])
    assert found.explanations[0].endswith("since 5_T2_2020.nii.gz is recognised with more confidence.")
    write(tmp_path / "6_T2_2020.nii.gz", voxels["flair"], {**TSE, "SeriesDescription": "t2_tse"})
    with pytest.raises(StudyError) as refused:
        read_folder(tmp_path, PHANTOM)
    assert (refused.value.code, refused.value.about) == ("equal", ("t2",))


def test_two_patients_are_refused(tmp_path, voxels):
    for number, modality, said in ((4, "t2", TSE), (5, "flair", FLAIR)):
        write(tmp_path / f"{number}_x.nii.gz", voxels[modality], {**said, "PatientID": f"Doe{number}"})
    with pytest.raises(ValueError, match=r"4_x.nii.gz \(PatientID\) and 5_x.nii.gz \(PatientID\)") as refused:
        read_folder(tmp_path, PHANTOM)
    assert "Doe" not in str(refused.value)
