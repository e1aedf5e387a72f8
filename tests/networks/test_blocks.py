"""Layers that several networks share."""

import pytest
from torch import nn

from common.networks import RFNet
from common.networks.blocks import conv


@pytest.mark.parametrize(("dims", "kernel", "fan_in"), [(2, 5, 800), (3, 3, 864), (3, 1, 32)])
def test_a_fresh_convolution_has_the_variance_two_over_its_fan_in(dims, kernel, fan_in):
    weight = conv(dims, 32, 256, kernel).weight
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.03 * (2 / fan_in) ** 0.5)


def test_all_large_convolutions_of_a_network_start_so():
    layers = [layer for layer in RFNet(width=16, crop=(16, 16, 16)).modules() if isinstance(layer, nn.Conv3d)]
    large = [layer.weight for layer in layers if layer.weight.numel() > 10_000]
    assert len(large) > 50
    for weight in large:
        assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.05)
