"""Operations by faster kernels give the results, and gradients, of PyTorch's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.networks import kernels
from common.networks.kernels import Conv3d, GroupNorm, instance_norm, upsampled, weighted_sum


def results(operation, x, *parameters):
    """Return an operation's result, and its gradients with respect to input and parameters."""
    x = x.clone().requires_grad_()
    y = operation(x)
    return [y, *torch.autograd.grad(y.cos().sum(), [x, *parameters])]


@pytest.mark.parametrize("shape", [(8, 6, 5), (5, 6, 7), (4, 5, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": 0},
        {"padding": (1, 0, 1), "bias": False},
        {"padding": "same"},
        {"padding": "valid"},
    ],
)
@pytest.mark.parametrize("kernel", [3, 4])
def test_one_image_is_convolved_in_halves(shape, options, kernel):
    torch.manual_seed(0)
    layer = Conv3d(3, 2, kernel, **options)
    x, parameters = torch.randn(1, 3, *shape), list(layer.parameters())
    assert layer._is_slow(x)
    expected = results(lambda x: nn.Conv3d._conv_forward(layer, x, layer.weight, layer.bias), x, *parameters)
    torch.testing.assert_close(results(layer, x, *parameters), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "x"),
    [
        ({"stride": 2}, torch.zeros(1, 4, 8, 8, 8)),
        ({"dilation": 2}, torch.zeros(1, 4, 8, 8, 8)),
        ({"groups": 2}, torch.zeros(1, 4, 8, 8, 8)),
        ({}, torch.zeros(2, 4, 8, 8, 8)),
        ({}, torch.zeros(1, 4, 80, 80, 8)),
    ],
)
def test_other_convolutions_are_left_to_pytorch(options, x):
    layer = Conv3d(4, 4, 3, **options)
    assert not layer._is_slow(x)
    torch.testing.assert_close(layer(x), nn.Conv3d._conv_forward(layer, x, layer.weight, layer.bias))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_padding_given_as_a_word_is_compiled(mode):
    layer, x = Conv3d(3, 2, 4, padding="same", padding_mode=mode), torch.randn(2, 3, 6, 5, 4)
    expected = nn.Conv3d._conv_forward(layer, x, layer.weight, layer.bias)
    torch.testing.assert_close(torch.jit.script(layer)(x), expected)


GRADIENTS = """
import torch
from kernels import Conv3d
torch.manual_seed(0)
layer, x = Conv3d(16, 16, 3, padding=1), torch.randn(2, 16, 2, 5, 4)
found = []
for enabled in (False, True):
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        y = layer(x)
    y.float().cos().sum().backward()
    found.append(layer.weight.grad.clone())
print(((found[1] - found[0]).norm() / found[0].norm()).item())
"""


def test_gradients_in_bfloat16_of_two_voxels():
    """With the kernels of processors that have AVX512-BF16 but no AMX, PyTorch's are off by a factor of 2 to inf."""
    said = subprocess.run(
        [sys.executable, "-c", GRADIENTS],
        cwd=Path(kernels.__file__).parent,  # without what the package imports, which takes longer than all else
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert float(said) < 0.05


@pytest.mark.parametrize("order", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_keeps_the_order_of_values(order, dtype, monkeypatch):
    torch.manual_seed(0)
    layer, x = GroupNorm(4, 8), torch.randn(2, 8, 6, 5, 4).to(dtype, memory_format=order)
    nn.init.normal_(layer.weight)
    expected = results(lambda x: nn.GroupNorm.forward(layer, x), x, *layer.parameters())
    given, normalise = [], F.group_norm
    monkeypatch.setattr(F, "group_norm", lambda x, *others: given.append(x) or normalise(x, *others))
    y, *gradients = results(layer, x, *layer.parameters())
    torch.testing.assert_close([y, *gradients], expected, rtol=0.02 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)
    assert given[0].is_contiguous()  # whose gradient is fast
    assert y.is_contiguous(memory_format=order)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5, 7), (1, 2, 9, 4)])
def test_norm_and_upsampling(shape):
    torch.manual_seed(0)
    x, mode = torch.randn(shape), "bilinear" if len(shape) == 4 else "trilinear"
    torch.testing.assert_close(results(instance_norm, x), results(F.instance_norm, x), rtol=1e-4, atol=1e-5)
    expected = results(lambda x: F.interpolate(x, scale_factor=2, mode=mode, align_corners=True), x)
    torch.testing.assert_close(results(upsampled, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_weighted_sums_over_modalities(rows):
    torch.manual_seed(0)
    weights, x = torch.rand(2, rows, 4), torch.randn(2, 4, 3, 5, 6, 7)
    torch.testing.assert_close(weighted_sum(weights, x), torch.einsum("bsm,bmcxyz->bscxyz", weights, x))
