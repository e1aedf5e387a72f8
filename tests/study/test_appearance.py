"""What is made of images that do not show what they are taken for, on a phantom."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from common.cohorts.iseg import ISEG
from common.cohorts.phantom.cohort import PHANTOM
from common.cohorts.phantom.simulation import SPACING, simulate
from common.study.alignment import AlignedStudy
from common.study.appearance import look
from common.study.reading import Study

LPS = np.diag([-SPACING, -SPACING, SPACING, 1.0])


@pytest.fixture(scope="module")
def images() -> dict[str, nib.Nifti1Image]:
    made, _ = simulate(77_080)
    before, after = (made[name] / np.median(made[name][made[name] > 0]) for name in ("t1", "t1c"))
    made["other"] = after - before  # a subtraction
    return {name: nib.Nifti1Image(image.astype(np.float32), LPS) for name, image in made.items()}


def study(images: dict[str, nib.Nifti1Image], **confidences: float | None) -> tuple[Study, AlignedStudy]:
    """A study of images, taken for what their keys say with a confidence."""
    sources = {name: f"series {number}" for number, name in enumerate(images, start=1)}
    known = dict.fromkeys(images, 0.95) | confidences
    read = Study(images, dict.fromkeys(images, "frame"), sources, dict.fromkeys(images, "said: 'x'"), known, [], [])
    return read, AlignedStudy(dict(images), {}, dict.fromkeys(images, 1.0))


def test_right_names_stay_and_nothing_is_said(images):
    del (shown := dict(images))["other"]
    given = study(shown)
    assert look(*given, None, PHANTOM, "t1c") == (*given, None, "t1c", [])


def test_exchanged_sequences_of_sure_headers_are_warned_of_and_stay(images):
    read, aligned = study({"t1": images["t1c"], "t1c": images["t1"], "t2": images["t2"]})
    found, _, _, reference, (warning,) = look(read, aligned, None, PHANTOM, "t1c")
    assert found.sources == read.sources
    assert reference == "t1c"
    assert warning.startswith("T1 (series 1) and T1c (series 2): by what they show, T1 and T1c are exchanged. Do not")


def test_what_headers_leave_open_is_decided_by_what_it_shows(images):
    read, aligned = study({"t1": images["t1c"], "t2": images["t2"]}, t1=0.86)
    found, moved, _, reference, (warning,) = look(read, aligned, None, PHANTOM, "t1")
    assert list(found.images) == list(moved.images) == ["t1c", "t2"]
    assert found.sources == {"t1c": "series 1", "t2": "series 2"}
    assert found.images["t1c"] is images["t1c"]
    assert found.confidences["t1c"] is None
    assert found.reasons["t1c"] == "by what it shows; its header: said: 'x'"
    assert reference == "t1c"
    assert warning == (
        "series 1: its header leaves open whether it is T1 (said: 'x'); it looks like T1c, and is taken for it."
    )
    both, *_ = look(*study({"t1": images["t1c"], "t1c": images["t1"]}, t1=0.8, t1c=0.7), None, PHANTOM, "t1c")
    assert both.sources == {"t1": "series 2", "t1c": "series 1"}


def test_nothing_is_taken_for_a_sequence_that_is_not_wanted(images):
    given = study({"t1": images["t1c"], "t2": images["t2"]}, t1=0.86)
    found, *_, (warning,) = look(*given, None, PHANTOM, "t1", ("t1", "t2", "flair"))
    assert list(found.images) == ["t1", "t2"]
    assert warning.startswith("T1 (series 1): it does not look like T1, but like T1c. Do not trust")


def test_a_subtraction_is_left_out_where_its_header_leaves_it_open_but_not_as_the_reference(images):
    shown = {"t1": images["other"], "t1c": images["t1c"], "t2": images["t2"]}
    found, *_, (warning,) = look(*study(shown, t1=0.6), None, PHANTOM, "t1c")
    assert list(found.images) == ["t1c", "t2"]
    assert "looks like none, and is left out" in warning
    found, *_, (warning,) = look(*study(shown, t1=0.6), None, PHANTOM, "t1")
    assert list(found.images) == ["t1", "t1c", "t2"]
    assert "but like a subtraction, a map or no image of a brain. Do not trust" in warning


def test_nothing_is_said_of_infants(images):
    given = study({"t1": images["t2"], "t2": images["t1"]})
    assert look(*given, None, ISEG, "t1") == (*given, None, "t1", [])
    assert look(*given, None, replace(PHANTOM, skull_stripped=False), "t1") == (*given, None, "t1", [])
