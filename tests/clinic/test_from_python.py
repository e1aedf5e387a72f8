"""A bundle from Python gives what its command gives, and refuses what that refuses."""

import nibabel as nib
import numpy as np
import pytest
from bundles.running import DEMO
from bundles.running import Bundle as Command

from common.cohorts import get_cohort
from common.cohorts.datalist import load_datalist
from common.evaluation import Reference
from mmb.clinic.bundle import Bundle


@pytest.fixture(scope="module")
def bundle():
    return Bundle("m3ae", recipe="phantom")


@pytest.fixture(scope="module")
def files(phantom_dir):
    case = load_datalist(phantom_dir / "datalist.json", phantom_dir)["test"][0]
    images = dict(zip(case["modalities"], case["image"], strict=True))
    return {name: images[name] for name in ("t1c", "flair")}, case["label"]


def test_files_and_arrays_give_what_the_command_gives(bundle, files, tmp_path):
    images, truth = files
    result = bundle.segment(images)
    (folder := tmp_path / "case").mkdir()
    for name, file in images.items():
        (folder / f"case_{name}.nii.gz").symlink_to(file)
    Command("m3ae").run_here(DEMO, dataset_dir=folder, output_dir=tmp_path / "out")
    command = np.asarray(nib.load(tmp_path / "out" / "case" / "case_seg.nii.gz").dataobj)
    assert np.mean(result.label != command) < 1e-3  # orientations are turned before or after resampling
    first = nib.load(images["t1c"])
    arrays = {"t1ce": first.get_fdata(), "FLAIR": nib.load(images["flair"]).get_fdata()}
    assert np.array_equal(bundle.segment(arrays, first.affine).label, result.label)
    assert np.array_equal(result.affine, first.affine)
    assert list(result.regions) == list(result.probabilities) == ["WT", "TC", "ET"]
    labels = get_cohort("phantom").labels
    scores = Reference(np.asarray(nib.load(truth).dataobj), labels, (3, 3, 3)).measure(result.label)
    assert scores["WT", "dice"] > 0.6
    inside, mask = result.probabilities["WT"], result.regions["WT"]
    assert 0 <= inside.min() < inside.max() <= 1
    assert inside[mask].mean() > inside[~mask].mean() + 0.3


def test_what_cannot_be_segmented_is_refused(bundle, files):
    images, _ = files
    array, affine = nib.load(images["t1c"]).get_fdata(), np.diag([3, 3, 3, 1])
    for given, its_affine, fact in [
        ({}, None, "No modality was requested"),
        ({"pd": array}, affine, "Unknown modality 'pd'"),
        ({"t1c": array, "t1ce": array}, affine, "requested twice"),
        ({"t1c": array}, None, "t1c: an array has no voxel size"),
        ({"t1c": array}, np.diag([3, 3, 3, 1]) + np.eye(4, k=-3), "give the affine"),  # transposed
        ({"t1c": array}, np.diag([3, np.nan, 3, 1]), "t1c: its affine .* has NaN"),
        ({"t1c": array}, np.diag([3, 0, 3, 1]), "t1c: its affine .* is singular"),
        ({"t1c": array}, np.diag([3000, 3, 3, 1]), r"t1c: voxels of 3e\+03 x 3 x 3 mm"),
        ({"t1c": array[0]}, affine, r"t1c: float64, shape \(80, 52\); expected real numbers \(X, Y, Z\)"),
        ({"t1c": array[:0]}, affine, r"shape \(0, 80, 52\)"),
        ({"t1c": array + 1j}, affine, "t1c: complex128"),
        ({"t1c": array, "t2": array}, affine, "the same image"),
        ({"t1c": array, "t2": array[1:]}, affine, "not on the grid"),
        ({"t1c": np.where(array > 0, np.nan, 0)}, affine, "NaN or Inf"),
    ]:
        with pytest.raises(ValueError, match=fact):
            bundle.segment(given, its_affine)
    with pytest.raises(ValueError, match="decision 'best'"):
        Bundle("m3ae", decision="best")
