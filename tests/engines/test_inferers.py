"""Sliding windows: over the foreground, encoded once each, and in the precision of the key."""

from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from engines.two_stage import TwoStage
from monai.data import list_data_collate
from monai.engines import SupervisedTrainer
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.transforms import Compose, Orientationd, SpatialCropd
from torch import nn

from common.engines.inferers import ForegroundInferer, SubstituteInferer
from common.engines.precision import PrecisionInferer, autocast, check_device, fast_memory_format, fast_precision
from common.engines.windows import Mirrored, Planewise, decode_subsets
from common.modalities import drop, presence
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


def test_windows_are_those_of_the_box_and_outside_is_background(network):
    image = random_image(*BOXES[:2])
    expected = SlidingWindowInferer(**WINDOWS)(image[BOX], network)
    logits = ForegroundInferer(**WINDOWS)(image, network)
    assert logits.shape == (1, 2, 20, 18, 16)
    assert torch.equal(logits[BOX], expected)
    outside = torch.ones_like(logits, dtype=torch.bool)
    outside[BOX] = False
    assert outside.any()
    assert (torch.sigmoid(logits[outside]) == 0).all()
    logits = ForegroundInferer(**WINDOWS, softmax=True)(image, network)
    assert torch.equal(logits[BOX], ForegroundInferer(**WINDOWS)(image, network)[BOX])
    outside = torch.ones(20, 18, 16, dtype=torch.bool)
    outside[BOX] = False
    assert (logits.softmax(dim=1)[0, :, outside] == torch.tensor([[1.0], [0.0]])).all()


def test_box_ends_at_the_image(network):
    image = random_image(*BOXES)
    box = (..., slice(0, 20), slice(0, 14), slice(5, 16))
    logits = ForegroundInferer(**WINDOWS)(image, network)
    assert torch.equal(logits[box], SlidingWindowInferer(**WINDOWS)(image[box], network))


@pytest.mark.parametrize(
    ("foreground", "box"),
    [
        ((slice(9, 10), slice(9, 10), slice(8, 9)), ((6, 14), (6, 14), (5, 13))),
        ((slice(0, 1), slice(17, 18), slice(15, 16)), ((0, 8), (10, 18), (8, 16))),  # at the ends of the image
        ((slice(1, 2), slice(15, 16), slice(7, 9)), ((0, 8), (10, 18), (4, 12))),
    ],
)
def test_a_small_box_grows_to_both_sides(network, foreground, box):
    (*_, x, y, z) = ForegroundInferer(**WINDOWS).box(random_image(foreground))
    assert tuple((side.start, side.stop) for side in (x, y, z)) == box


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


def test_box_of_a_batch_holds_all_samples(network):
    one, other = random_image(BOXES[0]), random_image(BOXES[1])
    inside = torch.sigmoid(ForegroundInferer(**WINDOWS)(torch.cat([one, other]), network)[:, 0]) > 0
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


def test_missing_content_is_taken_from_its_own_location_and_forwarded(m3ae, subject):
    image = list_data_collate([preprocessing(["t1", "t2"])(subject)])["image"]
    complete = SubstituteInferer(**WINDOWS).fill_missing(image, m3ae)
    assert torch.equal(complete[:, [1, 3]], m3ae.x_sub[:, [1, 3]])
    assert torch.equal(complete[:, [0, 2]], image[:, [0, 2]].as_tensor())
    cropped = SpatialCropd("image", roi_start=[2, 3, 4], roi_end=[10, 11, 12])(preprocessing(["t1", "t2"])(subject))
    complete = SubstituteInferer(**WINDOWS).fill_missing(list_data_collate([cropped])["image"], m3ae)
    assert torch.equal(complete[:, [1, 3]], crop_at(m3ae.x_sub, [8, 8, 8], [2, 3, 4], [False] * 3)[:, [1, 3]])
    complete = torch.where(presence(image)[:, :, None, None, None], image.as_tensor(), m3ae.x_sub)
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


KEEP = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)


@pytest.fixture
def two_stage():
    return TwoStage().eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("shape", "padding", "overlap", "sw_batch_size", "mode"),
    [
        ((20, 17, 15), {}, 0.25, 7, "gaussian"),
        ((20, 17, 15), {}, 0.5, 1, "constant"),
        ((8, 20, 9), {}, 0.5, 7, "gaussian"),
        ((6, 20, 5), {}, 0.5, 1, "gaussian"),
        ((6, 20, 5), {"cval": 1.0}, 0.25, 7, "constant"),
        ((6, 9, 5), "reflect", 0.5, 7, "gaussian"),
        ((20, 17, 15), {}, 0.3, 7, "gaussian"),  # steps of int(5.6) and not of 6 voxels
        ((10, 9, 9), {}, 0.95, 64, "constant"),  # of 1 voxel and not of int(0.4)
        ((11, 9, 13), {}, (0.6, 0.4, 0.15), 5, "gaussian"),  # 3, 4 and 6 voxels, another one along each axis
    ],
)
def test_equals_monai_bit_for_bit(two_stage, shape, padding, overlap, sw_batch_size, mode):
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    options = {"padding_mode": padding} if isinstance(padding, str) else padding
    inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size, overlap, mode, **options)
    expected = [inferer(drop(image, row[None]), two_stage) for row in KEEP]
    found = list(decode_subsets(image, two_stage, KEEP, inferer))
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(20, 17, 5), (6, 9, 1)])
def test_planes_for_a_network_of_two_dimensions(shape):
    """Decoding all subsets together equals decoding each one; slices of a volume do not influence each other."""
    two_stage = TwoStage(dims=2).eval().requires_grad_(False)
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    inferer = ForegroundInferer((8, 8), 4, 0.5)
    crop = SlidingWindowInferer((8, 8, 1), 4, 0.5)
    expected = [crop(drop(image, row[None]), Planewise(two_stage)) for row in KEEP]
    two_stage.encoded = 0
    found = list(decode_subsets(image, two_stage, KEEP, inferer))
    assert two_stage.encoded == {20: 4 * 4, 6: 2}[shape[0]] * shape[2] * 3
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert found[0].shape == (1, 2, *shape)
    slices = [list(decode_subsets(part, two_stage, KEEP, inferer))[3] for part in image.split(1, dim=-1)]
    torch.testing.assert_close(torch.cat(slices, dim=-1), found[3], rtol=0, atol=1e-6)


def test_a_missing_modality_is_never_encoded(two_stage):
    image = drop(torch.rand(1, 3, 12, 12, 12), torch.tensor([[True, False, True]]))
    (found,) = decode_subsets(image, two_stage, KEEP[:1], SlidingWindowInferer((8, 8, 8), 4, 0.5))
    assert two_stage.encoded == 2**3 * 2
    assert torch.isfinite(found).all()


def test_mirrored_predictions_are_averaged(two_stage):
    image = torch.rand(1, 3, 8, 9, 10)
    flips = [(), (2,), (4,), (2, 4)]
    expected = torch.stack([two_stage(image.flip(flip)).flip(flip) for flip in flips]).mean(dim=0)
    assert not torch.allclose(expected, two_stage(image), atol=1e-3)
    averaged = Mirrored(two_stage, (0, 2))
    torch.testing.assert_close(averaged(image), expected)
    torch.testing.assert_close(averaged(image.flip(4)), expected.flip(4))
    present = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(averaged.decode(averaged.encode(image, present), present), averaged(image))


class Out(NamedTuple):
    logits: torch.Tensor
    features: list[torch.Tensor]
    present: torch.Tensor | None


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 16, 3, padding=1)
        self.seen: list[torch.dtype] = []

    def forward(self, image: torch.Tensor) -> Out:
        features = self.conv(image)
        self.seen.append(features.dtype)
        return Out(features, [features.double(), (image[:, 0] > 0)], None)


class Logits(Network):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).logits


PRECISIONS = [("float32", torch.float32, 0.0), ("bfloat16", torch.bfloat16, 0.05), ("float16", torch.float16, 0.01)]


@pytest.mark.parametrize(("precision", "inside", "error"), PRECISIONS)
def test_half_inside_and_single_outside(precision, inside, error):
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    out = PrecisionInferer(precision)(image, network)
    assert network.seen == [inside]
    assert isinstance(out, Out)
    assert [tensor.dtype for tensor in (out.logits, *out.features)] == [torch.float32, torch.float64, torch.bool]
    assert out.present is None
    out.logits.square().mean().backward()
    assert network.conv.weight.grad.dtype == torch.float32
    difference = float((out.logits - network(image).logits).detach().abs().max())
    assert 1e-5 < difference < error if error else difference == 0


@pytest.mark.parametrize(("precision", "inside", "error"), PRECISIONS)
@torch.no_grad()
def test_windows_are_forwarded_in_it_and_summed_in_single(precision, inside, error):
    network, image = Logits(), torch.randn(1, 2, 12, 8, 8)
    logits = ForegroundInferer((8, 8, 8), 1, 0.5, precision=precision)(image, network)
    assert (set(network.seen), logits.dtype) == ({inside}, torch.float32)
    difference = float((logits - SlidingWindowInferer((8, 8, 8), 1, 0.5)(image, network)).abs().max())
    assert 1e-5 < difference < error if error else difference == 0


@torch.no_grad()
def test_windows_of_all_subsets_are_those_of_each():
    network, image = TwoStage(3, 2).eval(), torch.randn(1, 3, 12, 8, 8)
    keep = torch.tensor([[True, True, True], [False, True, False]])
    inferer = ForegroundInferer((8, 8, 8), 1, 0.5, precision="bfloat16")
    with autocast("bfloat16", image.device):
        found = list(decode_subsets(image, network, keep, inferer))
    alone = [inferer(image.masked_fill(~row[None, :, None, None, None], torch.nan), network) for row in keep]
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_single_is_single_within_another_precision():
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        PrecisionInferer("float32")(image, network)
    assert network.seen == [torch.float32]


@pytest.mark.filterwarnings("ignore:.*GradScaler", "ignore:.*CUDA is not available")
@pytest.mark.parametrize(("precision", "inside", "_"), PRECISIONS)
def test_the_loss_is_in_single(precision, inside, _):
    seen = []

    def loss(pred, label):
        seen.append((pred.logits @ pred.logits.mT).dtype)
        return pred.logits.square().mean()

    network, batch = Network(), {"image": torch.randn(1, 2, 8, 8, 8), "label": torch.zeros(1)}
    parts = 1, [batch], network, torch.optim.SGD(network.parameters()), loss
    half = {"amp": precision == "float16", "amp_kwargs": {"enabled": False}}
    inferer = PrecisionInferer(precision)
    SupervisedTrainer(torch.device("cpu"), *parts, inferer=inferer, decollate=False, **half).run()
    assert (network.seen, seen) == ([inside], [torch.float32])


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        (lambda: PrecisionInferer("half"), "precision 'half': .* 'float32', 'bfloat16', 'float16'"),
        (lambda: ForegroundInferer((8, 8, 8), precision="half"), "precision 'half'"),
        (lambda: check_device("cpu", "half"), "precision 'half'"),
        (lambda: check_device("cpu", "float16"), "'float16' with device cpu"),
        (lambda: check_device("gpu", "float32"), "^device gpu: not available"),
        *(
            (
                lambda size=size, axes=axes: ForegroundInferer(size, mirror_axes=axes),
                r"mirror_axes .*: expected distinct axes from \[0, 1",
            )
            for size, axes in (
                ((8, 8, 8), [3]),
                ((8, 8, 8), [0, 0]),
                ((8, 8, 8), ["x"]),
                ((8, 8), [2]),
                ((8, 8, 1), [2]),
            )
        ),
    ],
)
def test_wrong_settings_are_refused(check, facts):
    with pytest.raises(ValueError, match=facts):
        check()


def test_memory_format_of_each_device():
    assert fast_memory_format("cpu", [80, 80, 80]) is torch.channels_last_3d
    assert fast_memory_format("cpu", [80, 80]) is torch.contiguous_format
    assert fast_memory_format(torch.device("cuda", 0), [80, 80, 80]) is torch.contiguous_format


@pytest.mark.parametrize(("flags", "expected"), [("fpu amx_bf16 sse", "bfloat16"), ("fpu avx512f", "float32")])
def test_precision_of_each_device(monkeypatch, tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr("common.engines.precision.CPU_FACTS", tmp_path / "cpuinfo")
    assert fast_precision(torch.device("cpu")) == expected
    assert fast_precision("cuda:0") == "float32"
