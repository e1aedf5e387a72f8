"""Warnings about label maps with known faults, and lesions of known shapes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantom_case import LABELS, lesion

from common.cohorts.registry import PHANTOM
from common.modalities import LabelSet
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.registration import Registration
from mmb.clinic.head.skull import Brain
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.claims import Headers
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.reading import Study
from mmb.clinic.recognise.record import Assignment, Record
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.doubts import (
    LACKING,
    border_warnings,
    geometry_warnings,
    image_warnings,
    partial_images,
    pieces_warnings,
    segmentation_warnings,
    size_warnings,
)
from mmb.clinic.report.lesions import centre, lesions
from mmb.clinic.report.result import volumes

ALL = ("t1", "t1c", "t2", "flair")


def doubts(
    label: np.ndarray, used: Sequence[str] = ALL, labels: LabelSet = LABELS, spacing: Sequence[float] = (1, 1, 1)
) -> list[Remark]:
    """Return the remarks on a label map."""
    measured = volumes(nib.Nifti1Image(label, np.diag([*spacing, 1])), labels)
    return [*segmentation_warnings(label > 0, measured, used)]


def used(images: Iterable[str], grade: Grade = Grade.SURE, fixed: bool = False) -> Assignment:
    """Return what the modalities are read from: series 0, 1, ..."""
    candidates = {name: Candidate(f"series {n}", f"series {n}", fixed=fixed) for n, name in enumerate(images)}
    return Assignment({name: Record(each, name, grade, "why") for name, each in candidates.items()})


def blank(*names: str) -> dict[str, nib.Nifti1Image]:
    return {name: nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)) for name in names}


@pytest.mark.parametrize("enhancing", [True, False])
def test_without_t1c_enhancing_tumour_is_a_guess(enhancing):
    label, without = lesion(), ("t2", "t1")
    if not enhancing:
        label[label == 4] = 1
    (said,) = doubts(label, used=without, spacing=(2, 2, 2))
    assert said.code == "no_t1c"
    assert ("(0.4 ml) is an estimate" in said.text) == enhancing  # 56 voxels of 8 mm3
    assert ("cannot be ruled out" in said.text) != enhancing
    other = LabelSet({"scar": 1}, {"scar": ("scar",)})
    # T1c would show none of these regions
    assert doubts(lesion() // 4, used=without, labels=other, spacing=(2, 2, 2)) == []


def test_like_warnings_of_several_images_are_one():
    sizes = {"t1": (0.5, 0.5, 6), "t1c": (1, 1, 1), "t2": (0.4, 0.4, 6), "flair": (1, 1, 5)}
    images = {name: nib.Nifti1Image(np.zeros((4, 4, 4)), np.diag([*size, 1])) for name, size in sizes.items()}
    study = Study(images, used(images))
    aligned = AlignedStudy(images, {})
    (thick,) = geometry_warnings(study, aligned, (1, 1, 1))
    assert (thick.code, thick.about) == ("coarse_voxels", ("t1", "t2", "flair"))
    assert thick.text.startswith("T1 (series 0: 0.5 x 0.5 x 6 mm), T2 (series 2: 0.4 x 0.4 x 6 mm), FLAIR (series 3:")
    assert list(geometry_warnings(study, aligned, (5, 5, 6))) == []


@pytest.mark.parametrize(("planes", "code"), [(79, "partial"), (80, "covers_less"), (94, "covers_less"), (95, None)])
def test_limits_of_what_shows_a_part(planes, code):
    """Of a brain of 100 planes an image shows some; the reference shows all."""
    placed = {name: nib.Nifti1Image(np.ones((4, 4, n)), np.eye(4)) for name, n in (("t1", 100), ("t2", planes))}
    aligned = AlignedStudy({"t1": placed["t1"]}, {}, placed=placed)
    found = {code: partial_images(aligned, np.ones((4, 4, 100)) > 0, *shares) for code, (_, *shares) in LACKING.items()}
    text = f"{planes} % of the brain; {100 - planes} mm missing at the top"
    assert found == {each: {"t2": text} if each == code else {} for each in LACKING}


@pytest.mark.parametrize(("information", "agreement", "count"), [(1.021, 0.851, 0), (1.019, 0.849, 2)])
def test_limits_of_what_images_have_in_common(information, agreement, count):
    images = blank("t1", "t2")
    study = Study(images, used(images))
    aligned = AlignedStudy(images, {"t2": Registration(np.eye(4), information, "")})
    brain = Brain(np.ones((4, 4, 4), bool), "t1", 1500, True, {"t1": 1.0, "t2": agreement}, {})
    assert len([*image_warnings(study, aligned, brain, (700, 2000))]) == count


@pytest.mark.parametrize(("millilitres", "doubted"), [(699, True), (701, False), (1999, False), (2001, True)])
def test_limits_of_a_whole_brain(millilitres, doubted):
    images = blank("t1")
    brain = Brain(np.ones((4, 4, 4), bool), "t1", millilitres, True, {"t1": 1.0}, {})
    said = [*image_warnings(Study(images, used(images)), AlignedStudy(images, {}), brain, (700, 2000))]
    assert bool(said) == doubted


@pytest.mark.parametrize(("depth", "voxels", "said"), [(2, 1, "100 %"), (3, 1000, ""), (2, 20, ""), (2, 21, "2 %")])
def test_limits_of_a_lesion_at_the_border(depth, voxels, said):
    """A brain ends at plane 13 and at the image's edge, where a lesion is not cut off.

    A lesion has some voxels in the plane of a depth, and the rest of 1000 far below.
    """
    brain = np.zeros((40, 40, 16), bool)
    brain[..., :14] = True
    lesion = np.zeros(brain.shape, bool)
    assert not [*border_warnings(lesion, brain)]
    lesion[..., 14 - depth].flat[:voxels] = True
    if voxels > 1:
        lesion[..., 5].flat[: 1000 - voxels] = True
    made = " ".join(remark.text for remark in border_warnings(lesion, brain))
    assert bool(made) == bool(said)
    assert made.startswith(said and f"{said} of the lesion lies at the border of the brain that was cut out")


@pytest.mark.parametrize(("thick", "most", "said"), [(False, 200, "20 % of the brain; a tumour rarely takes more than "
                                                      "20 %. Part"), (True, 150, "more than 15 %. Part")])  # fmt: skip
def test_limits_of_a_lesion_for_a_brain(thick, most, said):
    brain, lesion = np.ones((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    lesion.flat[:most] = True
    assert not [*size_warnings(lesion, brain, thick)]
    lesion.flat[most] = True
    (warned,) = size_warnings(lesion, brain, thick)
    assert warned.gravity == Gravity.DOUBT
    assert said in warned.text


def test_a_doubtful_brain():
    images = blank(*ALL)
    study = Study(images, used(images))
    study.skulls.extend(images)
    aligned = AlignedStudy(images, {})
    (said,) = image_warnings(study, aligned, None, (700, 2000))
    assert (said.code, said.gravity, said.about) == ("not_skull_stripped", Gravity.STOP, ALL)
    brain = Brain(np.ones((4, 4, 4), bool), "t1", 1500, True, {"t1": 1.0, "t2": 0.9, "t1c": 0.93}, {})
    assert list(image_warnings(study, aligned, brain, (700, 2000))) == []
    odd = replace(brain, millilitres=2100, agreement={"t1": 1.0, "t2": 0.7}, doubts={"flair": "none"})
    (said,) = image_warnings(study, aligned, odd, (700, 2000))
    assert "FLAIR (series 3): none; it has 2100 ml; expected 700 to 2000 ml; Dice of its mask in T1" in said.text
    assert "T2 (series 2: 0.70)" in said.text
    partial = replace(brain, millilitres=600, is_whole=False)
    assert list(image_warnings(study, aligned, partial, (700, 2000))) == []


def test_what_was_noticed_as_a_study_was_read():
    headers = Headers([], PHANTOM, [], remarks=[Remark("odd", Gravity.NOTE, "of all.")])
    unsure, other = Study({}, used(["t1", "t1c", "t2"], Grade.OPEN), headers=headers).remarks
    assert (unsure.code, unsure.about, other.code) == ("little_confidence", ("t1", "t1c", "t2"), "odd")
    assert unsure.text.startswith("Recognised with little confidence: T1 (series 0: why), T1c (series 1: why), T2")
    assert unsure.text.endswith("name the file after it, e.g. x_t1.nii.gz.")
    for records in (used(["t1"], Grade.LIKELY), used(["t1"], Grade.OPEN, fixed=True)):
        assert Study({}, records).remarks == []


def test_a_mirrored_image_stops_the_result_and_one_that_was_registered_doubts_it():
    images = blank("t1", "t1c", "t2")
    misplaced = {"t1": "fits mirrored.", "t1c": "failed.", "t2": "was registered."}
    aligned = AlignedStudy(images, {}, misplaced, failed={"t1c": "why"}, mirrored={"t1": "fits mirrored."})
    said = [*image_warnings(Study(images, used(images)), aligned, None, (700, 2000))]
    assert [(each.code, each.gravity, *each.about) for each in said] == [
        ("mirrored", "stop", "t1"), ("not_registered", "stop", "t1c"), ("misplaced", "doubt", "t2")
    ]  # fmt: skip
    assert [each.brief for each in said] == ["the T1 seems mirrored", "the T1c does not lie over the reference", ""]
    several = AlignedStudy(images, {}, misplaced, failed={"t1": "why", "t1c": "why"}, mirrored={"t1": "", "t2": ""})
    assert {each.brief for each in image_warnings(Study(images, used(images)), several, None, (700, 2000))} == {
        "the T1 and T2 seem mirrored", "the T1 and T1c do not lie over the reference"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("voxel", "side"),
    [((0, 8, 8), "left"), ((19, 8, 8), "right"), ((8, 0, 8), "posterior"), ((8, 17, 8), "anterior"),
     ((8, 8, 0), "inferior"), ((8, 8, 15), "superior")],
)  # fmt: skip
def test_lesion_at_the_edge(voxel, side):
    label = lesion()
    label[voxel] = 2
    (said,) = doubts(label)
    assert f"edge of the image ({side})" in said.text


def test_pieces_are_warned_of_by_their_volume_and_not_by_their_number():
    label = lesion()
    label[2:18:2, 2, 2] = 1  # 216 of 224 voxels in the largest piece
    assert [*pieces_warnings({"WT": label > 0})] == []
    label[2:18:2, 15, 2] = 1  # of 232
    (said,) = pieces_warnings({"WT": label > 0})
    assert "in 17 separate pieces, specks included, the largest with 93 % of its volume" in said.text
    for largest, warned in ((79, True), (81, False)):
        core = np.repeat([True, False, True], (largest, 1, 100 - largest))[:, None, None]
        assert bool([*pieces_warnings({"WT": np.ones_like(core), "TC": core})]) is warned


@pytest.mark.parametrize(("right", "side"), [(2, "left"), (3, "both sides"), (22, "both sides"), (23, "right")])
def test_a_lesion_is_on_both_sides_from_a_tenth_of_it_on(right, side):
    """Of 25 planes from left to right, 2, 3, 22 or 23 (8, 12, 88 or 92 %) lie to the right of x = 24.5."""
    brain, mask = np.ones((50, 30, 6), bool), np.zeros((50, 30, 6), bool)
    mask[right:, 14:16, 2:4][:25] = True
    (found,), specks = lesions({"WT": mask}, np.eye(4), brain, 0.1)
    assert (found.side, specks) == (side, 0)  # of 0.1 ml, so it is no speck
    mask[right, 14, 2] = False
    assert lesions({"WT": mask}, np.eye(4), brain, 0.1) == ([], 1)  # 99 voxels are one


@pytest.mark.parametrize(("degrees", "side"), [(25, "left"), (35, "right")])
def test_the_midline_of_a_brain_turned_by_up_to_30_degrees_turns_with_it(degrees, side):
    """A lesion 4 mm right of the middle and 20 mm in front: at 25 degrees the midline lies 9 mm right there."""
    x, y = np.mgrid[-40:41, -40:41].astype(float)
    turn = np.radians(degrees)
    across, along = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    brain = ((across / 24) ** 2 + (along / 34) ** 2 <= 1)[..., None] & np.ones(3, bool)
    mask = ((x - 4) ** 2 + (y - 20) ** 2 <= 9)[..., None] & np.ones((1, 1, 3), bool)
    (found,), _ = lesions({"WT": mask}, np.diag([2, 2, 2, 1]), brain, 1.0)
    assert found.side == side


def test_the_middle_of_the_image_parts_a_brain_of_which_nothing_is_known():
    mask = np.zeros((10, 10, 10), bool)
    mask[5:8, 3:7, 3:7] = True
    (found,), _ = lesions({"WT": mask}, np.diag([2, 2, 2, 1]), np.zeros((10, 10, 10), bool), 1.0)
    assert found.side == "right"  # of 4.5


def test_the_centre_is_the_voxel_nearest_to_the_centre_of_mass_in_mm():
    """Of three voxels, the centre of mass is (4 / 3, 3): 2.7 voxels from the third, and 3.3 from the others."""
    mask = np.zeros((5, 7, 1), bool)
    mask[0, 0], mask[0, 6], mask[4, 3] = True, True, True
    assert centre(mask, (1, 1, 1)) == (4, 3, 0)
    assert centre(mask, (3, 1, 1)) == (0, 0, 0)  # 5 mm away, and the third one 8 mm
