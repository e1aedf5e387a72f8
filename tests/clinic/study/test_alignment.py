import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from phantom_case import LPS
from scipy.spatial.transform import Rotation

from mmb.clinic.study.alignment import _compared, align
from mmb.clinic.study.grid import isotropic_grid, resample
from mmb.clinic.study.registration import normalised_mutual_information, register


def test_volumes_of_one_frame_are_resampled_onto_the_reference_and_coverage_is_said(phantom_volumes):
    slab = nib.Nifti1Image(np.asarray(phantom_volumes["t2"].dataobj)[:, :, :26], LPS)
    made = align({"t1c": phantom_volumes["t1c"], "t2": slab}, {"t1c": "a", "t2": "a"}, "t1c")
    assert not made.registered
    assert made.images["t1c"].shape == made.images["t2"].shape == (240, 240, 156)
    assert np.array_equal(made.images["t1c"].affine, made.images["t2"].affine)
    brain = np.asarray(phantom_volumes["t1c"].dataobj) > 0
    assert made.covered["t1c"] == 1
    assert made.covered["t2"] == pytest.approx(brain[:, :, :26].sum() / brain.sum(), abs=0.02)
    moved = np.asarray(made.images["t2"].dataobj)
    assert not moved[:, :, 80:].any()
    centre = tuple(np.argwhere(brain[:, :, :26])[1000])
    at = apply_affine(np.linalg.inv(made.images["t2"].affine) @ LPS, centre).round().astype(int)
    assert moved[tuple(at)] == pytest.approx(np.asarray(slab.dataobj)[centre], rel=1e-4)


@pytest.mark.slow  # registers two volumes; `test_predict` registers one
def test_a_known_move_is_found_and_the_registered_volume_lies_on_the_reference(phantom_volumes):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    turn = Rotation.from_euler("xyz", (6, -8, 12), degrees=True).as_matrix()
    middle = apply_affine(LPS, (np.array(phantom_volumes["t2"].shape) - 1) / 2)
    move = from_matvec(turn, middle + np.array([14, -9, 20]) - turn @ middle)
    other = nib.Nifti1Image(phantom_volumes["t2"].dataobj, move @ LPS)
    made = align({"t1c": phantom_volumes["t1c"], "t2": other}, {"t1c": "a", "t2": "b"}, "t1c")
    found = made.registered["t2"]
    brain = apply_affine(LPS, np.argwhere(np.asarray(phantom_volumes["t1c"].dataobj) > 0))
    apart = np.linalg.norm(apply_affine(found.transform, brain) - apply_affine(move, brain), axis=1)
    assert apart.max() < 1  # mm
    turned = Rotation.from_matrix(found.transform[:3, :3] @ turn.T).magnitude()
    assert np.degrees(turned) < 1
    assert found.quality > 1.1
    still = align({"t1c": phantom_volumes["t1c"], "t2": phantom_volumes["t2"]}, {"t1c": "a", "t2": "a"}, "t1c")
    one, two = (np.asarray(each.images["t2"].dataobj) for each in (made, still))
    assert np.corrcoef(one[two > 0], two[two > 0])[0, 1] > 0.97


@pytest.mark.slow
def test_an_impossible_pair_is_refused(phantom_volumes):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    brain = np.asarray(phantom_volumes["t1c"].dataobj) > 0
    noise = np.random.default_rng(0).uniform(1, 1000, brain.shape).astype(np.float32) * brain
    grid = isotropic_grid(phantom_volumes["t1c"], 3.0)
    fixed = nib.Nifti1Image(resample(phantom_volumes["t1c"], grid), grid.affine)
    with pytest.raises(ValueError, match=r"t2 to t1c: .* could not be registered"):
        register(fixed, nib.Nifti1Image(noise, LPS), "t2 to t1c")


def test_mutual_information_of_independent_and_of_equal_values():
    values = np.repeat(np.arange(4), 4)
    assert normalised_mutual_information(values, np.tile(np.arange(4), 4)) == pytest.approx(1)
    assert normalised_mutual_information(values, values) == pytest.approx(2)
    # H(a) = H(b) = log 2; joint shares 3/8, 1/8, 1/8, 3/8: H(a, b) = 1.2555
    first, second = np.repeat([0, 1], 8), np.array([0] * 6 + [1] * 2 + [0] * 2 + [1] * 6)
    assert normalised_mutual_information(first, second) == pytest.approx(2 * np.log(2) / 1.2554823)


@pytest.mark.parametrize(("more", "less"), [(0.5, 0.1), (0.0004, 0.0001), (0.00000021, 0.0000001)])
def test_what_is_compared_is_not_said_to_be_the_same(more, less):
    said = _compared(more, less).split()
    assert said[-1] != said[-4]
