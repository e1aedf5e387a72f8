"""Sliding windows over the foreground: what lies outside of it and what is missing has no influence."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import list_data_collate
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.transforms import Compose, Orientationd, SpatialCropd
from torch import nn

from common.engines import ForegroundInferer, SubstituteInferer
from common.modalities import presence, subsets
from common.networks import M3AE
from common.transforms import LoadSubjectd, ScaleBrainIntensityd, SubsetDataset, crop_at

NAN = float("nan")
MODALITIES = ("t1", "t1c", "t2", "flair")
WINDOWS = {"roi_size": (8, 8, 8), "overlap": 0.5}


def random_image(*boxes: tuple[slice, slice, slice]) -> torch.Tensor:
    """Return ``(1, 3, 20, 18, 16)``, each modality positive in its own box."""
    image = torch.zeros(1, 3, 20, 18, 16)
    generator = torch.Generator().manual_seed(0)
    for channel, box in enumerate(boxes):
        image[0, channel][box] = 0.1 + torch.rand(image[0, channel][box].shape, generator=generator)
    return image


BOXES = (
    (slice(4, 12), slice(5, 13), slice(6, 12)),
    (slice(6, 15), slice(3, 10), slice(6, 10)),
    (slice(0, 20), slice(1, 9), slice(8, 16)),
)
BOX = (..., slice(3, 16), slice(2, 14), slice(5, 13))
"""The first two and one voxel around."""


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 2, 3, padding=1)

    class Network(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return conv(torch.nan_to_num(image, nan=0.5))

    return Network().requires_grad_(False)


def test_windows_are_those_of_the_box(network):
    image = random_image(*BOXES[:2])
    expected = SlidingWindowInferer(**WINDOWS)(image[BOX], network)
    logits = ForegroundInferer(**WINDOWS)(image, network)
    assert logits.shape == (1, 2, 20, 18, 16)
    assert torch.equal(logits[BOX], expected)
    outside = torch.ones_like(logits, dtype=torch.bool)
    outside[BOX] = False
    assert outside.any()
    assert (torch.sigmoid(logits[outside]) == 0).all()


def test_box_ends_at_the_image(network):
    image = random_image(*BOXES)
    box = (..., slice(0, 20), slice(0, 14), slice(5, 16))
    assert torch.equal(
        ForegroundInferer(**WINDOWS)(image, network)[box], SlidingWindowInferer(**WINDOWS)(image[box], network)
    )


def test_box_smaller_than_a_window_is_grown_to_it_within_the_image(network):
    image = random_image((slice(9, 10), slice(9, 11), slice(9, 12)))
    logits = ForegroundInferer(**WINDOWS)(image, network)
    window = [min(a, b) for a, b in zip(WINDOWS["roi_size"], image.shape[2:], strict=True)]
    inside = (torch.sigmoid(logits[0, 0]) > 0).nonzero()
    assert (inside.max(dim=0).values - inside.min(dim=0).values + 1).tolist() == window
    assert inside.min(dim=0).values.le(torch.tensor([9, 9, 9])).all()
    assert inside.max(dim=0).values.ge(torch.tensor([9, 10, 11])).all()


@pytest.mark.parametrize(
    ("foreground", "box"),
    [  # with a margin of one: 8 to 11, 8 to 11 and 7 to 9
        ((slice(9, 10), slice(9, 10), slice(8, 9)), ((6, 14), (6, 14), (5, 13))),
        ((slice(0, 1), slice(17, 18), slice(15, 16)), ((0, 8), (10, 18), (8, 16))),  # at the ends of the image
        ((slice(1, 2), slice(15, 16), slice(7, 9)), ((0, 8), (10, 18), (4, 12))),
    ],
)
def test_a_small_box_grows_to_both_sides(network, foreground, box):
    (*_, x, y, z) = ForegroundInferer(**WINDOWS).box(random_image(foreground))
    assert tuple((side.start, side.stop) for side in (x, y, z)) == box


def test_outside_is_background_alone_for_a_softmax(network):
    image = random_image(*BOXES[:2])
    logits = ForegroundInferer(**WINDOWS, softmax=True)(image, network)
    assert torch.equal(logits[BOX], ForegroundInferer(**WINDOWS)(image, network)[BOX])
    outside = torch.ones(20, 18, 16, dtype=torch.bool)
    outside[BOX] = False
    assert (logits.softmax(dim=1)[0, :, outside] == torch.tensor([[1.0], [0.0]])).all()


def normalised(error: float = 0.0) -> torch.Tensor:
    """Return an image after a z-score, which gives each modality another background, below 0, and resampling."""
    level = torch.tensor([-0.8, -2.1, 0]).reshape(1, 3, 1, 1, 1)
    rounding = 1 + error * torch.rand(1, 3, 20, 18, 16, generator=torch.Generator().manual_seed(0))
    return (3 * random_image(*BOXES[:2]) + level) * rounding


def beside(value: float) -> torch.Tensor:
    """Return an image whose third modality is constant, or NaN where it is absent."""
    image = random_image(*BOXES[:2])
    image[0, 2] = value
    return image


@pytest.mark.parametrize("image", [normalised(), normalised(3e-7), beside(NAN), beside(7)])
def test_neither_background_nor_absent_or_constant_modalities_have_a_say_in_the_box(image):
    assert ForegroundInferer(**WINDOWS).box(image) == BOX


def test_windows_of_two_extents_are_planes_for_a_network_of_two_dimensions():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 3, padding=1).requires_grad_(False)
    image = random_image(*BOXES[:2])
    logits = ForegroundInferer((8, 8), 4, 0.5)(image, network)
    expected = SliceInferer(2, (8, 8), 4, 0.5)(image[BOX], network)
    assert logits.shape == (1, 2, 20, 18, 16)
    assert torch.equal(logits[BOX], expected)
    assert torch.equal(ForegroundInferer((8, 8, 1), 4, 0.5)(image, network), logits)


@pytest.mark.parametrize(("conv", "window"), [(nn.Conv3d, (8, 8, 8)), (nn.Conv2d, (8, 8))])
def test_mirrored_axes(conv, window):
    """The logits are the average of those of the image and, flipped back, those of the flipped image."""
    torch.manual_seed(0)
    image, network = random_image(*BOXES), conv(3, 2, 3, padding=1).requires_grad_(False)
    alone = ForegroundInferer(window, overlap=0.5)
    expected = (alone(image, network) + alone(image.flip(2), network).flip(2)) / 2
    found = ForegroundInferer(window, overlap=0.5, mirror_axes=[0])(image, network)
    torch.testing.assert_close(found, expected)
    assert torch.equal(ForegroundInferer(window, overlap=0.5, mirror_axes=0)(image, network), found)
    assert not torch.equal(found, alone(image, network))


@pytest.mark.parametrize(
    ("roi_size", "axes"),
    [((8, 8, 8), [3]), ((8, 8, 8), [0, 0]), ((8, 8, 8), ["x"]), ((8, 8), [2]), ((8, 8, 1), [2])],
)
def test_axes_that_are_not_there(roi_size, axes):
    with pytest.raises(ValueError, match=r"mirror_axes .*: expected distinct axes from \[0, 1"):
        ForegroundInferer(roi_size, mirror_axes=axes)


def test_box_of_a_batch_holds_all_samples(network):
    one, other = random_image(BOXES[0]), random_image(BOXES[1])
    logits = ForegroundInferer(**WINDOWS)(torch.cat([one, other]), network)
    inside = torch.sigmoid(logits[:, 0]) > 0
    assert torch.equal(inside[0], inside[1])
    assert inside[0].nonzero().min(dim=0).values.tolist() == [3, 2, 5]


@pytest.mark.parametrize("inferer", [ForegroundInferer, SubstituteInferer])
def test_all_missing(network, inferer):
    images = torch.cat([random_image(*BOXES), torch.full((1, 3, 20, 18, 16), NAN)])
    with pytest.raises(ValueError, match="A sample has no modality present; expected at least one"):
        inferer(**WINDOWS)(images, network)


@pytest.fixture
def m3ae() -> M3AE:
    torch.manual_seed(0)
    return M3AE(width=8, grid=(20, 18, 16), deep_supervision=False).eval().requires_grad_(False)


def preprocessing(modalities=None) -> Compose:
    load = LoadSubjectd("brats2020", modalities, keys="image")
    return Compose([load, Orientationd("image", axcodes="RAS", labels=None), ScaleBrainIntensityd("image")])


def infer(network: nn.Module, item: dict) -> torch.Tensor:
    return SubstituteInferer(**WINDOWS)(list_data_collate([item])["image"], network)


def test_missing_content_is_taken_from_its_own_location(m3ae, subject):
    image = list_data_collate([preprocessing(["t1", "t2"])(subject)])["image"]
    complete = SubstituteInferer(**WINDOWS).fill_missing(image, m3ae)
    assert torch.equal(complete[:, [1, 3]], m3ae.x_sub[:, [1, 3]])
    assert torch.equal(complete[:, [0, 2]], image[:, [0, 2]].as_tensor())
    cropped = SpatialCropd("image", roi_start=[2, 3, 4], roi_end=[10, 11, 12])(preprocessing(["t1", "t2"])(subject))
    complete = SubstituteInferer(**WINDOWS).fill_missing(list_data_collate([cropped])["image"], m3ae)
    assert torch.equal(complete[:, [1, 3]], crop_at(m3ae.x_sub, [8, 8, 8], [2, 3, 4], [False] * 3)[:, [1, 3]])


def test_substituted_windows_are_forwarded(m3ae, subject):
    image = list_data_collate([preprocessing(["t1", "t2"])(subject)])["image"]
    keep = presence(image)[:, :, None, None, None]
    complete = torch.where(keep, image.as_tensor(), m3ae.x_sub)
    logits = infer(m3ae, preprocessing(["t1", "t2"])(subject))
    inside = torch.sigmoid(logits[0, 0]) > 0
    low, high = inside.nonzero().min(dim=0).values.tolist(), (inside.nonzero().max(dim=0).values + 1).tolist()
    box = (..., *(slice(a, b) for a, b in zip(low, high, strict=True)))
    assert torch.equal(logits[box], SlidingWindowInferer(**WINDOWS)(complete[box], m3ae.unet))


@pytest.mark.parametrize("subset", [("flair",), ("t1", "t2"), ("t1", "t1c", "t2")])
def test_nothing_leaks_from_missing_modalities(m3ae, subject, subset):
    """The logits are the same whether the other files have other contents, are not listed, or are dropped when read."""
    expected = infer(m3ae, preprocessing(subset)(subject))
    there = [index for index, name in enumerate(MODALITIES) if name in subset]
    listed = {**subject, "image": [subject["image"][i] for i in there], "modalities": list(subset)}
    assert torch.equal(infer(m3ae, preprocessing()(listed)), expected)

    rng = np.random.default_rng(5)
    for index in set(range(4)) - set(there):
        image = nib.load(subject["image"][index])
        other = rng.uniform(1, 5000, image.shape) * (rng.random(image.shape) > 0.4)  # far beyond the brain
        nib.save(nib.Nifti1Image(other.astype(np.float32), image.affine), subject["image"][index])
    assert torch.equal(infer(m3ae, preprocessing(subset)(subject)), expected)
    (sample,) = SubsetDataset([subject], preprocessing(), [subset], MODALITIES)
    assert torch.equal(infer(m3ae, sample), expected)


def test_present_modalities_do_matter(m3ae, subject):
    """This complements the previous test, which logits that depend on nothing would pass."""
    logits = [infer(m3ae, preprocessing(subset)(subject)) for subset in subsets(MODALITIES)[:4]]
    assert len({tuple(each.flatten().tolist()) for each in logits}) == 4
