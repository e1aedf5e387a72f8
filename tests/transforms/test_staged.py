"""Crops of voxels that get finer in stages."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Identityd, RandAffined, ScaleIntensityRanged

from common.transforms import GrowingCrops

SIZE = 48
RAMP = {"image": MetaTensor(torch.arange(float(SIZE))[None, :, None, None].expand(1, SIZE, SIZE, SIZE).clone())}
TURN = RandAffined(
    ["image", "label"], prob=1.0, rotate_range=[(0.0, 0.0), (0.0, 0.0), (0.7, 0.7)], mode=["bilinear", "nearest"],
    padding_mode="border",
)  # fmt: skip


def label() -> MetaTensor:
    """One voxel of each of two classes in the middle, far apart."""
    classes = torch.zeros(1, SIZE, SIZE, SIZE)
    classes[0, 22, 24, 24], classes[0, 26, 24, 24] = 1, 2
    return MetaTensor(classes)


def growing(item: dict, **changes) -> GrowingCrops:
    keys = ["image", "label"]
    stages = {
        "spacings": (2.0, 1.0, 1.0),
        "around": ((12, 12, 12), (16, 20, 16), (24, 24, 24)),
        "crops": ((8, 8, 6), (8, 12, 8), (12, 12, 12)),
        "turns": (TURN, TURN, Identityd(keys)),
        "from_epoch": (0, 2, 3),
    }
    others = {"load": [], "sampling": "average", "box": Identityd(keys), "classes": Identityd(keys), "vary": []}
    crops = GrowingCrops([item], **{**stages, **others, "ratios": (0, 1, 1), **changes})
    crops.transform.set_random_state(seed=0)
    return crops


def test_each_stage_draws_crops_of_its_size_and_voxels():
    crops = growing({**RAMP, "label": label()})
    for crops.epoch, spacing, size in ((0, 2, (8, 8, 6)), (1, 2, (8, 8, 6)), (2, 1, (8, 12, 8)), (5, 1, (12, 12, 12))):
        (item,) = crops[0]
        assert tuple(item["image"].shape[1:]) == tuple(item["label"].shape[1:]) == size
        assert item["image"].pixdim.tolist() == pytest.approx([spacing] * 3)


def slopes(crops: GrowingCrops) -> torch.Tensor:
    """Return how much a crop of a ramp rises from voxel to voxel, along the second axis, after a turn by 0.7."""
    (item,) = crops[0]
    return item["image"].as_tensor()[0].diff(dim=1)


@pytest.mark.parametrize("epoch", [0, 2])
def test_corners_of_turned_crops_are_of_the_image_and_no_repeated_border(epoch):
    crops = growing({**RAMP, "label": label()})
    crops.epoch = epoch
    found = slopes(crops)
    torch.testing.assert_close(found, torch.full_like(found, found[4, 4, 3].item()), rtol=1e-3, atol=1e-3)
    assert found.abs().min() > 0.5
    whole = growing({**RAMP, "label": label()}, crops=((12, 12, 12), (16, 20, 16), (24, 24, 24)))
    whole.epoch = epoch
    assert slopes(whole).abs().min() < 0.1  # as if the crop were cut first


def test_crops_lie_around_a_voxel_of_a_class_as_often_as_its_ratio_says():
    """At the centre, index 6 of twelve voxels: class 1 three times as often as class 2, the background never."""
    crops, centres = growing({**RAMP, "label": label()}, ratios=(0, 3, 1)), []
    crops.epoch = 3
    for _ in range(100):
        centres.append(int(crops[0][0]["label"][0, 6, 6, 6]))
    assert set(centres) == {1, 2}
    assert centres.count(1) == pytest.approx(75, abs=12)


@pytest.mark.parametrize(("sampling", "seen"), [("points", 0.0), ("average", 1.0)])
def test_in_a_coarse_stage_one_bright_voxel_between_the_points_is_averaged_or_lost(sampling, seen):
    image = MetaTensor(torch.zeros(1, SIZE, SIZE, SIZE))
    image[0, 23, 23, 23] = 8
    crops = growing({"image": image, "label": label()}, sampling=sampling, turns=[Identityd("image")] * 3)
    assert crops[0][0]["image"].sum().item() == pytest.approx(seen)
    crops.epoch = 2
    assert crops[0][0]["image"].sum().item() == pytest.approx(8)


def test_an_image_smaller_than_the_crop_is_padded_and_all_later_steps_are_taken():
    small = {
        key: MetaTensor(image.as_tensor()[:, 20:28, 20:28, 20:28]) for key, image in (RAMP | {"label": label()}).items()
    }
    brighter = ScaleIntensityRanged("image", 0, 1, 100, 101)
    crops = growing(small, vary=[brighter], turns=[Identityd("image")] * 3)
    crops.epoch = 3
    (item,) = crops[0]
    assert item["image"].shape == (1, 12, 12, 12)
    assert sorted({*item["image"].unique().tolist()}) == [100, *range(120, 128)]


def test_stages_that_have_no_crop_are_refused():
    with pytest.raises(ValueError, match="zip"):
        growing({**RAMP, "label": label()}, crops=((8, 8, 6), (8, 12, 8)))
