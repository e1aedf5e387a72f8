import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation

from clinic.study.alignment import MEAN_BRAIN, AlignedStudy, turn_upright
from clinic.study.grid import Grid, Image, resample
from common.modalities import GLIOMA

TILT = Rotation.from_euler("xyz", (17, -8, 6), degrees=True).as_matrix()


@pytest.fixture(scope="module")
def upright() -> dict[str, Image]:
    """A brain that lies like the mean brain, but has other intensities."""
    mean = nib.load(MEAN_BRAIN)
    volumes = np.moveaxis(np.asarray(mean.dataobj, dtype=np.float32), -1, 0)
    return {name: Image(volume**1.3 * (volume > 20), mean.affine) for name, volume in zip(GLIOMA, volumes, strict=True)}


def study(images: dict[str, Image]) -> AlignedStudy:
    return AlignedStudy(images, {}, dict.fromkeys(images, 1.0))


@pytest.mark.slow  # registers two volumes
def test_a_tilted_study_is_turned_upright_and_nothing_of_it_is_lost(upright):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    affine = upright["t1c"].affine
    grid = Grid((130, 130, 100), from_matvec(2 * np.eye(3), -np.array([129, 129, 99.0])))
    move = from_matvec(TILT, [4.0, -6.0, 9.0])
    tilted = {
        name: Image(resample(upright[name], Grid(grid.shape, move @ grid.affine)), grid.affine)
        for name in ("t1c", "flair")
    }
    made, _ = turn_upright(study(tilted), "t1c", None)
    assert made.upright is not None
    assert made.upright.angle == pytest.approx(np.degrees(Rotation.from_matrix(TILT).magnitude()), abs=1)
    brain = apply_affine(affine, np.argwhere(np.asarray(upright["t1c"].dataobj) > 0))
    apart = np.linalg.norm(
        apply_affine(made.upright.transform, brain) - apply_affine(np.linalg.inv(move), brain), axis=1
    )
    assert apart.max() < 3  # mm
    for name, image in made.images.items():
        assert np.array_equal(image.affine, made.images["t1c"].affine)
        before, after = (np.asarray(one.dataobj) for one in (tilted[name], image))
        assert after.sum() == pytest.approx(before.sum(), rel=0.01)  # of the same voxel size
        assert not any(after.take(end, axis).any() for axis in range(3) for end in (0, -1))


@pytest.mark.slow
def test_what_does_not_look_like_a_brain_is_refused(upright):
    pytest.importorskip("itk.itkElastixRegistrationMethodPython")
    noise = np.random.default_rng(0).uniform(1, 100, upright["t1"].shape).astype(np.float32)
    with pytest.raises(ValueError, match=r"--upright: T1 to the mean brain.*the mean brain could not be registered"):
        turn_upright(study({"t1": Image(noise, upright["t1"].affine)}), "t1", None)


def test_a_reference_that_the_mean_brain_lacks_is_refused(upright):
    with pytest.raises(ValueError, match=r"--upright: the mean brain has T1, T1c, T2, FLAIR, but the reference is PD"):
        turn_upright(study({"pd": upright["t1"]}), "pd", None)
