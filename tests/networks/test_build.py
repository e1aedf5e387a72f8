"""Networks by name."""

import torch
from monai.networks.nets import SegResNet
from torch import nn

from common.networks.build import build_network
from common.networks.kernels import Conv3d


def test_convolutions_of_monai_are_made_sound():
    torch.manual_seed(0)
    network = build_network("monai.networks.nets.SegResNet", 4, 4, 8, (16, 16, 16))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    assert layers
    assert all(type(layer) is Conv3d for layer in layers)
    plain = SegResNet(3, 8, 4, 4)
    plain.load_state_dict(network.network.state_dict())
    image = torch.randn(1, 4, 16, 16, 16)
    torch.testing.assert_close(network(image), plain(image), rtol=1e-3, atol=1e-4)
