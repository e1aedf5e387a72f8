"""Layers that are sound and fast on a CPU give the results, and gradients, of PyTorch's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.networks import kernels
from common.networks.kernels import Conv3d, GroupNorm, weighted_sum


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "same"}])
@pytest.mark.parametrize("size", [2, 5])
def test_convolutions_are_those_of_pytorch(options, size):
    torch.manual_seed(0)
    layer, x = Conv3d(3, 2, 3, **options), torch.randn(2, 3, size, 5, 4)
    expected = nn.Conv3d.forward(layer, x)
    assert torch.equal(layer(x), expected)
    torch.testing.assert_close(torch.jit.script(layer)(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.02, atol=0.02)


GRADIENTS = """
import torch
from kernels import Conv3d
torch.manual_seed(0)
layer, x = Conv3d(16, 16, 3, padding=1), torch.randn(2, 16, 2, 5, 4)
gradients = []
for enabled in (False, True):
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        y = layer(x)
    y.float().cos().sum().backward()
    gradients.append(layer.weight.grad.clone())
print(((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item())
"""


def test_gradients_in_bfloat16_of_two_voxels():
    """With the kernels of processors that have AVX512-BF16 but no AMX, PyTorch's are off by a factor of 2 to inf."""
    printed = subprocess.run(
        [sys.executable, "-c", GRADIENTS],
        cwd=Path(kernels.__file__).parent,  # without what the package imports, which takes longer than all else
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert float(printed) < 0.05


@pytest.mark.parametrize("order", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_keeps_the_order_of_values(order, dtype, monkeypatch):
    torch.manual_seed(0)
    layer, x = GroupNorm(4, 8), torch.randn(2, 8, 6, 5, 4).to(dtype, memory_format=order).requires_grad_()
    nn.init.normal_(layer.weight)

    def results(forward):
        y = forward(x)
        return [y, *torch.autograd.grad(y.cos().sum(), [x, *layer.parameters()])]

    expected = results(lambda x: nn.GroupNorm.forward(layer, x))
    given, normalise = [], F.group_norm
    monkeypatch.setattr(F, "group_norm", lambda x, *others: given.append(x) or normalise(x, *others))
    y, *gradients = results(layer)
    torch.testing.assert_close([y, *gradients], expected, rtol=0.02 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert given[0].is_contiguous()  # whose gradient is fast
    assert y.is_contiguous(memory_format=order)


@pytest.mark.parametrize("rows", [1, 3])
def test_weighted_sums_over_modalities(rows):
    torch.manual_seed(0)
    weights, x = torch.rand(2, rows, 4), torch.randn(2, 4, 3, 5, 6, 7)
    torch.testing.assert_close(weighted_sum(weights, x), torch.einsum("bsm,bmcxyz->bscxyz", weights, x))


@pytest.mark.parametrize("shape", [(2, 3, 6, 5, 7), (1, 2, 9, 4)])
@pytest.mark.parametrize("operation", ["norm", "upsampling"])
def test_norm_and_upsampling_are_those_of_pytorch(shape, operation):
    torch.manual_seed(0)
    x, mode = torch.randn(shape).requires_grad_(), "bilinear" if len(shape) == 4 else "trilinear"
    ours, theirs = {
        "norm": (kernels.instance_norm, F.instance_norm),
        "upsampling": (kernels.upsampled, lambda x: F.interpolate(x, scale_factor=2, mode=mode, align_corners=True)),
    }[operation]
    found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(y.cos().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 6, 5), (5, 6, 7), (4, 5, 5)])
@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": 0}, {"padding": (1, 0, 1), "bias": False}])
@pytest.mark.parametrize("kernel", [3, 4])
def test_one_image_is_convolved_in_halves(shape, options, kernel, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    torch.manual_seed(0)
    layer, x = Conv3d(3, 2, kernel, **options), torch.randn(1, 3, *shape).requires_grad_()
    assert layer._is_slow(x)
    assert not layer._is_slow(torch.cat([x, x]))
    found, expected = layer(x), nn.Conv3d.forward(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(y.cos().sum(), [x, *layer.parameters()]) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": "same"}])
def test_other_convolutions_are_left_to_pytorch(options, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    layer, x = Conv3d(4, 4, 3, **options), torch.zeros(1, 4, 8, 8, 8)
    assert not layer._is_slow(x)
    assert not Conv3d(4, 4, 3)._is_slow(torch.zeros(1, 4, 80, 80, 8))
    torch.testing.assert_close(layer(x), nn.Conv3d.forward(layer, x))
