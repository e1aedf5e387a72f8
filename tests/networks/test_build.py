"""Networks by their names: those of others, sizes that are refused, and networks for one subset each."""

import pytest
import torch
from monai.networks import eval_mode
from monai.networks.nets import SegResNet
from refusals import refused
from torch import nn

from common.modalities import drop
from common.networks import M2FTrans, MMFormer, ResidualUNet, RFNet
from common.networks.build import build_network
from common.networks.cotraining import ACN, SMUNet
from common.networks.dedicated import Dedicated, FullAndMissing, channel_subsets
from common.networks.feature_encoder import FeatureEncoder
from common.networks.gated import GatedNetwork
from common.networks.hved import UHVED, UHeMIS
from common.networks.kernels import Conv3d
from common.networks.mag_ms import MAGMS
from common.networks.unetr import DedicatedUNETR, FilledUNETR


def test_a_network_of_monai_is_built_as_it_is():
    torch.manual_seed(0)
    network = build_network("monai.networks.nets.SegResNet", 4, 4, 8, (16, 16, 16))
    plain = SegResNet(3, 8, 4, 4)
    plain.load_state_dict(network.network.state_dict())
    image = torch.randn(1, 4, 16, 16, 16)
    assert torch.allclose(network.eval()(image), plain.eval()(image), atol=1e-5)


@pytest.mark.parametrize("name", ["MAG-MS", "monai.networks.nets.SegResNet"])
def test_every_convolution_is_that_of_kernels(name):
    """Its gradients in bfloat16 are tested in test_kernels.py."""
    network = build_network(name, 4, 4, 8, (16, 16, 16), hidden=16, mlp_dim=16, heads=2)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    assert {type(layer) for layer in convolutions} == {Conv3d}


IMAGE = torch.randn(2, 4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
UNUSED = {"embed_dim": 64, "mlp_dim": 16, "heads": 4, "feature_encoder": None}
"""Sizes of a bundle's other backbones, which it gives to all."""


@pytest.mark.parametrize("name", ["SegResNet", "SegResNetDS", "DynUNet", "UNet", "BasicUNet", "AttentionUnet"])
def test_networks_of_monai_see_zeros_for_what_is_missing(name):
    torch.manual_seed(0)
    network = build_network(f"monai.networks.nets.{name}", 4, 3, 8, (32, 32, 32), **UNUSED)
    image = IMAGE.clone()
    image[0, 1] = torch.nan
    present = torch.ones(2, 4, dtype=torch.bool)
    present[1, 3] = False
    zeros = IMAGE.clone()
    zeros[0, 1] = zeros[1, 3] = 0
    with eval_mode(network), torch.no_grad():
        found = network(image, present)
        assert found.shape == (2, 3, 32, 32, 32)
        assert torch.equal(found, network.network(zeros))
    with pytest.raises(ValueError, match="modality"):
        network(torch.full_like(image, torch.nan))


def test_width_and_own_arguments_reach_the_network():
    narrow, wide = (build_network("monai.networks.nets.UNet", 4, 3, width, (32, 32, 32)) for width in (4, 8))
    assert (narrow.network.channels, wide.network.channels) == ([4, 8, 16, 32], [8, 16, 32, 64])
    built = build_network("monai.networks.nets.UNet", 4, 3, 4, (32, 32, 32), num_res_units=2, channels=[2, 4, 8])
    assert (built.network.num_res_units, built.network.channels) == (2, [2, 4, 8])


@pytest.mark.parametrize(("name", "width"), [("SwinUNETR", 8), ("SegResNet", 5), ("DiNTS", 8)])
def test_what_cannot_be_made_is_refused(name, width):
    with refused(ValueError, f"backbone {name}: cannot be made with width {width} and crop [32, 32, 32]"):
        build_network(f"monai.networks.nets.{name}", 4, 3, width, (32, 32, 32))


TOKENS = {"width": 4, "mlp_dim": 16, "heads": 2}
WINDOW, UNETR = (32, 32, 32), {**TOKENS, "hidden": 16, "crop": (32, 32, 32)}
MULTIPLES = {RFNet: "8, 16", MMFormer: "16, 32", M2FTrans: "16, 32", MAGMS: "16", FilledUNETR: "16"}
MULTIPLES |= {DedicatedUNETR: "16"}


def sized(network, **changes):
    """Return a small network that is told its crop."""
    sizes = {RFNet: {"width": 4, "crop": WINDOW}, MMFormer: {**TOKENS, "crop": WINDOW, "embed_dim": 16}}
    sizes[M2FTrans] = {**TOKENS, "crop": WINDOW}
    return network(**{**sizes.get(network, UNETR), **changes})


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        *((lambda net=net: net(width=12), ["width 12: expected a multiple of 8"]) for net in (ACN, SMUNet)),
        (lambda: ResidualUNet(4, 3, width=12), ["width 12: expected a multiple of 8"]),
        (lambda: RFNet(width=6), ["width 6", "multiple of 4"]),
        *((lambda net=net: net(width=5), ["width 5: expected an even number"]) for net in (UHVED, UHeMIS)),
        *(
            (lambda net=net, crop=crop: sized(net, crop=crop), [f"crop {list(crop)}", f"2 or 3 multiples of {number}"])
            for net, number in MULTIPLES.items()
            for crop in ((36, 32, 32), (8, 32, 32), (32,), (32, 32, 32, 32))
        ),
        *((lambda net=net: sized(net, heads=3), ["3 heads", "divisor"]) for net in MULTIPLES if net is not RFNet),
        (lambda: sized(FilledUNETR, fill="median"), ["fill 'median': expected one of 'zero', 'mean'"]),
    ],
)
def test_sizes_of_a_network(make, facts):
    with refused(ValueError, *facts):
        make()


@pytest.mark.parametrize(
    ("network", "window", "facts"),
    [
        (ResidualUNet(4, 3, width=8), (16, 16, 20), ["expected multiples of 8"]),
        *((net(width=8, subsets=[(0,)]), (20, 20, 20), ["expected multiples of 8"]) for net in (ACN, SMUNet)),
        *(
            (net(width=2), window, [f"crop {list(window)}", "2 or 3 multiples of 8, 16 or more", "(key `crop`)"])
            for net in (GatedNetwork, UHVED, UHeMIS)
            for window in ((20, 16, 16), (8, 16, 16))
        ),
        (sized(RFNet), (36, 16, 16), ["[36, 16, 16]", "RFNet", "multiples of 8"]),
        *(
            (sized(net), (32, 32, 48), ["A window of [32, 32, 48] voxels, but", "built for [32, 32, 32]", "key `crop`"])
            for net in (MMFormer, M2FTrans, MAGMS, FilledUNETR, DedicatedUNETR)
        ),
    ],
)
def test_windows(network, window, facts):
    with refused(ValueError, *facts), torch.no_grad():
        network(torch.zeros(1, 4, *window))


class Sum(nn.Module):
    """Returns as logits the sum and the number of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x):
        assert x.shape[1] == self.channels
        return torch.stack([x.sum(dim=1), torch.full_like(x[:, 0], self.channels)], dim=1)


def test_all_subsets_and_those_drawn_from_what_all_samples_have():
    assert (channel_subsets(2), len(channel_subsets(4))) == ([(0,), (1,), (0, 1)], 15)
    assert len(channel_subsets(4, complete=False)) == 14
    dedicated = Dedicated(channel_subsets(3), Sum)
    present = torch.tensor([[True, True, True], [True, False, True]])
    assert {dedicated.draw_subset(present) for _ in range(100)} == {(0,), (2,), (0, 2)}
    with pytest.raises(ValueError, match="none can be trained"):
        dedicated.draw_subset(torch.tensor([[True, False, False], [False, True, False]]))


def test_each_sample_goes_to_the_network_for_what_it_has():
    image = torch.randn(3, 4, 2, 2, 2)
    present = torch.tensor([[True, False, True, False], [True, True, True, True], [False, False, False, True]])
    network = FullAndMissing(4, Sum(4), Sum, FeatureEncoder(4, 3, None)).eval()
    logits = network(drop(image, present))
    assert torch.allclose(logits[:, 0], (image * present[:, :, None, None, None]).sum(dim=1))
    assert logits[:, 1].amax(dim=(1, 2, 3)).tolist() == [2, 4, 1]
    for row in range(3):
        assert torch.equal(network(image[row : row + 1], present[row : row + 1]), logits[row : row + 1])


def test_encoded_features_of_a_modality_stay_together():
    encoder = FeatureEncoder(4, 3, "shared")
    network = FullAndMissing(4, Sum(16), Sum, encoder).eval()
    image, present = torch.randn(1, 4, 4, 4, 4), torch.tensor([[False, True, False, True]])
    expected = encoder(image, present)[:, [1, 3]].sum(dim=(1, 2))
    assert torch.allclose(network(image, present)[:, 0], expected, atol=1e-5)


def test_a_subset_without_a_network_is_refused():
    network = FullAndMissing(4, Sum(4), Sum, FeatureEncoder(4, 3, None), subsets=[(1,), (1, 3)]).eval()
    image, there = torch.randn(1, 4, 2, 2, 2), torch.tensor([[True, False, False, False]])
    with pytest.raises(ValueError, match=r"No network was trained for the modalities at channels \[0\]"):
        network(image, there)
