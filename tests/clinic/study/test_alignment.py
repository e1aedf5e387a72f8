import sys
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from phantom_case import LPS
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from mmb.clinic.head.alignment import AlignedStudy, align
from mmb.clinic.head.grid import Grid, isotropic_grid, not_air, resample
from mmb.clinic.head.placement import Fit, compare_places
from mmb.clinic.head.registration import Registration, normalised_mutual_information, register
from mmb.errors import StudyError


def test_volumes_of_one_frame_are_resampled_onto_the_reference(phantom_volumes):
    slab = nib.Nifti1Image(np.asarray(phantom_volumes["t2"].dataobj)[:, :, :26], LPS)
    made = align({"t1c": phantom_volumes["t1c"], "t2": slab}, {"t1c": "a", "t2": "a"}, "t1c")
    assert not made.registered
    assert made.images["t1c"].shape == made.images["t2"].shape == (240, 240, 156)
    assert np.array_equal(made.images["t1c"].affine, made.images["t2"].affine)
    brain = np.asarray(phantom_volumes["t1c"].dataobj) > 0
    moved = np.asarray(made.images["t2"].dataobj)
    assert not moved[:, :, 80:].any()
    centre = tuple(np.argwhere(brain[:, :, :26])[1000])
    at = apply_affine(np.linalg.inv(made.images["t2"].affine) @ LPS, centre).round().astype(int)
    assert moved[tuple(at)] == pytest.approx(np.asarray(slab.dataobj)[centre], rel=1e-4)


@pytest.mark.slow  # registers two volumes; the tests below are told the transform, or elastix's answer
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
    assert np.degrees(Rotation.from_matrix(found.transform[:3, :3] @ turn.T).magnitude()) < 1
    assert found.quality > 1.1
    still = align({"t1c": phantom_volumes["t1c"], "t2": phantom_volumes["t2"]}, {"t1c": "a", "t2": "a"}, "t1c")
    one, two = (np.asarray(each.images["t2"].dataobj) for each in (made, still))
    assert np.corrcoef(one[two > 0], two[two > 0])[0, 1] > 0.97


def textured(shape=(30, 34, 26), spacing=4.0) -> nib.Nifti1Image:
    """Return a volume of smooth noise within an ellipsoid without any symmetry."""
    noise = gaussian_filter(np.random.default_rng(3).standard_normal(shape), 1.5)
    places = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    inside = ((places / np.array([12, 14, 10])) ** 2).sum(axis=-1) < 1
    voxels = np.where(inside, 500 + 300 * noise / noise.std(), 0).clip(min=0)
    return nib.Nifti1Image(voxels.astype(np.float32), np.diag([-spacing, -spacing, spacing, 1]))


def overlap(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """Return the correlation of two volumes where both are above 0, and the Dice of where they are."""
    both = (one > 0) & (two > 0)
    return np.corrcoef(one[both], two[both])[0, 1], 2 * both.sum() / ((one > 0).sum() + (two > 0).sum())


MOVE = from_matvec(Rotation.from_euler("xyz", (5, -8, 20), degrees=True).as_matrix(), [30, -25, 8])


@pytest.fixture
def moved_flair(monkeypatch) -> tuple[AlignedStudy, list[tuple]]:
    """A T1c, and T2 and FLAIR in a frame of their own in which the head lies elsewhere, and what was registered."""
    asked = []

    def know(fixed: nib.Nifti1Image, moving: nib.Nifti1Image, name: str) -> Registration:
        asked.append((fixed.affine, moving.affine, name))
        return Registration(MOVE, 1.2, "known")

    monkeypatch.setattr("mmb.clinic.head.alignment.register", know)
    still = textured()
    thick = nib.Nifti1Image(still.dataobj[:, :, ::2], MOVE @ still.affine @ np.diag([1, 1, 2, 1]))
    images = {"t1c": still, "t2": thick, "flair": nib.Nifti1Image(still.dataobj, MOVE @ still.affine)}
    return align(images, {"t1c": "a", "t2": "b", "flair": "b"}, "t1c", 4.0), asked


def test_a_volume_of_another_frame_is_put_where_the_registration_finds_it(moved_flair):
    made, asked = moved_flair
    ((fixed, moving, name),) = asked  # once for all volumes of the frame, by the finest one
    np.testing.assert_allclose(moving, MOVE @ textured().affine)
    assert (name, made.misplaced, made.failed) == ("T2 and FLAIR to T1c", {}, {})
    assert {key: match.text for key, match in made.registered.items()} == {"t2": "known", "flair": "known"}
    here = {key: np.asarray(image.dataobj) for key, image in made.images.items()}
    np.testing.assert_allclose(here["flair"], here["t1c"], atol=0.01)
    correlation, dice = overlap(here["t2"], here["t1c"])
    assert correlation > 0.8
    assert dice > 0.9
    np.testing.assert_allclose(made.images["flair"].affine, fixed)


def test_seen_from_another_volume_it_lies_where_its_own_header_puts_it(moved_flair):
    """The others follow it there."""
    made, _ = moved_flair
    own = MOVE @ textured().affine
    other = made.seen_from("flair", own)
    for name in ("flair", "t1c"):
        np.testing.assert_allclose(apply_affine(other.placed[name].affine, [3, 4, 5]), apply_affine(own, [3, 4, 5]))
        there = resample(other.images[name], Grid(textured().shape, own))
        assert overlap(there, np.asarray(textured().dataobj))[0] > 0.95


def with_elastix(monkeypatch, angles: tuple[float, float, float], shift: np.ndarray, centre: np.ndarray) -> list:
    """Give elastix's answer, parameters of ITK's Euler3DTransform in LPS; return the volumes that it is given."""
    given = []

    def answer(fixed, moving, **_):
        given.extend((fixed, moving))
        parameters = [*np.radians(angles), *shift]
        values = {"TransformParameters": list(map(str, parameters)), "CenterOfRotationPoint": list(map(str, centre))}
        return None, SimpleNamespace(GetParameterMap=lambda _: values)

    class Volume(dict):
        def __getattr__(self, name):
            return lambda value: self.update({name: value})

    itk, settings = ModuleType("itk"), SimpleNamespace(AddParameterMap=lambda _: None)
    itk.ParameterObject = SimpleNamespace(New=lambda: settings, GetDefaultParameterMap=lambda *_: {})
    itk.elastix_registration_method = answer
    itk.image_from_array = lambda array: Volume(array=array)
    itk.matrix_from_array = np.asarray
    threads = [f"{verb}Global{which}NumberOfThreads" for verb in ("Get", "Set") for which in ("Maximum", "Default")]
    itk.MultiThreaderBase = SimpleNamespace(**dict.fromkeys(threads, lambda *_: 1))
    monkeypatch.setitem(sys.modules, "itk", itk)
    return given


SIDES = np.diag([-1.0, -1, 1, 1])
"""From mm in RAS to LPS, and back."""


def euler(angles: tuple[float, float, float], shift: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return ITK's Euler3DTransform, Rz Rx Ry (p - c) + c + t, for mm in RAS."""
    (ax, ay, az), one = np.radians(angles), np.eye(3)
    x, y, z = one.copy(), one.copy(), one.copy()
    x[1:, 1:] = [[np.cos(ax), -np.sin(ax)], [np.sin(ax), np.cos(ax)]]
    y[::2, ::2] = [[np.cos(ay), np.sin(ay)], [-np.sin(ay), np.cos(ay)]]
    z[:2, :2] = [[np.cos(az), -np.sin(az)], [np.sin(az), np.cos(az)]]
    turn = z @ x @ y
    return SIDES @ from_matvec(turn, centre + shift - turn @ centre) @ SIDES


@pytest.mark.parametrize("away", [(0, 0, 0), (60, -45, 20)], ids=["by-headers", "by-centres"])
def test_the_answer_of_elastix_becomes_a_transform_of_mm(monkeypatch, away):
    """It starts from the headers or, where the heads hardly overlap, from the shift between their centres."""
    fixed, angles = textured(), (12, -20, 35)
    head = apply_affine(fixed.affine, np.argwhere(not_air(fixed.get_fdata())).mean(axis=0))
    truth = from_matvec(np.eye(3), away) @ euler(angles, np.zeros(3), head * (-1, -1, 1))  # turned about its centre
    moving = nib.Nifti1Image(fixed.dataobj, truth @ fixed.affine)
    start, centre = from_matvec(np.eye(3), away), np.array([-10.0, -20, 5])  # elastix may turn about any point
    left = SIDES @ np.linalg.inv(start) @ truth @ SIDES
    given = with_elastix(monkeypatch, angles, left[:3, 3] - centre + left[:3, :3] @ centre, centre)
    found = register(fixed, moving, "FLAIR to T1c")
    np.testing.assert_allclose(found.transform, truth, atol=1e-6)
    assert found.quality > 1.5
    middle = np.array([-58.0, -66, 50])  # of (30, 34, 26) voxels of 4 mm
    moved = np.linalg.norm(apply_affine(found.transform, middle) - middle)
    angle = np.degrees(Rotation.from_matrix(found.transform[:3, :3]).magnitude())
    assert f"moved by {moved:.1f} mm and turned by {angle:.1f} degrees" in found.text
    still, other = given
    assert still["array"].shape == (52, 68, 60)  # (z, y, x) at 2 mm
    grid = isotropic_grid(moving, 2.0)
    np.testing.assert_allclose(other["array"], resample(moving, grid).T, atol=1e-3)
    affine = SIDES @ np.linalg.inv(start) @ grid.affine
    np.testing.assert_allclose(other["SetOrigin"], affine[:3, 3], atol=1e-6)
    np.testing.assert_allclose(other["SetDirection"] * other["SetSpacing"], affine[:3, :3], atol=1e-6)
    np.testing.assert_allclose(other["SetSpacing"], 2)


def test_a_poor_registration_is_refused_with_its_limits(monkeypatch):
    """Either what is found is no better than 12 mm away, or the heads hardly overlap."""
    fixed = textured()
    with_elastix(monkeypatch, (0, 0, 0), np.zeros(3), np.zeros(3))
    noise = np.random.default_rng(0).uniform(300, 1000, fixed.shape) * (fixed.get_fdata() > 0)
    limits = r"Expected at least 2 times and 70%: the two could not be registered"
    other = nib.Nifti1Image(noise.astype(np.float32), fixed.affine)
    with pytest.raises(ValueError, match=rf"T2 to T1c: .* the value 12 mm away; .* overlap by 100%\. {limits}"):
        register(fixed, other, "T2 to T1c")
    voxels, near = np.asarray(fixed.dataobj), [np.abs(np.arange(size) - (size - 1) / 2) < 5 for size in fixed.shape]
    one, two = (nib.Nifti1Image(voxels * mask, fixed.affine) for mask in (near[0][:, None, None], near[1][:, None]))
    with pytest.raises(ValueError, match=rf", (\d\d|[3-9])\.\d times .*; foregrounds overlap by [3-6]\d%\. {limits}"):
        register(one, two, "T2 to T1c")


@pytest.mark.slow  # imports elastix
def test_what_elastix_gives_up_is_refused():
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    with pytest.raises(StudyError, match=r"T2 to T1c: no place was found where they overlap; the two could not be reg"):
        register(textured(), nib.Nifti1Image(np.arange(1.0, 28).reshape(3, 3, 3), LPS), "T2 to T1c")


def test_mutual_information_is_of_32_bins_from_the_1st_to_the_99th_percentile():
    """Of 64 values, each bin holds two: it determines every other bit of them but the last. Outliers do not count."""
    values = np.repeat(np.arange(64), 100)
    assert normalised_mutual_information(values, values % 2) == pytest.approx(1)
    assert normalised_mutual_information(values, values // 2 % 2) == pytest.approx(1.2)  # (log 32 + log 2) / log 32
    few = np.r_[values, 10**6], np.r_[values // 2 % 2, 0]
    assert normalised_mutual_information(*few) == pytest.approx(1.2, abs=2e-3)


def test_mutual_information_of_independent_and_of_equal_values():
    values = np.repeat(np.arange(4), 4)
    assert normalised_mutual_information(values, np.tile(np.arange(4), 4)) == pytest.approx(1)
    assert normalised_mutual_information(values, values) == pytest.approx(2)
    # H(a) = H(b) = log 2; joint shares 3/8, 1/8, 1/8, 3/8: H(a, b) = 1.2555
    first, second = np.repeat([0, 1], 8), np.array([0] * 6 + [1] * 2 + [0] * 2 + [1] * 6)
    assert normalised_mutual_information(first, second) == pytest.approx(2 * np.log(2) / 1.2554823)


FRAMES = {"t1c": "NIfTI", "flair": "NIfTI"}


def compare(phantom_volumes: dict[str, nib.Nifti1Image], name: str, affine: np.ndarray, flip: bool = False) -> Fit:
    grid = isotropic_grid(phantom_volumes["t1c"], 2.0)
    voxels = np.asarray(phantom_volumes[name].dataobj)
    volume = resample(nib.Nifti1Image(voxels[::-1] if flip else voxels, affine), grid)
    return compare_places(resample(phantom_volumes["t1c"], grid), volume, np.ones(grid.shape, bool), 2.0)


def test_slabs_thinner_than_the_voxels_of_the_comparison_are_compared_in_plane():
    slab = np.asarray(textured(spacing=1.0).dataobj)[:, :, 12:14].repeat(4, axis=0).repeat(4, axis=1)
    right, away = (compare_places(slab, np.roll(slab, by, axis=0), np.ones(slab.shape, bool), 1) for by in (0, 24))
    assert not right.is_misplaced
    assert right.overlap == 1
    assert away.displacement_mm > 12


@pytest.mark.parametrize("name", ["t1", "t2", "flair"])
@pytest.mark.parametrize("flip", [False, True], ids=["right", "mirrored"])
def test_what_lies_right_is_not_doubted_and_what_is_mirrored_is_found(phantom_volumes, name, flip):
    found = compare(phantom_volumes, name, LPS, flip)
    assert (found.is_misplaced, found.is_mirrored) == (False, flip)
    assert found.overlap > 0.9


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_shows_half_a_head_is_not_called_mirrored(phantom_volumes, axis):
    half = {name: np.asarray(image.dataobj).copy() for name, image in phantom_volumes.items()}
    half["flair"][(slice(None),) * axis + (slice(0, half["flair"].shape[axis] // 2),)] = 0
    volumes = {name: nib.Nifti1Image(voxels, phantom_volumes[name].affine) for name, voxels in half.items()}
    assert not compare(volumes, "flair", LPS).is_mirrored


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
    ("overlap", "information", "best", "moved", "original", "mirrored", "off", "flipped"),
    [
        (0.099, 0.1, 0.1, 0.0, 0.1, 0.1, True, False),  # hardly any overlap
        (0.101, 0.1, 0.1, 0.0, 0.1, 0.1, False, False),
        (0.9, 0.1, 0.121, 5.0, 0.1, 0.1, True, False),  # 5 mm away it is better by a fifth
        (0.9, 0.1, 0.119, 5.0, 0.1, 0.1, False, False),
        (0.9, 0.1, 0.2, 4.9, 0.1, 0.1, False, False),
        (0.9, 0.1, 0.2, 0.0, 0.1, 0.121, False, True),  # and mirrored
        (0.9, 0.1, 0.2, 0.0, 0.1, 0.119, False, False),
        (0.9, 0.1, 0.2, 6.0, 0.2, 0.241, False, True),  # then it is not said to be off
        (0.9, 0.1, 0.2, 6.0, 0.2, 0.239, True, False),
        (0.9, 0.1, 0.1, 0.0, 0.04, 0.0519, False, False),  # of small numbers, the difference counts too
        (0.9, 0.1, 0.1, 0.0, 0.04, 0.0521, False, True),
    ],
)
def test_limits_by_hand(overlap, information, best, moved, original, mirrored, off, flipped):
    found = Fit(overlap, information, best, moved, original, mirrored)
    assert (found.is_misplaced, found.is_mirrored) == (off, flipped)


def test_a_header_that_is_off_is_mended_by_registration_and_said(phantom_volumes, monkeypatch):
    move = from_matvec(np.eye(3), (0, 18, 0))
    monkeypatch.setattr("mmb.clinic.head.alignment.register", lambda *_: Registration(move, 1.2, "known"))
    images = {name: phantom_volumes[name] for name in FRAMES}
    right = align(images, FRAMES, "t1c", 2.0)
    assert (right.misplaced, right.registered) == ({}, {})
    made = align(images | {"flair": nib.Nifti1Image(images["flair"].dataobj, move @ LPS)}, FRAMES, "t1c", 2.0)
    assert made.misplaced["flair"].startswith("does not lie over the reference where its header puts it")
    assert list(made.registered) == ["flair"]
    np.testing.assert_allclose(made.images["flair"].dataobj, right.images["flair"].dataobj, atol=0.01)


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
