"""Networks that others wrote are built as they are, but for the gradients of their convolutions."""

import pytest
import torch
from monai.networks.nets import SegResNet
from torch import nn

from common.networks.build import build_network
from common.networks.kernels import Conv3d


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
