"""The data check on small volumes on disk: good ones and every kind of bad one."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.affines import from_matvec
from scipy.spatial.transform import Rotation

from common.cohorts import get_cohort
from common.cohorts.check import Finding, check_folder, coarse, findings, tilted, whole
from common.cohorts.scan import find_cases
from common.transforms import LoadSubjectd
from mmb.experiments.checking import print_check

SHAPE = (6, 7, 8)
LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def image(seed: int) -> np.ndarray:
    """A brain of random intensities in a background of 0."""
    volume = np.zeros(SHAPE, np.float32)
    volume[2:5, 2:5, 2:6] = np.random.default_rng(seed).uniform(1, 9, (3, 3, 4))
    return volume


def label(*values: int) -> np.ndarray:
    volume = np.zeros(SHAPE, np.uint8)
    volume[2, 2, : len(values)] = values
    return volume


def save(path: Path, volume: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, affine), path)


def subject(
    folder: Path, tokens: tuple[str, ...] = ("t1", "t1ce", "t2", "flair"), affine: np.ndarray = LPS, first: int = 0
) -> Path:
    for seed, token in enumerate(tokens, start=first):
        save(folder / f"x_{token}.nii.gz", image(seed), affine)
    return folder


def check(folder: Path, cohort: str = "brats2020") -> dict:
    (row,) = check_folder(get_cohort(cohort), folder).to_dict("records")
    return row


def test_good_case(tmp_path):
    save(subject(tmp_path / "case") / "x_seg.nii.gz", label(1, 2, 4))
    expected = {"case": "case", "modalities": "t1+t1c+t2+flair", "missing": "", "shape": "6x7x8", "spacing_mm": "1x1x2"}
    assert check(tmp_path) == expected | {"orientation": "LPS", "label_values": "0 1 2 4", "problems": ""}


def test_missing_modalities_and_label_are_no_problem(tmp_path):
    row = check(subject(tmp_path / "case", ("t1ce", "t2")))
    assert (row["modalities"], row["missing"]) == ("t1c+t2", "t1+flair")
    assert (row["label_values"], row["problems"]) == ("", "")


def test_open_glioma_has_both_releases_values(tmp_path):
    for case, et in (("BraTS2021_00002", 4), ("BraTS-SSA-00002-000", 3)):
        save(subject(tmp_path / case, first=9 * et) / "x_seg.nii.gz", label(1, 2, et))
    table = check_folder(get_cohort("open_glioma"), tmp_path)
    assert table["label_values"].tolist() == ["0 1 2 3", "0 1 2 4"]
    assert table["problems"].tolist() == ["", ""]
    save(tmp_path / "BraTS2021_00002" / "x_seg.nii.gz", label(1, 2, 3, 4))
    assert "label values 3 and 4" in check_folder(get_cohort("open_glioma"), tmp_path)["problems"][1]


def test_msd_channels_are_checked_one_by_one(tmp_path):
    channels = [image(seed) for seed in range(4)]
    channels[3][:] = 0
    save(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.stack(channels, axis=-1))
    save(tmp_path / "labelsTr" / "BRATS_001.nii.gz", label(1, 2, 3))
    row = check(tmp_path, "msd_task01")
    assert (row["modalities"], row["shape"], row["label_values"]) == ("t1+t1c+t2+flair", "6x7x8", "0 1 2 3")
    assert row["problems"] == "t2: every voxel is 0"


def test_wrong_numbers_of_channels(tmp_path):
    two = np.stack([image(0), image(1)], axis=-1)
    save(tmp_path / "msd" / "imagesTr" / "BRATS_001.nii.gz", two)
    assert "expected (X, Y, Z, C) with a channel 3" in check(tmp_path / "msd", "msd_task01")["problems"]
    save(subject(tmp_path / "own") / "x_t2.nii.gz", two)
    assert "own/x_t2.nii.gz: shape (6, 7, 8, 2); expected (X, Y, Z)." in check(tmp_path / "own")["problems"]


def put(value: float, where=...) -> np.ndarray:
    volume = image(1)
    volume[where] = value
    return volume


def with_background(value: float) -> np.ndarray:
    brain = image(2) - 5 * (image(2) != 0)  # some voxels are below 0
    return np.where(brain == 0, np.float32(value), brain + value)


@pytest.mark.parametrize(
    ("token", "volume", "affine", "problems"),
    [
        ("t2", image(2), from_matvec(LPS[:3, :3], (3, 0, 4)), "t2: not on the grid of t1: voxels up to 5.00 mm away"),
        ("seg", label(1), np.diag([-1.0, -1, 3, 1]), "label: not on the grid of t1: voxels up to 7.00 mm away"),
        ("t2", image(2), LPS + 1e-5 * np.eye(4), ""),  # rounding in the header
        ("flair", image(3)[:, :, :7], LPS, "flair: not on the grid of t1: shape 6x7x7, not 6x7x8"),
        *[("t1ce", put(v, (0, 0, slice(3))), LPS, "t1c: 3 voxels are NaN or Inf") for v in (np.nan, np.inf)],
        *[("t1ce", put(value), LPS, f"t1c: every voxel is {value}") for value in (0, 7)],
        ("t1ce", put(1e30, (3, 3, 3)), LPS, "t1c: 1 voxels are beyond 1e+09 (from 0 to 1e+30)"),
        ("t2", image(0), LPS, "t1 and t2: the same image"),
        ("t2", image(2) + np.linspace(1, 2, 8, dtype="f4"), LPS, "t2: not skull-stripped (0% of the voxels are 0)"),
        *[("t2", with_background(value), LPS, "") for value in (-1000, -0.75, 3)],  # which is none of the head
    ],
)
def test_a_file_unlike_the_others(tmp_path, token, volume, affine, problems):
    save(subject(tmp_path) / f"x_{token}.nii.gz", volume, affine)
    assert check(tmp_path)["problems"] == problems


def ball(millilitres: float, spacing: float = 6) -> np.ndarray:
    """Return a ball of random intensities, with the given ml and voxels of that many mm, amid 32 x 32 x 32 voxels."""
    radius = (3000 * millilitres / 4 / np.pi) ** (1 / 3) / spacing
    there = sum((axis - 15.5) ** 2 for axis in np.indices((32, 32, 32))) < radius**2
    return np.where(there, np.random.default_rng(0).uniform(1, 9, there.shape), 0).astype(np.float32)


def found(volume: np.ndarray, spacing: float = 6, cohort: str = "brats2020") -> list[Finding]:
    image = MetaTensor(volume, affine=np.diag([-spacing, -spacing, spacing, 1]))
    return [*findings({"t2": image}, get_cohort(cohort))]


def test_a_head_in_air_of_0_and_a_brain_of_half_the_voxel_size():
    head = ball(2800)
    assert (head == 0).mean() > 0.5
    (finding,) = found(head)
    assert finding.what == f"not skull-stripped ({(head != 0).sum() * 0.216:.0f} ml are not 0; a brain has up to 2000)"
    assert (finding.skull, finding.fatal) == (True, False)
    assert "Or is its voxel size wrong, 6 x 6 x 6 mm?" in finding.remedy
    brain = ball(1300)
    (finding,) = found(brain, 3)
    size = f"{(brain != 0).sum() * 0.027:.0f}"
    assert finding.what == f"a whole brain of only {size} ml, with voxels of 3 x 3 x 3 mm; expected 700 to 2000 ml"
    assert (finding.skull, finding.fatal) == (False, False)
    assert "Is the voxel size in the file right?" in finding.remedy


@pytest.mark.parametrize(
    "part",
    [
        np.s_[:, :, 14:18],
        np.s_[:, :, 16:17],
        np.s_[:, :, 18:],
        np.s_[:, :12],
        np.s_[17:],
    ],
    ids=["slab", "slice", "top", "back", "one half"],
)
def test_a_part_of_a_brain_may_be_small(part):
    cut = ball(1300)[part]
    assert 0 < np.count_nonzero(cut) * 0.216 < 700
    assert not found(cut)
    padded = np.zeros((32, 32, 32), np.float32)  # a slab on the grid of the whole brain
    padded[part] = cut
    assert not found(padded)


@pytest.mark.parametrize(("planes", "tapers"), [(14, True), (15, False)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_brain_is_cut_off_where_its_section_is_more_than_half_its_largest(axis, planes, tapers):
    """The sections of a diamond grow from 1 voxel to 925; that in plane 14 has 421, in plane 15 481."""
    diamond = sum(abs(place - 21) for place in np.indices((43, 43, 43))) <= 21
    areas = diamond.sum(axis=(1, 2))
    assert (areas[14], areas[15], areas.max()) == (421, 481, 925)
    for kept in (slice(planes, None), slice(None, 43 - planes)):
        assert whole(torch.from_numpy(diamond.swapaxes(0, axis)[kept].swapaxes(0, axis).copy())) == tapers


@pytest.mark.parametrize(
    ("cohort", "millilitres", "said"),
    [
        *[("brats2020", size, None) for size in (800, 1300, 1900)],  # an adult
        ("iseg2017", 500, None),  # an infant
        ("iseg2017", 100, "a whole brain of only"),
        ("iseg2017", 1700, "not skull-stripped"),
        ("myops2020", 100, None),  # a heart
        ("myops2020", 2800, None),
    ],
)
def test_what_is_too_small_or_too_large_depends_on_the_cohort(cohort, millilitres, said):
    texts = [finding.what for finding in found(ball(millilitres), 6, cohort)]
    assert [text.startswith(said) for text in texts] == ([] if said is None else [True])


@pytest.mark.parametrize(("cohort", "values"), [("brats2023", (1, 2, 4)), ("brats2020", (1, 2, 3))])
def test_label_values_of_another_cohort(tmp_path, cohort, values):
    save(subject(tmp_path) / "x_seg.nii.gz", label(*values))
    row = check(tmp_path, cohort)
    assert row["label_values"] == f"0 1 2 {values[-1]}"
    assert f"x_seg.nii.gz: label values [{values[-1]}] are not defined in this cohort" in row["problems"]


def test_unreadable_file_is_a_problem_and_the_rest_is_checked(tmp_path):
    path = subject(tmp_path) / "x_t1.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    save(tmp_path / "x_t2.nii.gz", np.zeros(SHAPE, np.float32))
    row = check(tmp_path)
    assert row["problems"].startswith(f"{path}: cannot be read")
    assert (row["problems"].endswith("t2: every voxel is 0"), row["shape"]) == (True, "6x7x8")


def test_what_is_coarser_than_the_training_images():
    assert coarse(np.diag([0.5, 0.5, 1.7, 1]), (1, 1, 1.2)) is None  # less than 1.5 times 1.2
    said = coarse(np.diag([0.5, 0.5, 5, 1]), (1, 1, 1.2))
    assert "voxels of 0.5 x 0.5 x 5 mm are coarser than the 1 x 1 x 1.2 mm" in said
    assert coarse(np.diag([1, 1, 12.0, 1]), (1, 1, -1)) is None  # with the slices as acquired


@pytest.mark.parametrize(("degrees", "said"), [(14, None), (16, "tilted by 16 degrees")])
def test_tilted_axes(degrees, said):
    turned = Rotation.from_euler("x", degrees, degrees=True).as_matrix() @ np.diag([-1.0, 2, 3])
    for order in ([0, 1, 2], [2, 0, 1]):  # a sagittal scan is not tilted
        found = tilted(from_matvec(turned[:, order]))
        assert found is None if said is None else said in found


def test_cases_that_share_an_image(tmp_path, capsys):
    for number, case in enumerate(("a", "b", "c")):
        save(tmp_path / case / f"{case}_t1.nii.gz", image(number // 2).astype(np.float64 if number else np.float32))
    (tmp_path / "c" / "c_t1.nii.gz").write_bytes((tmp_path / "a" / "a_t1.nii.gz").read_bytes()[:100])
    assert not print_check("brats2020", tmp_path)
    said = capsys.readouterr().out
    assert "3 cases, 2 with problems" in said
    assert "\nb: it shares an image with a\nc: " in said


def write_labels(root: Path, *labels: np.ndarray) -> Path:
    for number, values in enumerate(labels):
        save(root / f"own{number}" / "x_t1.nii.gz", image(number))
        save(root / f"own{number}" / "x_seg.nii.gz", values)
    return root


def test_what_label_values_mean_is_printed(tmp_path, capsys):
    assert print_check("brats_ped", write_labels(tmp_path, label(1, 2, 4), label(1), label(1)))
    assert (
        "label value 1 (ET): 3\ncases with label value 2 (NET): 1\ncases with label value 4 (ED): 1\n"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        ([label(1, 2, 5)], "No cohort has all of these label values."),
        (
            [label(1, 2), label(3)],
            "All labels fit brats2023 best: its values are 1 NCR, 2 ED, 3 ET and no others; 25 other cohorts allow "
            "them. msd_task01 and lumiere give the same values other meanings.\n",
        ),
        ([label(1, 3)], "All labels fit brats2023 best: its values are 1 NCR, 2 ED, 3 ET (not found: 2); 25 other"),
        ([label(250)], "All labels fit iseg2017 best: its values are 10 CSF, 150 GM, 250 WM (not found: 10, 150).\n"),
    ],
)
def test_labels_of_another_kind(tmp_path, capsys, labels, fact):
    assert not print_check("brats2020", write_labels(tmp_path, *labels))
    assert fact in capsys.readouterr().out


def test_of_cohorts_with_the_same_values_the_phantom_comes_last(tmp_path, capsys):
    assert not print_check("brats2023", write_labels(tmp_path, label(1, 2, 4)))
    assert "All labels fit brats2018 best: its values are 1 NCR, 2 ED, 4 ET and no" in capsys.readouterr().out


def test_interpolated_labels_are_of_no_other_cohort(tmp_path, capsys):
    assert not print_check("brats2023", write_labels(tmp_path, label(2, 3, 6) / 2))
    printed = capsys.readouterr().out
    assert "x_seg.nii.gz: label values 1.5 are no whole numbers" in printed
    assert "cohort has" not in printed
    assert "All labels fit" not in printed


def test_names_of_another_data_set(tmp_path, capsys):
    save(tmp_path / "BraTS-PED-00001-000" / "x_t1.nii.gz", image(0))
    save(tmp_path / "BraTS-PED-00001-000" / "x_seg.nii.gz", label(1, 2, 4))
    assert not print_check("brats2021", tmp_path)
    assert "is named like a case of brats_ped or brats2023_ped" in capsys.readouterr().out


loaded, image_alone = LoadSubjectd("brats2020"), LoadSubjectd("brats2020", keys=["image"])


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (label(1, 2, 4), ""),
        (label(1, 2, 4) * (1 + 1e-6), ""),
        (label(1, 2, 4) + 1e-4, ""),
        (label(1, 2, 4) * 0.99999, ""),
        (label(1, 2, 4) * 0.9, "label values 0.9, 1.8, 3.6 are no whole numbers"),
        (label(1, 2, 4) + 0.002, "label values 0.002, 1.002, 2.002, 4.002 are no whole numbers"),
        (np.where(label(1) > 0, np.nan, 1), "label values nan are no whole numbers"),
        (label(1, 3), "label values [3] are not defined"),
        (np.stack([label(1), label(0, 1), label(1)], axis=-1), "shape (6, 7, 8, 3); expected a label map (X, Y, Z)"),
        (label(1, 2, 4)[..., None], ""),
    ],
)
def test_labels_are_read_alike_by_check_and_training(tmp_path, values, problem):
    save(subject(tmp_path / "case") / "x_seg.nii.gz", np.asarray(values, np.float32))
    (row,) = check_folder(get_cohort("brats2020"), tmp_path, load=loaded).to_dict("records")
    assert problem in row["problems"]
    assert bool(problem) == bool(row["problems"])
    item = find_cases(tmp_path, get_cohort("brats2020"))[0]
    if problem:
        with pytest.raises(ValueError, match=re.escape(problem)):
            loaded(item)
    else:
        np.testing.assert_array_equal(torch.unique(loaded(item)["label"].as_tensor()), [0, 1, 2, 4])


@pytest.mark.parametrize("value", [0, -1, 7])
def test_a_constant_channel_is_refused_where_it_is_loaded(tmp_path, value):
    subject(tmp_path / "case")
    save(tmp_path / "case" / "x_t2.nii.gz", np.full(SHAPE, value, np.float32))
    with pytest.raises(ValueError, match=rf"x_t2.nii.gz \(t2\): every voxel is {value}. An empty image is not a mod"):
        image_alone(find_cases(tmp_path, get_cohort("brats2020"))[0])
    assert f"t2: every voxel is {value}" in check(tmp_path)["problems"]


def test_what_else_a_training_refuses_is_a_problem(tmp_path):
    save(subject(tmp_path / "case") / "x_seg.nii.gz", label(1, 2, 4))

    def load(item: dict) -> None:
        raise RuntimeError(f"no {item['case']}")

    (row,) = check_folder(get_cohort("brats2020"), tmp_path, load=load).to_dict("records")
    assert row["problems"] == "a training could not read it: no case"


@pytest.mark.parametrize(
    ("files", "said", "good"),
    [
        (("P1/P1_t1", "P1/P1_flair", "P1/P2_seg"), "P1_t1.nii.gz (p1) and P2_seg.nii.gz (p2): are these", False),
        (("P1/P1_t1", "P1/P2_flair"), "P1_t1.nii.gz (p1) and P2_flair.nii.gz (p2): are these names of two", False),
        (("A_t1", "B_flair"), "A_t1.nii.gz (a) and B_flair.nii.gz (b): are these names of two", False),
        (("P01_1/x_t1", "P01_2/x_t1"), "P01_1, P01_2: are these of one patient? They count as several", True),
        (("P1/P1_brain_t1", "P1/P1_flair", "P1/P1_seg"), "", True),
        (("case_1/5_ax_t1", "case_1/8_flair", "case_2/x_t1"), "", True),
    ],
)
def test_names_of_two_cases_are_said(tmp_path, capsys, files, said, good):
    for seed, name in enumerate(files):
        save(tmp_path / f"{name}.nii.gz", label(1, 2, 4) if name.endswith("seg") else image(seed))
    assert print_check("brats2020", tmp_path) == good
    printed = capsys.readouterr().out
    assert said in printed
    assert ("?" in printed) == bool(said)
