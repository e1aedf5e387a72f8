"""What happens to images that do not show what they are taken for, on a phantom."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantom_case import LPS

from clinic.study.alignment import AlignedStudy
from clinic.study.appearance import contradiction_warnings, reassign_by_image
from clinic.study.looking import judge_images
from clinic.study.quality import study_warnings
from clinic.study.reading import Remark, Study
from common.cohorts.cohort import Cohort
from common.cohorts.iseg import ISEG
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM


def simulated(seed: int) -> dict[str, nib.Nifti1Image]:
    made, _ = simulate(seed)
    before, after = (made[name] / np.median(made[name][made[name] > 0]) for name in ("t1", "t1c"))
    made["other"] = after - before  # a subtraction
    return {name: nib.Nifti1Image(image.astype(np.float32), LPS) for name, image in made.items()}


@pytest.fixture(scope="module")
def images() -> dict[str, nib.Nifti1Image]:
    return simulated(77_080)


def study(images: dict[str, nib.Nifti1Image], **confidences: float | None) -> Study:
    """Return a study of images, each taken for what its key says with a confidence."""
    sources = {name: f"series {number}" for number, name in enumerate(images, start=1)}
    known = dict.fromkeys(images, 0.95) | confidences
    return Study(images, dict.fromkeys(images, "frame"), sources, dict.fromkeys(images, "words: 'x'"), known, [], [])


def shown(read: Study, cohort: Cohort = PHANTOM) -> dict:
    return judge_images(AlignedStudy(read.images, {}, {}), None, cohort)


def reassigned(read: Study, modalities: tuple[str, ...] = PHANTOM.modalities, required: tuple[str, ...] = ()) -> Study:
    return reassign_by_image(read, shown(read), PHANTOM, modalities, required)[0]


def test_right_names_stay_and_nothing_is_said(images):
    del (right := dict(images))["other"]
    read = study(right)
    assert reassign_by_image(read, shown(read), PHANTOM, PHANTOM.modalities, ()) == (read, {})
    assert [*contradiction_warnings(read, shown(read))] == []


def test_what_a_header_leaves_open_and_the_image_shows_is_open_no_more(images):
    read = study({"t1c": images["t1c"], "t2": images["t2"]}, t1c=0.76, t2=0.6)
    assert "Recognised with little confidence" in next(study_warnings(read))
    found, names = reassign_by_image(read, shown(read), PHANTOM, PHANTOM.modalities, ())
    assert (names, found.confidences) == ({}, {"t1c": None, "t2": None})
    assert found.reasons["t1c"] == "by what it shows; its header: words: 'x'"
    assert [*study_warnings(found)] == []


def test_exchanged_sequences_of_sure_headers_are_warned_of_and_stay(images):
    read = study({"t1": images["t1c"], "t1c": images["t1"], "t2": images["t2"]})
    assert reassigned(read) == read
    (warning,) = contradiction_warnings(read, shown(read))
    assert warning.startswith("T1 (series 1) and T1c (series 2): judging by their content, T1 and T1c are exchanged.")


def test_what_headers_leave_open_is_decided_by_what_it_shows(images):
    read = replace(study({"t1": images["t1c"], "t2": images["t2"]}, t1=0.7), remarks=[Remark(("t1", "t2"), "odd.")])
    found, names = reassign_by_image(read, shown(read), PHANTOM, PHANTOM.modalities, ())
    assert names == {"t1": "t1c", "t2": "t2"}
    assert list(found.images) == ["t1c", "t2"]
    assert found.sources == {"t1c": "series 1", "t2": "series 2"}
    assert found.images["t1c"] is images["t1c"]
    assert found.confidences["t1c"] is None
    assert found.reasons["t1c"] == "by what it shows; its header: words: 'x'"
    assert [*study_warnings(found)] == [  # no longer of low confidence, and no T1
        "series 1: its header leaves open whether it is T1 (words: 'x'); it looks like T1c, and is taken for it.",
        "T1c (series 1), T2 (series 2): odd.",
    ]
    both = reassigned(study({"t1": images["t1c"], "t1c": images["t1"]}, t1=0.8, t1c=0.7))
    assert both.sources == {"t1": "series 2", "t1c": "series 1"}


def test_nothing_is_taken_for_a_sequence_that_is_not_wanted(images):
    read = study({"t1": images["t1c"], "t2": images["t2"]}, t1=0.86)
    assert reassigned(read, ("t1", "t2", "flair")) == read
    (warning,) = contradiction_warnings(read, shown(read))
    assert warning.startswith("T1 (series 1): it does not look like T1, but like T1c. Do not use")


def test_a_subtraction_is_left_out_where_its_header_leaves_it_open_but_not_if_it_is_asked_for(images):
    read = study({"t1": images["other"], "t1c": images["t1c"], "t2": images["t2"]}, t1=0.6)
    found = reassigned(read)
    assert list(found.images) == ["t1c", "t2"]
    assert "looks like none, and is left out" in found.remarks[0].text
    assert reassigned(read, required=("t1",)) == read
    (warning,) = contradiction_warnings(read, shown(read))
    assert "it may be a subtraction, a map or no image of a brain. Do not use" in warning


def test_what_is_alone_is_not_left_out(images):
    read = study({"t1": images["other"]}, t1=0.6)
    assert list(reassigned(read).images) == ["t1"]


def test_nothing_is_said_of_infants(images):
    read = study({"t1": images["t2"], "t2": images["t1"]})
    assert shown(read, ISEG) == shown(read, replace(PHANTOM, skull_stripped=False)) == {}
