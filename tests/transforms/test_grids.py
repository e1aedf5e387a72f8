"""Grids: crops are located in the cohort's, and the way back is that of MONAI."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    Orientationd,
    RandFlipd,
    RandSpatialCropd,
    Spacingd,
    SpatialCropd,
    SpatialPadd,
)

from common.transforms import LoadSubjectd, ScaleBrainIntensityd, ToFileGridd, crop_at, locate

GRID = [20, 18, 16]  # that of the subjects on disk
CROP = [8, 16, 6]  # the brain's box, 13 x 11 x 11 voxels with its margin, is padded along the second axis
KEYS = ["image", "template", "inside"]


def found(image: torch.Tensor, template: torch.Tensor) -> list[torch.Tensor]:
    """Return the part of the template ``(1, M, X, Y, Z)`` for each crop of a batch."""
    start, flipped = locate(image, list(template.shape[2:]))
    size = list(image.shape[2:])
    return [crop_at(template, size, s, f)[0] for s, f in zip(start.tolist(), flipped.tolist(), strict=True)]


def random_template(*grid: int) -> torch.Tensor:
    return torch.rand(1, 2, *grid, generator=torch.Generator().manual_seed(0))


class Stored:
    """A subject as stored in LPS or RAS, and a template over its whole grid, in RAS and as stored."""

    def __init__(self, item, orientation: str, folder: Path) -> None:
        self.item, self.ras = dict(item), random_template(*GRID)
        self.template = self.ras[0].flip(1, 2) if orientation == "LPS" else self.ras[0]
        if orientation == "RAS":
            self.item["image"] = [str(folder / Path(path).name) for path in item["image"]]
            for source, target in zip(item["image"], self.item["image"], strict=True):
                nib.save(nib.as_closest_canonical(nib.load(source)), target)

    def load(self) -> dict:
        """Load the image with the template and a mask of ones, which becomes 0 where crops are padded."""
        item = LoadSubjectd("brats2020", keys="image")(self.item)
        item["template"] = MetaTensor(self.template, affine=item["image"].affine)
        item["inside"] = MetaTensor(torch.ones(1, *GRID), affine=item["image"].affine)
        return item


@pytest.fixture(params=["LPS", "RAS"])
def stored(request, subject, tmp_path) -> Stored:
    return Stored(subject, request.param, tmp_path)


@pytest.mark.parametrize("corner", [0, 1])
@pytest.mark.parametrize("axes", [(), (1,), (0, 1, 2)])
def test_training_crops_are_located_exactly(stored, axes, corner):
    """This includes brains that reach a corner of the image, where the margin of the foreground is padded."""
    pipeline = Compose(
        [
            Orientationd(KEYS, axcodes="RAS", labels=None),
            ScaleBrainIntensityd("image"),
            CropForegroundd(KEYS, source_key="image", margin=1, start_coord_key=None, end_coord_key=None),
            SpatialPadd(KEYS, spatial_size=CROP),
            RandSpatialCropd(KEYS, roi_size=CROP, random_size=False),
            *[RandFlipd(KEYS, prob=1.0, spatial_axis=axis) for axis in axes],
        ]
    )
    pipeline.set_random_state(seed=0)
    loaded = stored.load()
    loaded["image"][:, 0, 0, 0] = corner
    batch = list_data_collate([pipeline(loaded) for _ in range(4)])
    assert len({tuple(a.flatten().tolist()) for a in batch["image"].affine}) > 1  # crops at several places
    parts = found(batch["image"], stored.ras)
    for template, expected, inside in zip(parts, batch["template"], batch["inside"], strict=True):
        inside = inside.bool().expand_as(expected)
        assert inside.any()
        assert torch.equal(template[inside], expected[inside].as_tensor())


def test_uncropped_image_is_the_whole_grid(stored):
    image = Orientationd(KEYS, axcodes="RAS", labels=None)(stored.load())["image"]
    start, flipped = locate(image[None], GRID)
    assert (start.tolist(), flipped.tolist()) == ([[0, 0, 0]], [[False] * 3])
    assert torch.equal(found(image[None], stored.ras)[0], stored.ras[0])


def test_images_that_are_not_oriented_like_the_grid():
    affine = torch.eye(4, dtype=torch.float64)[[1, 0, 2, 3]]
    meta = {"original_affine": affine, "spatial_shape": np.array([8, 8, 8])}
    image = MetaTensor(torch.zeros(1, 1, 8, 8, 8), affine=affine, meta=meta)
    with pytest.raises(ValueError, match=r"not oriented to RAS; put Orientationd\(axcodes='RAS'\) into its preproc"):
        locate(image, [8, 8, 8])


def uncropped(size: list[int], affine: np.ndarray) -> MetaTensor:
    meta = {"original_affine": torch.tensor(affine), "spatial_shape": np.array(size)}
    return MetaTensor(torch.zeros(1, *size), affine=torch.tensor(affine), meta=meta)


def test_another_grid_is_laid_centre_on_centre():
    """On 10 voxels, a grid of 8 lies on 1 .. 8; 9 on 1 .. 9 (the half rounded up); 13 on -1 .. 11."""
    expected = [[1, 1, -1]]
    image = uncropped([8, 9, 13], np.diag([1.0, 1, 1, 1]))
    assert locate(image[None], [10, 10, 10])[0].tolist() == expected
    assert locate(image.as_tensor()[None], [10, 10, 10])[0].tolist() == expected
    crop = SpatialCropd("image", roi_start=[2, 3, 4], roi_end=[6, 7, 8])({"image": image})["image"]
    assert locate(crop[None], [10, 10, 10])[0].tolist() == [[3, 4, 3]]
    template = random_template(10, 10, 10)
    (plain,) = found(image[None], template)
    turned = Compose([RandFlipd("image", prob=1.0, spatial_axis=axis) for axis in range(3)])({"image": image})["image"]
    start, flipped = locate(turned[None], [10, 10, 10])
    assert (start.tolist(), flipped.tolist()) == ([[8, 9, 11]], [[True] * 3])
    assert torch.equal(found(turned[None], template)[0], plain.flip(1, 2, 3))


@pytest.mark.parametrize("spacing", [0.1, 0.7, 0.9375, 1.1, 3.0])
def test_all_crops_of_an_image_lie_consistently_in_another_grid(spacing):
    """An odd size in an even grid is a tie between two voxels, which floating-point errors must not decide."""
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = [-90.3, 126.7, -72.1]
    image = uncropped([15, 17, 12], affine)
    (origin,) = locate(image.as_tensor()[None], [18, 14, 11])[0].tolist()
    for offset in np.random.default_rng(0).integers(0, 8, (20, 3)).tolist():
        crop = SpatialCropd("image", roi_start=offset, roi_end=[o + 4 for o in offset])({"image": image})["image"]
        assert locate(crop[None], [18, 14, 11])[0].tolist() == [[a + o for a, o in zip(origin, offset, strict=True)]]


def test_beyond_the_grid_its_border_is_repeated():
    template = random_template(6, 6, 6)
    crop = crop_at(template, [5, 4, 9], [-2, 4, -1], [False] * 3)
    expected = np.pad(template[0, :, :3, 4:].numpy(), [(0, 0), (2, 0), (0, 2), (1, 2)], mode="edge")
    np.testing.assert_array_equal(crop[0], expected)
    crop = crop_at(template, [2, 6, 6], [9, 0, 0], [False] * 3)
    assert torch.equal(crop[0], template[0, :, 5:].expand(-1, 2, -1, -1))
    crop = crop_at(template, [2, 6, 6], [-5, 0, 0], [False] * 3)
    assert torch.equal(crop[0], template[0, :, :1].expand(-1, 2, -1, -1))
    partly = crop_at(template, [4, 6, 6], [4, 0, 0], [False] * 3)
    assert torch.equal(crop_at(template, [4, 6, 6], [7, 0, 0], [True, False, False]), partly.flip(2))


TURNED = np.array([[-0.3, 0.95, -0.1], [0.95, 0.3, 0.05], [0.08, -0.08, -0.99]])  # a coronal scan, tilted


def image_of(axes: np.ndarray, spacing: tuple[float, ...], shape: tuple[int, ...], shear: float) -> MetaTensor:
    """Return an image of two sequences, one of which is missing, with axes that are orthogonal if it is not sheared."""
    affine = np.eye(len(shape) + 1)
    affine[:-1, :-1] = np.linalg.qr(axes)[0] * spacing
    affine[0, 1] += shear * affine[1, 1]
    affine[:-1, -1] = 10
    voxels = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    voxels[1] = float("nan")
    meta = {"original_affine": affine, "spatial_shape": np.array(shape), "filename_or_obj": "x.nii.gz"}
    return MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)


@pytest.mark.parametrize(
    ("axes", "spacing", "shape", "shear"),
    [
        (np.diag([-1.0, -1.0, 1.0]), (1.0, 1.0, 1.0), (13, 16, 11), 0),
        (TURNED, (0.5, 3.0, 1.3), (21, 6, 12), 0),
        (np.eye(3)[[2, 0, 1]], (2.0, 2.0, 2.0), (8, 7, 9), 0),
        (np.eye(3), (1.0, 1.0, 1.0), (9, 8, 1), 0),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), (1.5, 0.7), (12, 9), 0),
        (np.diag([-1.0, -1.0, 1.0]), (1.0, 1.0, 1.0), (13, 16, 11), 0.02),
        (TURNED, (0.5, 3.0, 1.3), (21, 6, 12), 0.1),
    ],
)
def test_it_is_that_of_monai(axes, spacing, shape, shear):
    rank = len(shape)
    orientation = [] if rank == 2 else [Orientationd("image", axcodes="RAS", labels=None)]
    preprocessing = Compose([*orientation, Spacingd("image", pixdim=(2.0, 1.7, 2.0)[:rank], mode="bilinear")])
    item = preprocessing({"image": image_of(axes, spacing, shape, shear)})
    item["pred"] = torch.rand(3, *item["image"].shape[1:], generator=torch.Generator().manual_seed(1))
    if rank == 2:
        item["image"].affine = item["image"].affine[:3, :3]
    given = {**item, "pred": MetaTensor(item["pred"])}
    expected = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)(given)["pred"]
    found = ToFileGridd("pred")(item)["pred"]
    assert found.shape == expected.shape == (3, *shape)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.affine.numpy(), expected.affine.numpy())
    assert found.meta["filename_or_obj"] == "x.nii.gz"
    shown = ToFileGridd("image")(item)["image"]
    assert shown[1].isnan().all()
    assert not shown[0].isnan().any()
