"""Images whose headers are wrong: moved, turned, mirrored or far away, for the sequences of one phantom."""

import sys

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from phantom_case import LPS
from scipy.spatial.transform import Rotation

from mmb.clinic.study.alignment import align
from mmb.clinic.study.grid import isotropic_grid, not_air, resample
from mmb.clinic.study.placement import Fit, compare_places

FRAMES = {"t1c": "NIfTI", "flair": "NIfTI"}


def compare(phantom_volumes: dict[str, nib.Nifti1Image], name: str, affine: np.ndarray, flip: bool = False) -> Fit:
    grid = isotropic_grid(phantom_volumes["t1c"], 2.0)
    voxels = np.asarray(phantom_volumes[name].dataobj)
    volume = resample(nib.Nifti1Image(voxels[::-1] if flip else voxels, affine), grid)
    return compare_places(resample(phantom_volumes["t1c"], grid), volume, np.ones(grid.shape, bool), 2.0)


@pytest.mark.parametrize("name", ["t1", "t2", "flair"])
@pytest.mark.parametrize("flip", [False, True], ids=["right", "mirrored"])
def test_what_lies_right_is_not_doubted_and_what_is_mirrored_is_found(phantom_volumes, name, flip):
    found = compare(phantom_volumes, name, LPS, flip)
    assert (found.is_misplaced, found.is_mirrored) == (False, flip)
    assert found.overlap > 0.9


@pytest.mark.parametrize(
    ("name", "shift", "angle"), [("t1", (0, 6, 0), 0), ("t2", (12, 0, -13), 0), ("flair", (0, 0, 0), 10)]
)
def test_what_is_moved_or_turned_is_found(phantom_volumes, name, shift, angle):
    middle = apply_affine(LPS, (np.array(phantom_volumes[name].shape) - 1) / 2)
    turn = Rotation.from_euler("z", angle, degrees=True).as_matrix()
    move = from_matvec(turn, middle + np.array(shift) - turn @ middle)
    found = compare(phantom_volumes, name, move @ LPS)
    assert found.is_misplaced
    assert not found.is_mirrored
    brain = apply_affine(LPS, np.argwhere(not_air(np.asarray(phantom_volumes["t1c"].dataobj))))
    truth = np.linalg.norm(apply_affine(move, brain) - brain, axis=1).mean()
    assert found.displacement_mm == pytest.approx(truth, abs=3)


@pytest.mark.parametrize(
    ("overlap", "information", "best", "moved", "mirrored", "off", "flipped"),
    [
        (0.099, 0.1, 0.1, 0.0, 0.1, True, False),  # hardly any overlap
        (0.101, 0.1, 0.1, 0.0, 0.1, False, False),
        (0.9, 0.1, 0.121, 5.0, 0.1, True, False),  # 5 mm away it is better by a fifth
        (0.9, 0.1, 0.119, 5.0, 0.1, False, False),
        (0.9, 0.1, 0.2, 4.9, 0.1, False, False),
        (0.9, 0.1, 0.1, 0.0, 0.121, False, True),  # and mirrored
        (0.9, 0.1, 0.1, 0.0, 0.119, False, False),
        (0.9, 0.1, 0.2, 6.0, 0.241, False, True),  # then it is not said to be off
        (0.9, 0.1, 0.2, 6.0, 0.239, True, False),
    ],
)
def test_limits_by_hand(overlap, information, best, moved, mirrored, off, flipped):
    found = Fit(overlap, information, best, moved, mirrored)
    assert (found.is_misplaced, found.is_mirrored) == (off, flipped)


@pytest.mark.slow
def test_a_header_that_is_off_is_mended_by_registration_and_said(phantom_volumes):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    off = from_matvec(np.eye(3), (0, 18, 0)) @ LPS
    right = align({name: phantom_volumes[name] for name in FRAMES}, FRAMES, "t1c", 2.0)
    assert (right.misplaced, right.registered) == ({}, {})
    images = {"t1c": phantom_volumes["t1c"], "flair": nib.Nifti1Image(phantom_volumes["flair"].dataobj, off)}
    made = align(images, FRAMES, "t1c", 2.0)
    assert made.misplaced["flair"].startswith("does not lie over the reference where its header puts it")
    assert list(made.registered) == ["flair"]
    one, other = (np.asarray(study.images["flair"].dataobj) for study in (made, right))
    assert np.corrcoef(one[other > 0], other[other > 0])[0, 1] > 0.94


def test_without_elastix_it_is_said_and_a_mirror_is_never_turned(phantom_volumes, monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", None)
    off = from_matvec(np.eye(3), (0, 18, 0)) @ LPS
    images = {"t1c": phantom_volumes["t1c"], "flair": nib.Nifti1Image(phantom_volumes["flair"].dataobj, off)}
    made = align(images, FRAMES, "t1c", 2.0)
    assert "about 18 mm away it would fit better" in made.misplaced["flair"]
    assert "it could not be registered" in made.misplaced["flair"]
    flipped = nib.Nifti1Image(np.asarray(phantom_volumes["flair"].dataobj)[::-1], LPS)
    made = align({"t1c": phantom_volumes["t1c"], "flair": flipped}, FRAMES, "t1c", 2.0)
    assert "one of the two seems to be mirrored" in made.misplaced["flair"]
    away = from_matvec(np.eye(3), (0, 400, 0)) @ LPS
    images["flair"] = nib.Nifti1Image(phantom_volumes["flair"].dataobj, away)
    with pytest.raises(ValueError, match=r"FLAIR and T1c do not overlap by their headers \(Dice .* 0.00\)"):
        align(images, FRAMES, "t1c", 2.0)
