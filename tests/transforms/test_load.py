"""Any subset can be loaded, and every kind of bad input gives a clear message."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import from_matvec
from refusals import refused
from scipy.spatial.transform import Rotation

from common.modalities import presence
from common.transforms import LoadSubjectd

COHORT = "brats2020"
MODALITIES = ("t1", "t1c", "t2", "flair")


def array(path: str) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def edit(path: str, change=lambda voxels: voxels, shift=(0, 0, 0)) -> None:
    """Rewrite an image with other voxels and its origin moved by ``shift`` mm."""
    affine = nib.load(path).affine.copy()
    affine[:3, 3] += shift
    nib.save(nib.Nifti1Image(change(array(path).copy()), affine), path)


def put_on(item: dict, affine: np.ndarray) -> None:
    """Rewrite a subject's files with another affine."""
    for path in (*item["image"], item["label"]):
        nib.save(nib.Nifti1Image(array(path).copy(), affine), path)


def put(value, where=(slice(0, 2), 0, 0)):
    def change(voxels: np.ndarray) -> np.ndarray:
        voxels[where] = value
        return voxels

    return change


def refusal(item, **options) -> str:
    """Return the message with which the item is refused."""
    with refused(ValueError) as info:
        LoadSubjectd(COHORT, **options)(item)
    return str(info.value)


def test_all_modalities_in_the_cohorts_order_and_the_label_if_wanted(subject):
    before = dict(subject)
    loaded = LoadSubjectd(COHORT)(subject)
    assert subject == before
    image, label = loaded["image"], loaded["label"]
    assert (image.shape, image.dtype) == ((4, 20, 18, 16), torch.float32)
    assert (label.shape, label.dtype) == ((1, 20, 18, 16), torch.uint8)
    for channel, path in zip(image, subject["image"], strict=True):
        np.testing.assert_array_equal(channel.numpy(), array(path))
    np.testing.assert_array_equal(label[0].numpy(), array(subject["label"]))
    for volume in (image, label):
        np.testing.assert_array_equal(volume.affine.numpy(), nib.load(subject["label"]).affine)
    assert (image.meta["filename_or_obj"], loaded["case"]) == ("case.nii.gz", "case")
    expected = LoadSubjectd(COHORT)(subject)["image"]
    turned = {**subject, "image": subject["image"][::-1], "modalities": subject["modalities"][::-1]}
    assert torch.equal(LoadSubjectd(COHORT)(turned)["image"].as_tensor(), expected.as_tensor())
    assert "label" not in LoadSubjectd(COHORT, keys="image")(subject)


def test_absent_modality_is_a_channel_of_nan(write_subject):
    image = LoadSubjectd(COHORT)(write_subject(modalities=("t1c", "flair")))["image"]
    assert presence(image[None]).tolist() == [[False, True, False, True]]
    assert torch.isnan(image[[0, 2]]).all()


def test_requested_subset_opens_no_other_file(subject, opened):
    for path in (subject["image"][0], subject["image"][2], subject["label"]):
        Path(path).unlink()
    image = LoadSubjectd(COHORT, modalities=["FLAIR", "t1ce"], keys="image")(subject)["image"]
    assert opened == ["case_t1c.nii.gz", "case_flair.nii.gz"]
    assert presence(image[None]).tolist() == [[False, True, False, True]]


def stacked(subject, tmp_path, absent=(), order=MODALITIES) -> str:
    """Combine the subject's modalities in one file, absent ones as NaN."""
    volumes = dict(zip(subject["modalities"], map(array, subject["image"]), strict=True))
    volumes |= {name: np.full_like(volumes[name], np.nan) for name in absent}
    path = tmp_path / "stack.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([volumes[m] for m in order], -1), nib.load(subject["image"][0]).affine), path)
    return str(path)


def test_one_file_of_four_channels_with_one_missing(subject, tmp_path):
    expected = LoadSubjectd(COHORT, ["t1", "t1c", "flair"])(subject)["image"]
    loaded = LoadSubjectd(COHORT, keys="image")({"image": stacked(subject, tmp_path, absent=["t2"])})
    torch.testing.assert_close(loaded["image"].as_tensor(), expected.as_tensor(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(loaded["image"].affine, expected.affine)
    assert loaded["case"] == "stack"


def test_one_file_with_a_partly_nan_channel_with_nothing_in_it_or_of_another_number(subject, tmp_path):
    path = stacked(subject, tmp_path)
    edit(path, put(np.nan, (0, 0, slice(0, 3), 1)))
    assert f"{path} (t1c): 3 voxels are NaN or Inf" in refusal({"image": path}, keys="image")
    message = refusal({"image": stacked(subject, tmp_path, absent=MODALITIES)}, keys="image")
    assert "stack: the case has none of the requested modalities (t1+t1c+t2+flair); it has none." in message
    with refused(ValueError, f"{subject['image'][0]}: shape (20, 18, 16)", "(X, Y, Z, 4)", "t1, t1c, t2, flair"):
        LoadSubjectd(COHORT, keys="image")({"image": subject["image"][0]})


def test_channels_of_one_file_as_in_msd(subject, tmp_path, opened):
    expected = LoadSubjectd(COHORT)(subject)["image"]
    opened.clear()
    path = stacked(subject, tmp_path, order=("flair", "t1", "t1c", "t2"))
    item = {"case": "x", "image": [path] * 4, "modalities": list(MODALITIES), "channels": [1, 2, 3, 0]}
    assert torch.equal(LoadSubjectd(COHORT, keys="image")(item)["image"].as_tensor(), expected.as_tensor())
    assert opened == ["stack.nii.gz"]


def test_no_modality_at_all(write_subject):
    message = refusal(write_subject(modalities=("t1",)), modalities=["t2", "flair"])
    assert "case: the case has none of the requested modalities (t2+flair); it has t1." in message
    for modalities, facts in (
        ([], ["No modality was requested", "t1, t1c, t2, flair"]),
        (["t1", "dwi"], ["Unknown modality 'dwi'", "expected one of t1, t1c, t2, flair"]),
    ):
        with refused(ValueError, *facts):
            LoadSubjectd(COHORT, modalities=modalities)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (
            lambda item: item["image"].__setitem__(0, stacked(item, Path(item["label"]).parent)),
            ["stack.nii.gz: shape (20, 18, 16, 4); expected (X, Y, Z)"],
        ),
        (lambda item: item.pop("label"), ["case: the datalist names no label; expected a segmentation", "`label`"]),
        (lambda item: item.update(channels=[8] * 4), ["{0}: shape (20, 18, 16)", "(X, Y, Z, C) with a channel 8"]),
        (lambda item: item.update(channels=[16] * 4), ["{0}: shape (20, 18, 16)", "with a channel 16"]),
        (lambda item: truncate(item["image"][1]), ["{1}: cannot be read as an image (EOFError", "copy or download it"]),
        (lambda item: edit(item["image"][2], shift=(3, 0, 4)), ["{2}: not on the grid of {0}: voxels up to 5.00 mm"]),
        (lambda item: edit(item["label"], shift=(0, 0, 2)), ["{4}: not on the grid of {0}: voxels up to 2.00 mm"]),
        (lambda item: edit(item["image"][1], put(np.nan)), ["{1} (t1c): 2 voxels are NaN or Inf", "leave this mod"]),
        (
            lambda item: Path(item["image"][3]).write_bytes(Path(item["image"][1]).read_bytes()),
            ["{1} and {3} (t1c, flair): the same image", "Give each image once and leave the missing modality out"],
        ),
        (
            lambda item: edit(item["label"], lambda voxels: np.where(voxels == 4, 3, voxels).astype(np.uint8)),
            ["{4}: label values [3", "It has 0, 1 (NCR), 2 (ED), 4 (ET)", "Choose the cohort", "check"],
        ),
    ],
)
def test_what_is_refused(subject, change, facts):
    files = [*subject["image"], subject["label"]]
    change(subject)
    with refused(ValueError, *(fact.format(*files) for fact in facts)):
        LoadSubjectd(COHORT)(subject)


def truncate(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-40])


def test_not_skull_stripped_is_warned_about(subject, caplog):
    edit(subject["image"][0], lambda voxels: voxels + np.random.default_rng(0).uniform(5, 6, voxels.shape))
    with caplog.at_level(logging.WARNING):
        LoadSubjectd(COHORT)(subject)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{subject['image'][0]} (t1): not skull-stripped (0% of the voxels are 0)")
    assert "strip the skull first" in record.getMessage()


def test_modalities_that_the_network_never_saw_are_warned_about_and_a_good_subject_is_not(subject, caplog):
    LoadSubjectd(COHORT, trained=(1, 1, 1))(subject)
    assert not caplog.records
    LoadSubjectd(COHORT, ["t1"], seen=["t1c"])(subject)
    assert "The network never saw T1 in training, only T1c: do not trust the result." in caplog.text


def test_images_unlike_those_of_the_training_are_warned_about(subject, caplog):
    LoadSubjectd(COHORT, trained=(0.5, 0.5, 0.5))(subject)
    (record,) = caplog.records
    assert "are coarser than the 0.5 x 0.5 x 0.5 mm that the network was trained at" in record.getMessage()
    caplog.clear()
    put_on(subject, from_matvec(Rotation.from_euler("x", 20, degrees=True).as_matrix()))
    LoadSubjectd(COHORT, trained=(1, 1, 1))(subject)
    (record,) = caplog.records
    assert record.getMessage().startswith("case: its axes are tilted by 20 degrees against the patient's")


def test_hearts_may_be_tilted(write_subject, caplog):
    heart = write_subject(modalities=("bssfp", "lge", "t2"))
    put_on(heart, from_matvec(Rotation.from_euler("x", 20, degrees=True).as_matrix()))
    LoadSubjectd("myops2020", keys="image", trained=(1, 1, 1))(heart)
    assert not caplog.records
