"""Warnings about label maps with known faults."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from small_lesion import LABELS, lesion, regions

from clinic.choice import Candidate, Verdict
from clinic.study.alignment import AlignedStudy
from clinic.study.doubts import (
    border_warnings,
    geometry_warnings,
    image_warnings,
    segmentation_warnings,
    size_warnings,
    study_warnings,
)
from clinic.study.inference import Segmentation
from clinic.study.reading import Remark, Study
from clinic.study.result import gains, intervals, volumes
from clinic.study.skull import Brain
from common.modalities import LabelSet

ALL = ("t1", "t1c", "t2", "flair")


def doubts(
    label: np.ndarray,
    given: np.ndarray | None = None,
    used: Sequence[str] = ALL,
    labels: LabelSet = LABELS,
    spacing: Sequence[float] = (1, 1, 1),
) -> list[str]:
    """Return the warnings about a label map with certain probabilities, or those given."""
    masks = regions(label, labels)
    segmentation = Segmentation(label, masks, masks.astype(np.float32) if given is None else given)
    return [*segmentation_warnings(segmentation, used, labels, spacing)]


def used(images: Iterable[str]) -> dict[str, Candidate]:
    return {name: Candidate(f"series {number}", f"series {number}") for number, name in enumerate(images)}


def test_volumes_in_ml():
    # 216, 64 and 56 voxels of 6 mm3
    assert volumes(nib.Nifti1Image(lesion(), np.diag([1.0, 2, 3, 1])), LABELS) == pytest.approx(
        {"WT": 1.296, "TC": 0.384, "ET": 0.336}
    )


def test_gains_are_those_of_the_subset_that_is_there():
    rows = [("t2", "flair", "WT", 0.2), ("t2", "t1c", "ET", 0.3), ("t2", "flair", "ET", 0.1)]
    rows.append(("t1+t2", "flair", "WT", 0.5))
    advice = pd.DataFrame(rows, columns=["modalities", "modality", "region", "average"])
    expected = [("t1c", {"ET": 0.3}), ("flair", {"WT": 0.2, "ET": 0.1})]  # the largest first
    assert list(gains(advice, "t2").items()) == expected
    assert gains(advice, "t1") == gains(None, "t2") == {}


def test_no_interval_exceeds_the_brain():
    table = {"modalities": "t1", "region": ["WT", "TC"], "quantile": [2.0, np.inf], "coverage": 0.8, "n": [5, 0]}
    found = intervals(pd.DataFrame(table), "t1", {"WT": 400.0, "TC": 100.0}, 1500.0, "threshold")
    assert list(found) == ["WT"]  # nothing is known about TC
    assert found["WT"][1:] == (1500.0, 0.8)
    assert found["WT"][0] < 400
    small = intervals(pd.DataFrame(table), "t1", {"WT": 4.0}, 1500.0, "threshold")["WT"]
    assert small[1] == pytest.approx(5 * np.exp(2) - 1)


def test_intervals_are_those_of_the_decision():
    table = pd.DataFrame({"modalities": "t1", "region": ["WT"], "quantile": [2.0], "coverage": 0.8, "n": [5]})
    assert intervals(table, "t1", {"WT": 4.0}, 1500.0, "expected_dice") == {}  # it is of the threshold's volumes
    expected = table.assign(decision="expected_dice")
    assert intervals(expected, "t1", {"WT": 4.0}, 1500.0, "expected_dice")["WT"][1] == pytest.approx(5 * np.exp(2) - 1)


def test_nothing_to_doubt():
    assert doubts(lesion(), probabilities(0.99)) == []


@pytest.mark.parametrize("enhancing", [True, False])
def test_without_t1c_enhancing_tumour_is_a_guess(enhancing):
    label, without = lesion(), ("t2", "t1")
    if not enhancing:
        label[label == 4] = 1
    (said,) = doubts(label, used=without, spacing=(2, 2, 2))
    assert said.startswith("No T1c: ")
    assert ("(0.4 ml) is a guess" in said) == enhancing  # 56 voxels of 8 mm3
    assert ("cannot be ruled out" in said) != enhancing
    other = LabelSet({"scar": 1}, {"scar": ("scar",)})
    # T1c would show none of these regions
    assert doubts(lesion() // 4, used=without, labels=other, spacing=(2, 2, 2)) == []


def test_like_warnings_of_several_images_are_one():
    """Thick slices, and series that show only part of the head: one line each, which names all of them."""
    sizes = {"t1": (0.5, 0.5, 6), "t1c": (1, 1, 1), "t2": (0.4, 0.4, 6), "flair": (1, 1, 5)}
    images = {name: nib.Nifti1Image(np.zeros((4, 4, 4)), np.diag([*size, 1])) for name, size in sizes.items()}
    study = Study(images, used(images))
    covered = {"t1": 0.7, "t1c": 1.0, "t2": 0.96, "flair": 0.85}
    aligned = AlignedStudy(images, {}, covered)
    partial, thick = geometry_warnings(study, aligned, (1, 1, 1))
    assert partial.startswith(
        "T1 (series 0: 70%), FLAIR (series 3: 85%): covers only this part of what the reference shows"
    )
    assert thick.startswith(
        "T1 (series 0: 0.5 x 0.5 x 6 mm), T2 (series 2: 0.4 x 0.4 x 6 mm), FLAIR (series 3: 1 x 1 x 5 mm): voxels"
    )
    assert list(geometry_warnings(study, replace(aligned, covered={}), (5, 5, 6))) == []


def test_a_lesion_at_the_border_of_the_brain_that_was_cut_out():
    brain = np.ones((20, 18, 16), bool)
    brain[:, :, 14:] = False
    label = np.zeros(brain.shape, np.uint8)
    label[5:15, 5:15, :10] = 2  # it reaches the edge of the image, which is no border of the brain
    assert [*border_warnings(label > 0, brain)] == []
    label[5:15, 5, 11:13] = 4  # of 1020 voxels 10 are within two of the border
    assert [*border_warnings(label > 0, brain)] == []
    label[5:15, 6:8, 12] = 4  # 30 of 1040
    (said,) = border_warnings(label > 0, brain)
    assert said.startswith("3% of the lesion lies at the border of the brain")
    assert [*border_warnings(np.zeros_like(brain), brain)] == []


def test_a_lesion_too_large_for_a_brain():
    brain = np.zeros((10, 10, 10), bool)
    brain[:, :, :5] = True  # 500 voxels
    label = np.zeros(brain.shape, np.uint8)
    label[:, :, 0] = 2  # 100 of them
    assert [*size_warnings(label > 0, brain)] == []
    label[0, 0, 1] = 4
    (said,) = size_warnings(label > 0, brain)
    assert said.startswith("The lesion takes up 20% of the brain, more than any tumour that this limit (20%) was set")


def test_a_doubtful_brain():
    images = {name: nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)) for name in ("t1", "t1c", "t2", "flair")}
    study = Study(images, used(images))
    study.skulls.extend(images)
    aligned = AlignedStudy(images, {}, {})
    (said,) = image_warnings(study, aligned, None, (700, 2000))
    assert said.startswith("T1 (series 0), T1c (series 1), T2 (series 2), FLAIR (series 3): not skull-stripped")
    brain = Brain(np.ones((4, 4, 4), bool), "t1", 1500, True, {"t1": 1.0, "t2": 0.9, "t1c": 0.93}, {})
    assert list(image_warnings(study, aligned, brain, (700, 2000))) == []
    odd = replace(brain, millilitres=2100, agreement={"t1": 1.0, "t2": 0.7}, doubts={"flair": "none"})
    (said,) = image_warnings(study, aligned, odd, (700, 2000))
    assert "FLAIR (series 3): none; it has 2100 ml; expected 700 to 2000 ml; Dice of its mask in T1" in said
    assert "T2 (series 2: 0.70)" in said
    partial = replace(brain, millilitres=600, is_whole=False)
    assert list(image_warnings(study, aligned, partial, (700, 2000))) == []


def test_what_was_noticed_as_a_study_was_read():
    candidates = {
        name: Candidate(source, source, "", Verdict(name, confidence, "why"), fixed=name == "t1")
        for name, source, confidence in (("t1", "series 3", 1), ("t1c", "series 7", 0.68), ("t2", "series 4", 0.6))
    }
    study = Study({}, candidates, remarks=[Remark(("t1", "t2"), "odd."), Remark((), "of all.")])
    unsure, *others = study_warnings(study)
    assert unsure.startswith("Recognised with little confidence: T1c (series 7: 0.68, why), T2 (series 4: 0.60, why).")
    assert unsure.endswith("name the file after it, e.g. x_t1c.nii.gz.")
    assert others == ["T1 (series 3), T2 (series 4): odd.", "of all."]
    candidates["t1"].series = "of DICOM"
    first, *_ = study_warnings(study)
    assert first.endswith("--series t1c=none, or the SeriesNumber of the right one.")
    for candidate in candidates.values():
        candidate.fixed = True
    assert [*study_warnings(replace(study, remarks=[]))] == []


def test_nothing_segmented():
    empty = np.zeros((8, 8, 8), np.int16)
    with_t1c = doubts(empty)
    assert len(with_t1c) == 1
    assert "Nothing was segmented" in with_t1c[0]
    without = doubts(empty, used=["t2"])
    assert without[0] == with_t1c[0]
    assert "cannot be ruled out" in without[1]


@pytest.mark.parametrize(
    ("coins", "unsure"), [(28, "enhancing tumour (0.51)."), (40, "tumour core (0.52), enhancing tumour (0.59).")]
)
def test_unsure(coins, unsure):
    # Of 56 voxels of ET: 28 at 0.5 (log 2) and 28 at 0.9 (0.3251), mean 0.5091, or 40 and 16, mean 0.5880. With 8 of
    # NCR at 0.99 (0.0560), TC has 0.4525 or 0.5215; WT, with 152 more, 0.1741 or 0.1939.
    given = probabilities(0.99)
    enhancing = np.argwhere(lesion() == 4)
    for part, value in ((enhancing[:coins], 0.5), (enhancing[coins:], 0.9)):
        given[:, *part.T] = value
    assert (len(enhancing), given.shape) == (56, (3, 20, 18, 16))
    given[:, 0] = 0.5  # far from the lesion
    (said,) = doubts(lesion(), given)
    assert f"unsure of what it segmented as {unsure}" in said


@pytest.mark.parametrize(
    ("voxel", "side"),
    [((0, 8, 8), "left"), ((19, 8, 8), "right"), ((8, 0, 8), "posterior"), ((8, 17, 8), "anterior"),
     ((8, 8, 0), "inferior"), ((8, 8, 15), "superior")],
)  # fmt: skip
def test_lesion_at_the_edge(voxel, side):
    label = lesion()
    label[voxel] = 2
    (said,) = doubts(label)
    assert f"edge of the image ({side})" in said


def test_pieces_are_warned_of_by_their_volume_and_not_by_their_number():
    label = lesion()
    label[2:18:2, 2, 2] = 1  # 216 of 224 voxels in the largest piece
    assert doubts(label) == []
    label[2:18:2, 15, 2] = 1  # of 232
    (said,) = doubts(label)
    assert "in 17 separate pieces, the largest with 93 % of its volume" in said


def probabilities(sure: float) -> np.ndarray:
    """Return probabilities of the three regions of `lesion`, with these certainties inside and outside."""
    return np.where(regions(lesion()), sure, 1 - sure)
