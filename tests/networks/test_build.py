"""Networks that others wrote are built as they are."""

import pytest
import torch
from monai.networks.nets import SegResNet

from common.networks.build import build_network


@pytest.mark.parametrize(("crop", "warned"), [((16, 16, 16), True), ((24, 16, 16), False)])
def test_a_network_of_monai_is_built_as_it_is_and_its_limit_is_named(caplog, crop, warned):
    torch.manual_seed(0)
    network = build_network("monai.networks.nets.SegResNet", 4, 4, 8, crop)
    assert ("gradient in bfloat16" in caplog.text) == warned
    plain = SegResNet(3, 8, 4, 4)
    plain.load_state_dict(network.network.state_dict())
    image = torch.randn(1, 4, *crop)
    assert torch.equal(network.eval()(image), plain.eval()(image))
