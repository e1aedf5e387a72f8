"""Any subset can be loaded, and every kind of bad input gives a clear message."""

import logging
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Orientationd
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from common.cohorts.phantom.simulation import simulate
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


def refusal(item, error=ValueError, **options) -> str:
    """Return the message with which the item is refused."""
    with pytest.raises(error) as info:
        LoadSubjectd(COHORT, **options)(item)
    return str(info.value)


def test_all_modalities_and_label(subject):
    loaded = LoadSubjectd(COHORT)(subject)
    image, label = loaded["image"], loaded["label"]
    assert (image.shape, image.dtype) == ((4, 20, 18, 16), torch.float32)
    assert (label.shape, label.dtype) == ((1, 20, 18, 16), torch.uint8)
    for channel, path in zip(image, subject["image"], strict=True):
        np.testing.assert_array_equal(channel.numpy(), array(path))
    np.testing.assert_array_equal(label[0].numpy(), array(subject["label"]))
    for volume in (image, label):
        np.testing.assert_array_equal(volume.affine.numpy(), nib.load(subject["label"]).affine)
    assert image.meta["filename_or_obj"] == "case.nii.gz"
    assert loaded["case"] == "case"


def test_channels_are_in_the_cohorts_order_whatever_the_items(subject):
    expected = LoadSubjectd(COHORT)(subject)["image"]
    turned = {**subject, "image": subject["image"][::-1], "modalities": subject["modalities"][::-1]}
    assert torch.equal(LoadSubjectd(COHORT)(turned)["image"].as_tensor(), expected.as_tensor())


def test_the_item_is_not_changed(subject):
    before = dict(subject)
    LoadSubjectd(COHORT)(subject)
    assert subject == before


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


def test_label_is_left_out_unless_wanted(subject):
    assert "label" not in LoadSubjectd(COHORT, keys="image")(subject)


def test_label_that_the_datalist_does_not_have(subject):
    del subject["label"]
    assert refusal(subject) == "case: the datalist names no label; expected a segmentation file (key `label`)."


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


def test_one_file_and_a_requested_subset(subject, tmp_path):
    path = stacked(subject, tmp_path, absent=["t2"])
    image = LoadSubjectd(COHORT, ["t2", "flair"], keys="image")({"image": path})["image"]
    assert presence(image[None]).tolist() == [[False, False, False, True]]


def test_one_file_with_a_partly_nan_channel(subject, tmp_path):
    path = stacked(subject, tmp_path)
    edit(path, put(np.nan, (0, 0, slice(0, 3), 1)))
    assert f"{path} (t1c): 3 voxels are NaN or Inf" in refusal({"image": path}, keys="image")


def test_one_file_with_nothing_in_it(subject, tmp_path):
    message = refusal({"image": stacked(subject, tmp_path, absent=MODALITIES)}, keys="image")
    assert "stack: has none of the requested modalities (t1+t1c+t2+flair); the subject has none." in message


def test_one_file_of_another_number_of_channels(subject):
    path = subject["image"][0]
    message = refusal({"image": path}, keys="image")
    assert message.startswith(f"{path}: shape (20, 18, 16); expected (X, Y, Z, 4) with the channels t1, t1c, t2, flair")


def test_channels_of_one_file_as_in_msd(subject, tmp_path, opened):
    expected = LoadSubjectd(COHORT)(subject)["image"]
    opened.clear()
    path = stacked(subject, tmp_path, order=("flair", "t1", "t1c", "t2"))
    item = {"case": "x", "image": [path] * 4, "modalities": list(MODALITIES), "channels": [1, 2, 3, 0]}
    assert torch.equal(LoadSubjectd(COHORT, keys="image")(item)["image"].as_tensor(), expected.as_tensor())
    assert opened == ["stack.nii.gz"]


def test_several_channels_where_one_is_expected(subject, tmp_path):
    path = stacked(subject, tmp_path)
    message = refusal({**subject, "image": [path, *subject["image"][1:]]})
    assert message == (
        f"{path}: t1: shape (20, 18, 16, 4); expected (X, Y, Z). Correct `image` and `channels` in the datalist."
    )


@pytest.mark.parametrize("channel", [8, 16])
def test_channel_of_a_file_that_has_none(subject, channel):
    path = subject["image"][0]
    message = refusal({**subject, "channels": [channel] * 4})
    assert message.startswith(f"{path}: t1: shape (20, 18, 16); expected (X, Y, Z, C) with a channel {channel}")


def test_reorientation_makes_lps_and_ras_copies_alike(subject, tmp_path):
    copy = {**subject, "image": [str(tmp_path / f"{m}.nii.gz") for m in MODALITIES], "label": str(tmp_path / "s.nii")}
    for source, target in zip([*subject["image"], subject["label"]], [*copy["image"], copy["label"]], strict=True):
        nib.save(nib.as_closest_canonical(nib.load(source)), target)
    pipeline = Compose([LoadSubjectd(COHORT), Orientationd(["image", "label"], axcodes="RAS", labels=None)])
    lps, ras = pipeline(subject), pipeline(copy)
    assert not np.array_equal(array(subject["image"][0]), array(copy["image"][0]))
    for key in ("image", "label"):
        assert torch.equal(lps[key].as_tensor(), ras[key].as_tensor())
        assert torch.equal(lps[key].affine, ras[key].affine)


def test_no_modality_at_all(write_subject):
    message = refusal(write_subject(modalities=("t1",)), modalities=["t2", "flair"])
    assert message == (
        "case: has none of the requested modalities (t2+flair); the subject has t1. Request at least one of them."
    )
    with pytest.raises(ValueError, match="No modality was requested; name at least one of t1, t1c, t2, flair"):
        LoadSubjectd(COHORT, modalities=[])


def test_unknown_modality():
    with pytest.raises(ValueError, match="Unknown modality 'dwi'; expected one of bssfp, c0, de, fla, flair, lge"):
        LoadSubjectd(COHORT, modalities=["t1", "dwi"])


def test_listed_file_that_is_missing(subject):
    Path(subject["image"][2]).unlink()
    message = refusal(subject, FileNotFoundError)
    assert message.startswith(f"{subject['image'][2]}: no such file")
    assert "leave an absent modality out of the list" in message


@pytest.mark.parametrize("which", ["image", "label"])
def test_truncated_file(subject, which):
    path = Path(subject["image"][1] if which == "image" else subject["label"])
    path.write_bytes(path.read_bytes()[:-40])
    message = refusal(subject)
    assert message.startswith(f"{path}: cannot be read as an image (EOFError")
    assert "copy or download it again" in message


def test_text_named_nifti(subject):
    Path(subject["image"][3]).write_text("404 not found")
    message = refusal(subject)
    assert message.startswith(f"{subject['image'][3]}: cannot be read as an image")
    assert "expected a complete NIfTI" in message


def test_shapes_that_differ(subject):
    edit(subject["image"][1], lambda voxels: voxels[:, :-1])
    message = refusal(subject)
    t1, t1c = subject["image"][:2]
    assert message.startswith(f"{t1c}: shape (20, 17, 16), but {t1} has (20, 18, 16); expected the same grid")
    assert "Register and resample" in message


@pytest.mark.parametrize(("shift", "mm"), [((3, 0, 4), "5.00"), ((0, -0.25, 0), "0.25")])
def test_affines_that_differ(subject, shift, mm):
    edit(subject["image"][2], shift=shift)
    message = refusal(subject)
    assert message.startswith(f"{subject['image'][2]}: its affine puts voxels up to {mm} mm away")
    assert subject["image"][0] in message
    assert "Register and resample" in message


def test_affine_that_is_scaled_is_as_far_off_as_its_farthest_corner(subject):
    path = subject["image"][1]
    affine = nib.load(path).affine @ np.diag([1.1, 1, 1, 1])
    nib.save(nib.Nifti1Image(array(path), affine), path)
    assert "up to 1.90 mm away" in refusal(subject)  # 19 voxels of 0.1 mm


def test_affines_that_differ_by_rounding_pass(subject):
    edit(subject["image"][2], shift=(0, 1e-3, 0))
    LoadSubjectd(COHORT)(subject)


def test_label_on_another_grid(subject):
    edit(subject["label"], shift=(0, 0, 2))
    assert refusal(subject).startswith(f"{subject['label']}: its affine puts voxels up to 2.00 mm away")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_inf_inside_a_modality(subject, value):
    edit(subject["image"][1], put(value))
    message = refusal(subject)
    assert message.startswith(f"{subject['image'][1]} (t1c): 2 voxels are NaN or Inf")
    assert "Repair the file, or leave this modality out" in message


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image(subject, value):
    edit(subject["image"][3], put(value, ...))
    message = refusal(subject)
    assert message.startswith(f"{subject['image'][3]} (flair): every voxel is {value}")
    assert "leave it out" in message


def test_one_image_for_two_modalities(subject):
    t1c, flair = subject["image"][1], subject["image"][3]
    Path(flair).write_bytes(Path(t1c).read_bytes())
    message = refusal(subject)
    assert message.startswith(f"{t1c} and {flair} (t1c, flair): the same image")
    assert "Give each image once and leave the missing modality out" in message


def test_not_skull_stripped_is_warned_about(subject, caplog):
    edit(subject["image"][0], lambda voxels: voxels + np.random.default_rng(0).uniform(5, 6, voxels.shape))
    with caplog.at_level(logging.WARNING):
        LoadSubjectd(COHORT)(subject)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{subject['image'][0]} (t1): not skull-stripped (0% of the voxels are 0)")
    assert "strip the skull first" in record.getMessage()


def test_a_head_in_air_of_0_and_a_wrong_voxel_size_are_warned_about(write_subject, caplog):
    subject = write_subject(modalities=("t2",))
    distance = sum((axis - (n - 1) / 2) ** 2 for axis, n in zip(np.indices((20, 18, 16)), (20, 18, 16), strict=True))
    edit(subject["image"][0], lambda voxels: np.where(distance < 7.5**2, 1 + distance, 0).astype(np.float32))
    for size, said in (
        (12, "not skull-stripped (3000 ml are not 0; a brain has up to 2000)"),  # 1736 voxels
        (9, None),
        (4.5, "a whole brain of only 158 ml, with voxels of 4.5 x 4.5 x 4.5 mm; expected 700 to 2000"),
    ):
        caplog.clear()
        put_on(subject, np.diag([size, size, size, 1]))
        LoadSubjectd(COHORT, keys="image")(subject)
        texts = [record.getMessage() for record in caplog.records]
        texts = [text for text in texts if "does not look like T2" not in text]  # a ball does not
        assert len(texts) == (said is not None)
        assert all(text.startswith(f"{subject['image'][0]} (t2): {said}") for text in texts)


def test_a_sequence_that_another_file_names_is_warned_about(write_subject, caplog):
    subject = write_subject(modalities=("t2", "flair"))
    images, _ = simulate(77_080)
    for path, name in zip(subject["image"], ("flair", "t2"), strict=True):
        nib.save(nib.Nifti1Image(images[name], np.diag([-3.0, -3.0, 3.0, 1.0])), path)
    LoadSubjectd(COHORT, keys="image")(subject)
    (record,) = caplog.records
    t2, flair = subject["image"]
    said = f"{t2} and {flair} (t2, flair): judging by their content, T2 and FLAIR are exchanged. Look at it"
    assert record.getMessage().startswith(said)


def test_good_subject_is_not_warned_about(subject, caplog):
    LoadSubjectd(COHORT, trained=(1, 1, 1))(subject)
    assert not caplog.records


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


@pytest.mark.parametrize(
    ("cohort", "value", "hint"),
    [
        ("brats2020", 3, "Enhancing tumour is 4 in BraTS up to 2021 and 3 in BraTS 2023"),
        ("brats2023", 4, "Enhancing tumour is 4 in BraTS up to 2021 and 3 in BraTS 2023"),
        ("brats2020", 9, "which has 0, 1 (NCR), 2 (ED), 4 (ET)"),
    ],
)
def test_unknown_label_values(subject, cohort, value, hint):
    edit(subject["label"], lambda voxels: np.where(voxels == 4, value, voxels).astype(np.uint8))
    with pytest.raises(ValueError, match=re.escape(hint)) as info:
        LoadSubjectd(cohort)(subject)
    message = str(info.value)
    assert message.startswith(f"{subject['label']}: label values [{value}")
    assert "Choose the cohort that the file belongs to (key `cohort`)" in message
