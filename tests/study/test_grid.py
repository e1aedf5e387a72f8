import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy.spatial.transform import Rotation

from common.cohorts.phantom.simulation import SPACING, simulate
from common.study.grid import Grid, finest, isotropic_grid, register, resample, resample_label_to, to_one_grid

LPS = np.diag([-SPACING, -SPACING, SPACING, 1.0])


@pytest.fixture(scope="module")
def subject() -> dict[str, nib.Nifti1Image]:
    images, _ = simulate(31)
    return {name: nib.Nifti1Image(voxels.astype(np.float32), LPS) for name, voxels in images.items()}


def oblique(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Grid:
    """A grid around the origin, tilted, its first axis to the back and its last one to the left."""
    turn = Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix()
    axes = turn @ np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0.0]]) * spacing
    return Grid(shape, from_matvec(axes, -axes @ ((np.array(shape) - 1) / 2)))


def balls(grid: Grid) -> np.ndarray:
    """Nested balls of 26, 19 and 12 mm around the origin: 2, 1 and 4."""
    centres = apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
    distance = np.linalg.norm(centres, axis=-1)
    return np.select([distance < 12, distance < 19, distance < 26], [4, 1, 2], 0).astype(np.uint8)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_the_grid_is_isotropic_nearest_to_ras_and_covers_the_field_of_view_of_an_oblique_volume():
    own = oblique((0.8, 1.2, 4), (120, 90, 25))
    grid = isotropic_grid(nib.Nifti1Image(np.zeros(own.shape, np.float32), own.affine), 1.0)
    np.testing.assert_allclose(voxel_sizes(grid.affine), 1)
    directions = grid.affine[:3, :3]
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    np.testing.assert_allclose(np.linalg.inv(own.affine[:3, :3]) @ directions, _signed(own, directions), atol=1e-9)
    ends = np.array(np.meshgrid(*[(-0.5, size - 0.5) for size in own.shape])).reshape(3, -1).T
    corners = apply_affine(np.linalg.inv(grid.affine) @ own.affine, ends)
    assert (corners > -0.51 - 0.5).all()
    assert (corners < np.array(grid.shape) + 0.01).all()
    assert sorted(grid.shape) == sorted((96, 108, 100))


def _signed(own: Grid, directions: np.ndarray) -> np.ndarray:
    """The grid's axes in those of the volume: one each, at 1 mm."""
    found = np.linalg.inv(own.affine[:3, :3]) @ directions
    return np.where(np.abs(found) > 1e-6, np.sign(found) / voxel_sizes(own.affine)[:, None], 0)


def test_a_volume_of_1_mm_keeps_its_voxels_and_only_changes_the_order_of_its_axes():
    voxels = np.random.default_rng(0).uniform(1, 9, (7, 8, 9)).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1]))
    np.testing.assert_allclose(resample(image, isotropic_grid(image, 1.0)), voxels[::-1, ::-1], rtol=1e-6)


def test_resampling_leaves_the_background_0_and_the_edge_of_the_brain_sharp():
    image = nib.Nifti1Image(np.zeros((12, 12, 12), np.float32), np.diag([3.0, 3, 3, 1]))
    np.asarray(image.dataobj)[3:9] = 100
    found = resample(image, isotropic_grid(image, 1.0))
    np.testing.assert_allclose(found[found != 0], 100, rtol=1e-6)
    assert np.flatnonzero(found[:, 18, 18]).tolist() == list(range(9, 27))


def test_a_coarser_grid_gets_means_and_not_samples():
    stripes = np.tile(np.array([10, 30], np.float32)[:, None, None], (8, 4, 4))
    found = resample(nib.Nifti1Image(stripes, np.diag([0.5, 1, 1, 1])), Grid((8, 4, 4), np.diag([1.0, 1, 1, 1])))
    np.testing.assert_allclose(found[1:-1], 20, rtol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (0.9, 1.1, 3.0)], ids=["2mm", "3mm"])
def test_a_label_comes_back_to_an_oblique_anisotropic_grid(spacing):
    shape = tuple(int(60 / size) for size in spacing)
    own = oblique(spacing, shape)
    label = balls(own)
    grid = isotropic_grid(nib.Nifti1Image(label, own.affine), 1.0)
    between = resample_label_to(label, own.affine, grid.affine, grid.shape, (1, 2, 4))
    found = resample_label_to(between, grid.affine, own.affine, own.shape, (1, 2, 4))
    assert found.dtype == label.dtype
    for value in (1, 2, 4):
        assert dice(found == value, label == value) >= 0.98


def test_what_is_known_on_the_fine_grid_is_not_shifted_on_the_coarse_one():
    own, fine = oblique((1, 1, 5), (70, 70, 14)), Grid((80, 80, 80), from_matvec(np.eye(3), [-39.5] * 3))
    found = resample_label_to(balls(fine), fine.affine, own.affine, own.shape, (1, 2, 4))
    for value in (1, 2, 4):
        centres = apply_affine(own.affine, np.argwhere(found == value))
        np.testing.assert_allclose(centres.mean(axis=0), 0, atol=0.3)
        volume = (found == value).sum() * 5
        assert volume == pytest.approx((balls(fine) == value).sum(), rel=0.05)


def test_small_classes_are_not_lost():
    label = np.zeros((40, 40, 40), np.uint8)
    label[10:30, 10:30, 10:30] = 2
    label[20, 20, 20] = 4  # a millilitre's thousandth, beside the slices' centres
    label[5, 5, 5] = 1
    thick = np.diag([1.0, 1, 6, 1])
    found = resample_label_to(label, np.eye(4), thick, (40, 40, 6), (1, 2, 4))
    assert set(np.unique(found)) == {0, 1, 2, 4}
    assert found[20, 20, 3] == 4
    assert found[5, 5, 1] == 1
    assert (found == 4).sum() == (found == 1).sum() == 1


def test_an_empty_label_map_stays_empty_and_one_outside_of_the_grid_is_lost():
    label = np.zeros((10, 10, 10), np.uint8)
    assert not resample_label_to(label, np.eye(4), np.eye(4), (10, 10, 10), (1,)).any()
    label[2, 2, 2] = 1
    away = from_matvec(np.eye(3), [50, 0, 0])
    assert not resample_label_to(label, np.eye(4), away, (10, 10, 10), (1,)).any()


def test_volumes_of_one_frame_are_resampled_onto_the_reference_and_coverage_is_said(subject):
    slab = nib.Nifti1Image(np.asarray(subject["t2"].dataobj)[:, :, :26], LPS)
    made = to_one_grid({"t1c": subject["t1c"], "t2": slab}, {"t1c": "a", "t2": "a"}, "t1c")
    assert not made.registered
    assert made.images["t1c"].shape == made.images["t2"].shape == (240, 240, 156)
    assert np.array_equal(made.images["t1c"].affine, made.images["t2"].affine)
    brain = np.asarray(subject["t1c"].dataobj) > 0
    assert made.covered["t1c"] == 1
    assert made.covered["t2"] == pytest.approx(brain[:, :, :26].sum() / brain.sum(), abs=0.02)
    moved = np.asarray(made.images["t2"].dataobj)
    assert not moved[:, :, 80:].any()
    centre = tuple(np.argwhere(brain[:, :, :26])[1000])
    at = apply_affine(np.linalg.inv(made.images["t2"].affine) @ LPS, centre).round().astype(int)
    assert moved[tuple(at)] == pytest.approx(np.asarray(slab.dataobj)[centre], rel=1e-4)


def test_the_finest_volume_is_the_one_of_the_smallest_largest_edge():
    images = {
        "thick": nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.diag([0.4, 0.4, 5, 1])),
        "cubes": nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.diag([1.0, 1, 1, 1])),
    }
    assert finest(images) == "cubes"


def test_a_known_move_is_found_and_the_registered_volume_lies_on_the_reference(subject):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    turn = Rotation.from_euler("xyz", (6, -8, 12), degrees=True).as_matrix()
    middle = apply_affine(LPS, (np.array(subject["t2"].shape) - 1) / 2)
    move = from_matvec(turn, middle + np.array([14, -9, 20]) - turn @ middle)
    other = nib.Nifti1Image(subject["t2"].dataobj, move @ LPS)
    made = to_one_grid({"t1c": subject["t1c"], "t2": other}, {"t1c": "a", "t2": "b"}, "t1c")
    found = made.registered["t2"]
    brain = apply_affine(LPS, np.argwhere(np.asarray(subject["t1c"].dataobj) > 0))
    apart = np.linalg.norm(apply_affine(found.transform, brain) - apply_affine(move, brain), axis=1)
    assert apart.max() < 1  # mm
    turned = Rotation.from_matrix(found.transform[:3, :3] @ turn.T).magnitude()
    assert np.degrees(turned) < 1
    assert found.quality > found.before
    assert found.peak > 2
    assert found.overlap > 0.95
    assert "t2 to t1c" in found.text
    still = to_one_grid({"t1c": subject["t1c"], "t2": subject["t2"]}, {"t1c": "a", "t2": "a"}, "t1c")
    one, two = (np.asarray(each.images["t2"].dataobj) for each in (made, still))
    assert np.corrcoef(one[two > 0], two[two > 0])[0, 1] > 0.97


def test_an_impossible_pair_is_refused(subject):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    brain = np.asarray(subject["t1c"].dataobj) > 0
    noise = np.random.default_rng(0).uniform(1, 1000, brain.shape).astype(np.float32) * brain
    grid = isotropic_grid(subject["t1c"], 3.0)
    fixed = nib.Nifti1Image(resample(subject["t1c"], grid), grid.affine)
    with pytest.raises(ValueError, match=r"t2 to t1c: .* could not be laid over each other"):
        register(fixed, nib.Nifti1Image(noise, LPS), "t2 to t1c")
