"""Operations that give PyTorch's results by faster or sounder kernels on a CPU; on a GPU they are PyTorch's own.

The times in comments are those of a forward pass in float32 on one core (AMD Zen 5) with PyTorch 2.13.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

MKLDNN_FROM = 20480
"""PyTorch leaves the convolution of a single image to oneDNN only if ``C * D * H`` exceeds this number."""


class Conv3d(nn.Conv3d):
    """A 3D convolution that avoids PyTorch's slow kernel for a single small image, and a wrong gradient in bfloat16.

    It maps ``(B, C, X, Y, Z)`` like `torch.nn.Conv3d`.

    PyTorch convolves a single small image in float32 with a kernel of its own, which takes about six times as long as
    oneDNN's. This layer therefore splits such an image into two halves along the first spatial axis, which overlap as
    the kernel requires, and convolves them as a batch of two.

    For the weights' gradient in bfloat16, oneDNN (of PyTorch 2.13, without AMX) reads beyond an image that has two
    voxels along a padded first axis, so that the gradient is arbitrary. Such an image is padded before the convolution.
    """

    # Optional, and no `super()`: TorchScript compiles this.
    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:  # noqa: UP045
        if isinstance(self.padding, str) or self.padding_mode != "zeros":  # "same" or "valid"
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input, padding = F.pad(input, self._reversed_padding_repeated_twice, mode=mode), (0, 0, 0)
        else:
            padding = self.padding
        if not torch.jit.is_scripting() and self._is_slow(input):
            return self._convolved_in_halves(input, weight, bias, padding)
        if not torch.jit.is_scripting() and self._is_misread(input):
            input, padding = F.pad(input, (0, 0, 0, 0, padding[0], padding[0])), (0, padding[1], padding[2])
        return F.conv3d(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    @torch.jit.unused
    def _is_slow(self, x: torch.Tensor) -> bool:
        if torch.jit.is_tracing() or x.device.type != "cpu" or x.dtype != torch.float32:
            return False
        small = x.shape[0] == 1 and x.shape[:4].numel() <= MKLDNN_FROM
        dense = self.stride == self.dilation == (1, 1, 1) and self.kernel_size != (1, 1, 1) and self.groups == 1
        return small and dense

    @torch.jit.unused
    def _is_misread(self, x: torch.Tensor) -> bool:
        half = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        return half and x.device.type == "cpu" and x.shape[2] == 2 and not torch.jit.is_tracing()

    @torch.jit.unused
    def _convolved_in_halves(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: tuple[int, int, int]
    ) -> torch.Tensor:
        x = F.pad(x, [padding[axis] for axis in (2, 2, 1, 1, 0, 0)])
        beyond = self.kernel_size[0] - 1
        extent = x.shape[2] - beyond
        half = -(-extent // 2)
        parts = torch.cat([x[:, :, : half + beyond], x[:, :, extent - half :]])
        first, second = F.conv3d(parts, weight, bias).split(1)
        return torch.cat([first, second[:, :, 2 * half - extent :]], dim=2)


def use_own_convolutions(network: nn.Module) -> None:
    """Turn each plain `torch.nn.Conv3d` of a network, as MONAI's have, into a `Conv3d`; its weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = Conv3d  # it differs in its methods only


class GroupNorm(nn.GroupNorm):
    """A group norm whose gradient on a CPU is not slow for tensors in channels-last order.

    It maps ``(B, C, X, Y, Z)`` like `torch.nn.GroupNorm`, and keeps the order of the values in memory.

    In that order, PyTorch's gradient of 8 channels of 40 x 48 x 40 voxels takes 14 ms (bfloat16: 38 ms) instead of
    0.6 ms, while to change the order takes 0.7 ms. So a tensor that needs a gradient is normalised in the usual order.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, X, Y, Z)``."""
        slow = input.device.type == "cpu" and input.ndim == 5 and input.requires_grad
        if not slow or not input.is_contiguous(memory_format=torch.channels_last_3d):
            return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        y = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return y.contiguous(memory_format=torch.channels_last_3d)


def instance_norm(x: torch.Tensor) -> torch.Tensor:
    """Apply an instance norm without parameters to ``(B, C, ...)``."""
    if x.device.type != "cpu" or torch.jit.is_tracing():
        return F.instance_norm(x)
    # 1.5 ms instead of 8.1 ms for 8 channels of 80^3 voxels; its gradient is slow for tensors in channels-last order
    return F.group_norm(x.contiguous(), x.shape[1])


def upsampled(x: torch.Tensor) -> torch.Tensor:
    """Return ``(B, C, ...)`` at twice the resolution, interpolated linearly with aligned corners."""
    if x.device.type != "cpu" or torch.jit.is_tracing():
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return F.interpolate(x, scale_factor=2, mode=mode, align_corners=True)
    # a matrix product for each axis: 21 ms instead of 39 ms for 16 channels of 80^3 voxels
    x = F.linear(x, _interpolation(x.shape[-1]).to(x))
    for axis in range(x.ndim - 2, 1, -1):
        shape = [*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]]
        x = torch.matmul(_interpolation(x.shape[axis]).to(x), x.flatten(axis + 1)).reshape(shape)
    return x


def weighted_sum(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return S weighted sums over modalities: weights ``(B, S, M)``, x ``(B, M, C, ...)`` -> ``(B, S, C, ...)``."""
    weights, flat = weights.to(x), x.flatten(2)
    # in float32 one row at a time: a row takes 3.6 ms and four together 39 ms, for 8 channels of 80^3 voxels
    rows = weights.split(1, dim=1) if x.device.type == "cpu" and x.dtype == torch.float32 else [weights]
    sums = [torch.bmm(row, flat) for row in rows]
    y = sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)
    return y.reshape(x.shape[0], weights.shape[1], *x.shape[2:])


def _interpolation(extent: int) -> torch.Tensor:
    """Return the matrix ``(2 * extent, extent)`` of linear interpolation with aligned corners."""
    positions = torch.linspace(0, extent - 1, 2 * extent)[:, None]
    return (1 - (positions - torch.arange(extent)).abs()).clamp(min=0)
