"""On which series a label map was drawn, and what labels are said to be."""

import nibabel as nib
import numpy as np
import pytest

from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.reading import Study
from mmb.clinic.recognise.record import Assignment, Record
from mmb.errors import StudyError
from mmb.server.datastore import labelled_modality
from mmb.server.errors import private, refusal

GRID = np.diag([1.0, 1, 2, 1])


def study(**frames: str) -> Study:
    """Return a study of volumes on one grid."""
    images = {name: nib.Nifti1Image(np.ones((240, 240, 10), np.float32), GRID) for name in frames}
    used = {name: Record(Candidate(name, name, frame), name, Grade.SURE, "") for name, frame in frames.items()}
    return Study(images, Assignment(used), reference="t1c" if "t1c" in frames else "t1")


def label(affine: np.ndarray = GRID) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.zeros((240, 240, 10), np.uint8), affine)


def test_of_equal_grids_the_one_that_is_shown_was_drawn_on():
    assert labelled_modality(study(t1="a", t1c="b"), label()) == "t1c"
    assert labelled_modality(study(t1="a", flair="a"), label()) == "t1"


def test_a_small_tilt_is_another_grid():
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]  # 3 mm at the far corner
    with pytest.raises(ValueError, match="does not lie on the grid of any image"):
        labelled_modality(study(t1="a"), label(tilt @ GRID))


def test_equal_grids_of_different_frames_are_not_guessed_between():
    one = study(t1="a", flair="b", t1c="c")
    one.images["t1c"] = nib.Nifti1Image(np.ones((240, 240, 20), np.float32), np.eye(4))
    with pytest.raises(ValueError, match="different frames of reference"):
        labelled_modality(one, label())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StudyError.of("/a/Doe", "an empty folder"), "The study: an empty folder"),
        (ValueError("/a/Doe_t1.nii.gz: shape (8, 8)"), "The study, or one of its files, cannot be used."),
        (FileNotFoundError("/a/Doe_t1.nii.gz: no such file"), "The study, or one of its files, cannot be used."),
    ],
)
def test_names_of_files_are_in_no_message(error, expected):
    with pytest.raises(StudyError) as raised, private():
        raise error
    refused = refusal(raised.value)
    assert (refused.status_code, refused.detail) == (400, expected)
