"""Windows are encoded once each, and give the logits of MONAI's sliding windows bit for bit."""

import pytest
import torch
from engines.two_stage import TwoStage
from monai.inferers import SlidingWindowInferer

from common.engines import ForegroundInferer
from common.engines.windows import Mirrored, Planewise, decode_subsets
from common.modalities import drop

KEEP = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)


@pytest.fixture
def network():
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
def test_equals_monai_bit_for_bit(network, shape, padding, overlap, sw_batch_size, mode):
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    options = {"padding_mode": padding} if isinstance(padding, str) else padding
    inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size, overlap, mode, **options)
    expected = [inferer(drop(image, row[None]), network) for row in KEEP]
    found = list(decode_subsets(image, network, KEEP, inferer))
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_every_window_is_encoded_once(network):
    image = torch.rand(1, 3, 20, 20, 20)
    inferer = SlidingWindowInferer((8, 8, 8), 4, 0.5)
    list(decode_subsets(image, network, KEEP, inferer))
    assert network.encoded == 4**3 * 3


@pytest.mark.parametrize("shape", [(20, 17, 5), (6, 9, 1)])
def test_planes_for_a_network_of_two_dimensions(shape):
    """Decoding all subsets together equals decoding each one; slices of a volume do not influence each other."""
    network = TwoStage(dims=2).eval().requires_grad_(False)
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    inferer = ForegroundInferer((8, 8), 4, 0.5)
    crop = SlidingWindowInferer((8, 8, 1), 4, 0.5)
    expected = [crop(drop(image, row[None]), Planewise(network)) for row in KEEP]
    network.encoded = 0
    found = list(decode_subsets(image, network, KEEP, inferer))
    assert network.encoded == {20: 4 * 4, 6: 2}[shape[0]] * shape[2] * 3
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert found[0].shape == (1, 2, *shape)
    slices = [list(decode_subsets(part, network, KEEP, inferer))[3] for part in image.split(1, dim=-1)]
    torch.testing.assert_close(torch.cat(slices, dim=-1), found[3], rtol=0, atol=1e-6)


def test_a_missing_modality_is_never_encoded(network):
    image = drop(torch.rand(1, 3, 12, 12, 12), torch.tensor([[True, False, True]]))
    inferer = SlidingWindowInferer((8, 8, 8), 4, 0.5)
    (found,) = decode_subsets(image, network, KEEP[:1], inferer)
    assert network.encoded == 2**3 * 2
    assert torch.isfinite(found).all()


def test_mirrored_predictions_are_averaged(network):
    image = torch.rand(1, 3, 8, 9, 10)
    flips = [(), (2,), (4,), (2, 4)]
    expected = torch.stack([network(image.flip(flip)).flip(flip) for flip in flips]).mean(dim=0)
    assert not torch.allclose(expected, network(image), atol=1e-3)
    averaged = Mirrored(network, (0, 2))
    torch.testing.assert_close(averaged(image), expected)
    torch.testing.assert_close(averaged(image.flip(4)), expected.flip(4))
    present = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(averaged.decode(averaged.encode(image, present), present), averaged(image))
