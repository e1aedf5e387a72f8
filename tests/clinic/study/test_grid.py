import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy.spatial.transform import Rotation

from mmb.clinic.head.grid import (
    Grid,
    box,
    connected_pieces,
    finest,
    in_field_of_view,
    isotropic_grid,
    moved,
    not_air,
    resample,
    resample_label_to,
    volume_of,
)


def oblique(spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Grid:
    """Return a tilted grid around the origin; its first axis points to the back and its last one to the left."""
    turn = Rotation.from_euler("xyz", (12, -7, 20), degrees=True).as_matrix()
    axes = turn @ np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0.0]]) * spacing
    return Grid(shape, from_matvec(axes, -axes @ ((np.array(shape) - 1) / 2)))


def balls(grid: Grid) -> np.ndarray:
    """Return nested balls of 26, 19 and 12 mm around the origin, with the values 2, 1 and 4."""
    distance = np.linalg.norm(apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1)), axis=-1)
    return np.select([distance < 12, distance < 19, distance < 26], [4, 1, 2], 0).astype(np.uint8)


def test_the_grid_is_isotropic_nearest_to_ras_and_covers_the_field_of_view_of_an_oblique_volume():
    own = oblique((0.8, 1.2, 4), (120, 90, 25))
    grid = isotropic_grid(nib.Nifti1Image(np.zeros(own.shape, np.float32), own.affine), 1.0)
    np.testing.assert_allclose(voxel_sizes(grid.affine), 1)
    directions = grid.affine[:3, :3]
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")
    along = np.abs(np.linalg.inv(own.affine[:3, :3]) @ directions) > 1e-9  # in the axes of the volume: one each
    assert (along.sum(axis=0).tolist(), along.sum(axis=1).tolist()) == ([1, 1, 1], [1, 1, 1])
    ends = np.array(np.meshgrid(*[(-0.5, size - 0.5) for size in own.shape])).reshape(3, -1).T
    corners = apply_affine(np.linalg.inv(grid.affine) @ own.affine, ends)
    assert (corners > -0.51 - 0.5).all()
    assert (corners < np.array(grid.shape) + 0.01).all()
    assert sorted(grid.shape) == sorted((96, 108, 100))


def test_a_volume_of_1_mm_keeps_its_voxels_and_only_changes_the_order_of_its_axes():
    voxels = np.random.default_rng(0).uniform(1, 9, (7, 8, 9)).astype(np.float32)
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1]))
    kept = resample(image, isotropic_grid(image, 1.0))
    np.testing.assert_allclose(kept, voxels[::-1, ::-1], rtol=1e-6)
    assert kept.flags.c_contiguous  # PyTorch does not accept flipped views


def test_a_grid_that_would_fill_the_memory_is_refused():
    metres = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.diag([1000.0, 1000, 100, 1]))
    with pytest.raises(ValueError, match=r"of 2e\+03 x 2e\+03 x 200 mm needs 2e\+03 x 2e\+03 x 200 voxels of 1 mm"):
        isotropic_grid(metres, 1.0)
    with pytest.raises(ValueError, match="645 x 645 x 646 voxels of 1 mm, more than the maximum of 268435456"):
        isotropic_grid(nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.diag([645.0, 645, 646, 1])), 1.0)
    head = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.diag([300.0, 300, 300, 1]))
    assert isotropic_grid(head, 1.0).shape == (600, 600, 600)


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
    own = oblique(spacing, tuple(int(60 / size) for size in spacing))
    label = balls(own)
    grid = isotropic_grid(nib.Nifti1Image(label, own.affine), 1.0)
    between = resample_label_to(label, own.affine, grid.affine, grid.shape, (1, 2, 4))
    found = resample_label_to(between, grid.affine, own.affine, own.shape, (1, 2, 4))
    assert found.dtype == label.dtype
    for value in (1, 2, 4):
        one, other = found == value, label == value
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) >= 0.98


def test_what_is_known_on_the_fine_grid_is_not_shifted_on_the_coarse_one():
    own, fine = oblique((1, 1, 5), (70, 70, 14)), Grid((80, 80, 80), from_matvec(np.eye(3), [-39.5] * 3))
    found = resample_label_to(balls(fine), fine.affine, own.affine, own.shape, (1, 2, 4))
    for value in (1, 2, 4):
        centres = apply_affine(own.affine, np.argwhere(found == value))
        np.testing.assert_allclose(centres.mean(axis=0), 0, atol=0.3)
        assert (found == value).sum() * 5 == pytest.approx((balls(fine) == value).sum(), rel=0.05)


def test_small_classes_are_not_lost():
    label = np.zeros((40, 40, 40), np.uint8)
    label[10:30, 10:30, 10:30] = 2
    label[20, 20, 20] = 4  # a millilitre's thousandth, beside the slices' centres
    label[5, 5, 5] = 1
    found = resample_label_to(label, np.eye(4), np.diag([1.0, 1, 6, 1]), (40, 40, 6), (1, 2, 4))
    assert (set(np.unique(found)), found[20, 20, 3]) == ({0, 1, 2, 4}, 4)
    assert found[5, 5, 1] == 1
    assert (found == 4).sum() == (found == 1).sum() == 1


def test_an_empty_label_map_stays_empty_and_one_outside_of_the_grid_is_lost():
    label = np.zeros((10, 10, 10), np.uint8)
    assert not resample_label_to(label, np.eye(4), np.eye(4), (10, 10, 10), (1,)).any()
    label[2, 2, 2] = 1
    assert not resample_label_to(label, np.eye(4), from_matvec(np.eye(3), [50, 0, 0]), (10, 10, 10), (1,)).any()


def test_the_finest_volume_is_the_one_of_the_smallest_largest_edge():
    for sizes in ({"thick": (0.4, 0.4, 5), "finest": (1, 1, 1)}, {"large": (1, 1, 3), "finest": (0.5, 0.5, 3)}):
        empty = np.zeros((2, 2, 2), np.float32)
        assert finest({name: nib.Nifti1Image(empty, np.diag([*size, 1.0])) for name, size in sizes.items()}) == "finest"


def test_air_is_what_has_a_tenth_of_the_99th_percentile_of_what_is_above_0():
    """Of 101 values above 0 the 100th is the 99th percentile, 1000; one of 50,000 and many of 0 do not matter."""
    volume = np.r_[np.full(97, 5.0), 100, 101, 1000, 50000, np.zeros(299)].reshape(4, 10, 10)
    assert volume[not_air(volume)].tolist() == [101, 1000, 50000]
    assert not not_air(np.zeros((2, 2, 2))).any()


def test_a_volume_is_moved_to_where_a_transform_comes_from():
    """The transform leads from mm of the reference to those of the volume; the volume is put on the reference."""
    turn = Rotation.from_euler("z", 90, degrees=True).as_matrix()  # x to y
    transform = from_matvec(turn, [10, 0, 0])
    image = moved(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), from_matvec(np.eye(3), [10, 5, 7])), transform)
    np.testing.assert_allclose(apply_affine(image.affine, [0, 0, 0]), [5, 0, 7], atol=1e-9)  # to (0, 5, 7) + (10, 0, 0)


@pytest.mark.parametrize("turned", [False, True])
def test_the_field_of_view_ends_half_a_voxel_beyond_the_centres(turned):
    """Four voxels of 2 mm from 0 on cover -1 to 7 mm; samples lie at -3 to 9.5 mm in steps of half a millimetre."""
    own, samples = np.diag([2.0, 1, 1, 1]), np.diag([0.5, 1, 1, 1])
    samples[0, 3] = -3
    if turned:  # a grid whose second axis runs along the first one of the volume
        samples = samples[:, [1, 0, 2, 3]]
    seen = in_field_of_view(Grid((4, 1, 1), own), Grid((1, 26, 1) if turned else (26, 1, 1), samples))
    assert np.flatnonzero(seen).tolist() == list(range(4, 21))


def test_a_voxel_has_a_value_where_half_of_its_weight_has_data():
    """Data of 10 in the first two of four voxels of 1 mm, on a grid shifted by 0.25, 0.5 and 0.75 mm."""
    row = nib.Nifti1Image(np.array([10, 10, 0, 0], np.float32).reshape(4, 1, 1), np.eye(4))
    for shift, expected in ((0.25, [10, 10, 0]), (0.5, [10, 10, 0]), (0.75, [10, 0, 0])):
        grid = Grid((3, 1, 1), from_matvec(np.eye(3), [shift, 0, 0]))
        np.testing.assert_allclose(resample(row, grid).ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("degrees", [0, 10])
def test_a_coarser_grid_samples_the_middle_of_its_voxels(degrees):
    """On voxels of 3 mm, values that rise by 1 per mm are those of the voxels' middles; along turned axes, too."""
    axes = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    values = np.indices((24, 24, 4)).sum(axis=0).astype(np.float32) + 1
    grid = Grid((3, 3, 2), from_matvec(axes * [3, 3, 1], [8, 7, 1]))
    middles = apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1)).sum(axis=-1) + 1
    np.testing.assert_allclose(resample(nib.Nifti1Image(values, np.eye(4)), grid), middles, rtol=1e-5)


def test_a_grid_of_one_and_a_half_voxels_takes_two_samples():
    """They lie 0.375 mm before and behind the middle. Of 1, 9, 1, 9, ... at 1.125 and 1.875 mm: the mean of 8 and 2."""
    stripes = nib.Nifti1Image(np.tile(np.array([1, 9], np.float32), 4).reshape(8, 1, 1), np.eye(4))
    found = resample(stripes, Grid((4, 1, 1), np.diag([1.5, 1, 1, 1])))
    np.testing.assert_allclose(found[1:4].ravel(), [5, 6, 5], rtol=1e-5)  # at 1.5, 3 and 4.5 mm


def test_pieces_boxes_and_volumes_by_hand():
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 2, 3] = mask[2, 3, 4] = True  # they share a corner
    mask[4, 5, 6] = True
    numbers, sizes = connected_pieces(mask)
    assert (sizes.tolist(), numbers[1, 2, 3] == numbers[2, 3, 4]) == ([2, 1], True)
    assert box(mask) == (slice(1, 5), slice(2, 6), slice(3, 7))
    assert box(mask, 2) == (slice(0, 7), slice(0, 8), slice(1, 9))
    assert box(np.zeros((6, 7, 8), bool)) == (slice(0, 6), slice(0, 7), slice(0, 8))
    assert volume_of(mask, (1, 2, 3)) == pytest.approx(0.018)
