"""The way back to the files' grid is that of MONAI's inversion."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, Spacingd

from common.transforms import ToFileGridd

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
