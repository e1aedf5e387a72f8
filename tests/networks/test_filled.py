"""Networks of MONAI with zeros in place of missing modalities."""

import pytest
import torch
from monai.networks import eval_mode

from common.networks.build import build_network

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
    assert narrow.network.channels == [4, 8, 16, 32]
    assert wide.network.channels == [8, 16, 32, 64]
    built = build_network("monai.networks.nets.UNet", 4, 3, 4, (32, 32, 32), num_res_units=2, channels=[2, 4, 8])
    assert (built.network.num_res_units, built.network.channels) == (2, [2, 4, 8])


@pytest.mark.parametrize(("name", "width"), [("SwinUNETR", 8), ("SegResNet", 5), ("DiNTS", 8)])
def test_what_cannot_be_made_is_refused(name, width):
    with pytest.raises(
        ValueError, match=rf"backbone {name}: cannot be made with width {width} and crop \[32, 32, 32\]"
    ):
        build_network(f"monai.networks.nets.{name}", 4, 3, width, (32, 32, 32))
