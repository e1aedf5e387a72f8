"""Larger voxels are means over their extent, on Spacingd's grid."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

from common.modalities import IGNORED
from common.transforms import FractionsToRegionsd, LabelsToFractionsd, MeanSpacingd
from common.transforms.spacing import box


@pytest.mark.parametrize(
    ("width", "weights"),
    [(0.5, [1]), (1, [1]), (2, [0.25, 0.5, 0.25]), (3, [1 / 3] * 3), (4, [0.125, 0.25, 0.25, 0.25, 0.125])],
)
def test_weights_of_a_mean(width, weights):
    assert box(width).tolist() == pytest.approx(weights)


def test_means_lie_on_the_grid_of_spacingd():
    image = torch.rand(2, 9, 9, 7, generator=torch.Generator().manual_seed(0))
    image[1] = float("nan")
    item = {"image": MetaTensor(image, affine=torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0])))}
    mean = MeanSpacingd("image", (2.0, 2.0, 2.0))(item)["image"]
    sampled = Spacingd("image", (2.0, 2.0, 2.0))(item)["image"]
    assert mean.shape == sampled.shape == (2, 5, 5, 7)
    assert torch.allclose(mean.affine, sampled.affine)
    assert mean[1].isnan().all()
    there = image[0, 1:4, 1:4, 3]  # around the voxel (2, 2, 3), which is (1, 1, 3) of the new grid
    weights = torch.outer(box(2), box(2))
    assert float(mean[0, 1, 1, 3]) == pytest.approx(float((there * weights).sum()), abs=1e-6)


def test_shares_of_regions():
    """Of a voxel of 2 mm, the classes' shares follow from the small voxels within it, halves of which lie outside."""
    label = torch.zeros(1, 9, 9, 9, dtype=torch.uint8)
    label[0, 5:] = 2  # ED
    label[0, 5:, 5:] = 4  # ET
    item = {"label": MetaTensor(label, affine=torch.eye(4))}
    for transform in (LabelsToFractionsd("label", "brats2020"), MeanSpacingd("label", (2.0, 2.0, 2.0))):
        item = transform(item)
    assert item["label"][:, 2, 0, 2].tolist() == [0.75, 0, 0.25, 0]  # voxels 3 to 5, a quarter of which is ED
    regions = FractionsToRegionsd("label", "brats2020")(item)["label"]
    assert regions[:, 2, 0, 2].tolist() == [0.25, 0, 0]
    assert regions[:, 2, 2, 2].tolist() == pytest.approx([0.25, 0.0625, 0.0625])
    assert regions[:, 4, 4, 2].tolist() == [1, 1, 1]
    padded = FractionsToRegionsd("label", "brats2020")({"label": MetaTensor(torch.zeros(4, 2, 2, 2))})["label"]
    assert not padded.any()
    label[0, 0] = IGNORED
    ignored = LabelsToFractionsd("label", "brats2020")({"label": MetaTensor(label, affine=torch.eye(4))})
    ignored = FractionsToRegionsd("label", "brats2020")(MeanSpacingd("label", (2.0, 2.0, 2.0))(ignored))["label"]
    assert (ignored[:, 0] == IGNORED).all()
    assert (ignored[:, 1] != IGNORED).all()
