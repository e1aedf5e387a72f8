"""Each modality is augmented independently."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAdjustContrast, RandGaussianNoise, RandSimulateLowResolution

from common.transforms import RandEachModalityd, RandThickSlices

IMAGE = torch.rand(4, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def changed(transform, image=IMAGE, seed=0):
    result = Compose([RandEachModalityd("image", transform)]).set_random_state(seed)({"image": MetaTensor(image)})
    return result["image"].as_tensor()


def test_modalities_are_drawn_one_by_one():
    kinds = {
        tuple((changed(RandGaussianNoise(prob=0.5), seed=n) != IMAGE).flatten(1).any(1).tolist()) for n in range(20)
    }
    assert len(kinds) > 5
    every = changed(RandGaussianNoise(prob=1.0)) - IMAGE
    assert not torch.equal(every[0], every[1])


@pytest.mark.parametrize(
    "transform",
    [RandGaussianNoise(prob=1.0), RandSimulateLowResolution(prob=1.0), RandAdjustContrast(prob=1.0, gamma=(0.7, 1.5))],
    ids=lambda transform: type(transform).__name__,
)
def test_a_missing_modality_stays_missing_and_a_seed_fixes_the_draws(transform):
    image = IMAGE.clone()
    image[2] = float("nan")
    before = image.clone()
    first, again = (changed(transform, image, seed=1) for _ in range(2))
    assert first[2].isnan().all()
    assert torch.isfinite(first[[0, 1, 3]]).all()
    assert not torch.equal(first[0], image[0])
    assert torch.equal(first.nan_to_num(), again.nan_to_num())
    assert torch.equal(torch.nan_to_num(image), torch.nan_to_num(before))  # the item itself is not changed


def test_thick_slices_are_means_along_one_axis():
    image = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(1))
    thick = RandThickSlices(prob=1.0, thickness=(3.0, 3.0)).set_random_state(0)
    axes = set()
    for _ in range(20):
        result = thick(image)
        assert result.shape == image.shape
        (axis,) = [
            a
            for a in range(3)
            if torch.allclose(result.movedim(1 + a, -1)[..., 1], image.movedim(1 + a, -1)[..., :3].mean(-1))
        ]
        axes.add(axis)
    assert axes == {0, 1, 2}
    assert torch.equal(RandThickSlices(prob=0.0)(image), image)
    assert float(thick(image * 0 + 2).std()) == 0
    with pytest.raises(ValueError, match="1 or more"):
        RandThickSlices(thickness=(0.5, 2))


def test_the_number_of_thick_slices_is_rounded():
    """12 voxels at 1.6 are 7.5 slices, so 8: no more columns of what becomes of each voxel are independent."""
    thick = RandThickSlices(prob=1.0, thickness=(1.6, 1.6)).set_random_state(0)
    image = torch.eye(12)[None, ..., None].expand(1, 12, 12, 12)  # constant along the third axis
    ranks = {int(torch.linalg.matrix_rank(thick(image)[0, ..., 0])) for _ in range(10)}
    assert ranks == {8, 12}
