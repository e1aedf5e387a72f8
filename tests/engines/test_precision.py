"""Training in bfloat16: what is inside and what comes out."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from common.engines import BFloat16Inferer


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


@pytest.mark.parametrize(("enabled", "inside"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_inside_and_single_outside(enabled, inside):
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    out = BFloat16Inferer(enabled)(image, network)
    assert network.seen == [inside]
    assert isinstance(out, Out)
    found = [tensor.dtype for tensor in (out.logits, *out.features)]
    assert found == [torch.float32, torch.float64, torch.bool]
    assert out.present is None
    out.logits.square().mean().backward()
    assert network.conv.weight.grad.dtype == torch.float32
    exact = network(image).logits
    difference = float((out.logits - exact).detach().abs().max())
    assert 1e-5 < difference < 0.05 if enabled else difference == 0


def test_the_trainers_own_mixed_precision_stays():
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        BFloat16Inferer(False)(image, network)
        with pytest.raises(ValueError, match="amp and bfloat16 are both true"):
            BFloat16Inferer(True)(image, network)
    assert network.seen == [torch.bfloat16]
