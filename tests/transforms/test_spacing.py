"""Another voxel size: what becomes of one bright voxel, of a border, of a missing modality, of a label."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd
from refusals import refused

from common.transforms import ResampleSpacingd, ToFileGridd
from common.transforms.spacing import averaged


def bright(*place: int, shape: tuple[int, ...] = (9, 9, 9), sizes: tuple[float, ...] = (1, 1, 1)) -> MetaTensor:
    """Return an image ``(1, X, Y, Z)`` of zeros and one voxel of 1, with voxels of these mm."""
    image = torch.zeros(1, *shape)
    image[0, *place] = 1
    affine = torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))
    meta = {"original_affine": affine.clone(), "spatial_shape": np.array(shape)}
    return MetaTensor(image, affine=affine, meta=meta)


def product(*lines: list[float]) -> torch.Tensor:
    """Return the product of a line of weights along each axis."""
    return torch.einsum("i,j,k->ijk", *map(torch.tensor, lines))


EVEN, ODD = (4, 4, 4), (5, 5, 5)
"""Of nine voxels of 1 mm: a point of the grid of 2 mm, which has five, and a place between two of its points."""


@pytest.mark.parametrize(
    "transform", [Spacingd("image", (2.0, 2.0, 2.0), mode="bilinear"), ResampleSpacingd("image", (2.0, 2.0, 2.0))]
)
def test_points_take_a_voxel_whole_or_not_at_all(transform):
    """As the papers do, with MONAI's Spacingd: of eight voxels one is seen, with eight times its share."""
    found = transform({"image": bright(*EVEN)})["image"]
    assert found.pixdim.tolist() == [2, 2, 2]
    torch.testing.assert_close(found.as_tensor()[0], product(*[[0.0, 0, 1, 0, 0]] * 3))
    assert transform({"image": bright(*ODD)})["image"].abs().max() == 0
    assert transform({"image": bright(4, 4, 5)})["image"].abs().max() == 0


@pytest.mark.parametrize(
    ("place", "line"), [(EVEN, [0.0, 0, 0.5, 0, 0]), (ODD, [0, 0, 0.25, 0.25, 0]), ((0, 0, 0), [0.75, 0, 0, 0, 0])]
)
def test_an_average_keeps_the_content_of_every_voxel(place, line):
    """Half of it along each axis, since voxels are twice as long; more at the border, whose values continue."""
    found = ResampleSpacingd("image", 2.0, sampling="average")({"image": bright(*place)})["image"]
    torch.testing.assert_close(found.as_tensor()[0], product(line, line, line))
    assert found.affine.diag().tolist() == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("sizes", "pixdim", "lines"),
    [
        ((1, 1, 1), 2.0, [[0, 0.25, 0.5, 0.25, 0]] * 3),
        ((1, 1, 1), 3.0, [[0, 1 / 3, 1 / 3, 1 / 3, 0]] * 3),
        ((1, 1, 1), 4.0, [[1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8]] * 3),
        ((2, 2, 2), 3.0, [[0, 1 / 6, 2 / 3, 1 / 6, 0]] * 3),
        ((1, 2, 3), (3, 3, 3), [[0, 1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 6, 2 / 3, 1 / 6, 0], [0, 0, 1, 0, 0]]),
        ((2, 1, 1), (2, 1, 3), [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0]]),
        ((1, 1, 1), 0.5, [[0.0, 0, 1, 0, 0]] * 3),
    ],
)
def test_weights_of_a_box_by_hand(sizes, pixdim, lines):
    """A box of 1.5 old voxels holds one and a quarter of each neighbour."""
    found = averaged(bright(4, 4, 4, sizes=sizes), pixdim)
    expected = torch.zeros(9, 9, 9)
    expected[2:7, 2:7, 2:7] = product(*lines)
    torch.testing.assert_close(found.as_tensor()[0], expected)
    assert torch.equal(found.affine, bright(4, 4, 4, sizes=sizes).affine)


def test_axes_that_are_turned_are_averaged_by_their_own_voxel_size():
    image = bright(4, 4, 4)
    image.affine = torch.tensor([[0.0, 0, 3, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    found = averaged(image, (3, 3, 3)).as_tensor()[0]
    third = [0, 1 / 3, 1 / 3, 1 / 3, 0]
    torch.testing.assert_close(found[2:7, 2:7, 2:7], product(third, third, [0.0, 0, 1, 0, 0]))


def test_an_even_image_stays_even_up_to_its_border_and_a_ramp_within():
    plane = torch.arange(9.0)[None, :, None, None].expand(1, 9, 9, 9)
    ramp = averaged(MetaTensor(plane.clone()), 3.0)
    torch.testing.assert_close(ramp.as_tensor()[0, 1:-1], plane[0, 1:-1])
    assert ramp[0, 0, 4, 4].item() == pytest.approx(1 / 3)  # of 0, 0 and 1
    torch.testing.assert_close(averaged(MetaTensor(torch.full((1, 9, 9, 9), 7.0)), 3.5).as_tensor(), plane * 0 + 7)


def test_a_missing_modality_stays_missing_and_a_label_is_taken_at_the_points():
    image = torch.cat([bright(*ODD), torch.full((1, 9, 9, 9), float("nan"))])
    label = bright(*EVEN) * 3 + bright(*ODD) * 2
    item = {"image": image, "label": label}
    resample = ResampleSpacingd(["image", "label"], 2.0, ("bilinear", "nearest"), "average")
    found = resample(item)
    torch.testing.assert_close(found["image"][0].as_tensor(), product(*[[0, 0, 0.25, 0.25, 0]] * 3))
    assert found["image"][1].isnan().all()
    torch.testing.assert_close(found["label"][0].as_tensor(), 3 * product(*[[0.0, 0, 1, 0, 0]] * 3))
    assert torch.equal(item["image"].nan_to_num(-1), image.nan_to_num(-1))


def test_both_samplings_are_the_same_on_a_finer_grid_and_another_is_refused():
    noise = MetaTensor(torch.rand(1, 6, 6, 6, generator=torch.Generator().manual_seed(0)))
    points, average = (ResampleSpacingd("image", 0.7, sampling=s)({"image": noise}) for s in ("points", "average"))
    assert torch.equal(points["image"].as_tensor(), average["image"].as_tensor())
    with refused(ValueError, "sampling", "points", "average"):
        ResampleSpacingd("image", 2.0, sampling="mean")


@pytest.mark.parametrize("sampling", ["points", "average"])
def test_on_the_way_back_a_bright_voxel_spreads_linearly(sampling):
    """Of what the network saw of it: 1 at the point itself, half of it beside the point along an axis."""
    item = ResampleSpacingd("image", 2.0, sampling=sampling)({"image": bright(*EVEN)})
    item["pred"] = item["image"].clone()
    found = ToFileGridd("pred")(item)["pred"]
    tent = [0.0, 0, 0, 0.5, 1, 0.5, 0, 0, 0]
    torch.testing.assert_close(found.as_tensor()[0], product(tent, tent, tent) * (1 if sampling == "points" else 1 / 8))
