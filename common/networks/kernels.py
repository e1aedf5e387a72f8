"""Layers and operations that give PyTorch's results where its own are wrong or slow on a CPU.

On a GPU and in exports they are PyTorch's own. Times are those of a forward pass in float32 on one core (AMD Zen 5).
"""

import torch
import torch.nn.functional as F
from torch import nn

MKLDNN_FROM = 20480
"""With one thread, PyTorch leaves the convolution of a single image to oneDNN only if ``C * X * Y`` exceeds this."""


class Conv3d(nn.Conv3d):
    """A 3D convolution ``(B, C, X, Y, Z)`` that is right in bfloat16, and fast for a single small image, on every CPU.

    For the weights' gradient in bfloat16, oneDNN (of PyTorch 2.13, without AMX) reads beyond an image that has two
    voxels along a padded first axis, so that the gradient is arbitrary. Such an image is padded before the convolution.
    PyTorch convolves a single small image in float32 by a kernel of its own, which takes about six times as long as
    oneDNN's. Such an image is split in two along the first axis, with the overlap that the kernel requires.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, X, Y, Z)``."""
        if not torch.jit.is_scripting():  # TorchScript compiles the rest
            if self._is_misread(input):
                z, _, y, _, x, _ = self._reversed_padding_repeated_twice
                input = F.pad(input, (0, 0, 0, 0, x, x))
                return F.conv3d(input, self.weight, self.bias, self.stride, (0, y, z), self.dilation, self.groups)
            if self._is_slow(input):
                return self._in_halves(input)
        return self._conv_forward(input, self.weight, self.bias)

    @torch.jit.unused
    def _is_misread(self, x: torch.Tensor) -> bool:
        half = x.device.type == "cpu" and (x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu"))
        return half and self._pads_zeros() and x.shape[2] == 2 and not torch.jit.is_tracing()

    @torch.jit.unused
    def _is_slow(self, x: torch.Tensor) -> bool:
        single = x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[0] == 1
        if (
            not single
            or x.shape[:4].numel() > MKLDNN_FROM
            or torch.is_autocast_enabled("cpu")
            or torch.jit.is_tracing()
        ):
            return False
        dense = self.stride == self.dilation == (1, 1, 1) and self.kernel_size != (1, 1, 1) and self.groups == 1
        return dense and self._pads_zeros() and torch.get_num_threads() == 1

    @torch.jit.unused
    def _pads_zeros(self) -> bool:
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)

    @torch.jit.unused
    def _in_halves(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, self._reversed_padding_repeated_twice)
        beyond = self.kernel_size[0] - 1
        extent = x.shape[2] - beyond
        half = -(-extent // 2)
        parts = torch.cat([x[:, :, : half + beyond], x[:, :, extent - half :]])
        first, second = F.conv3d(parts, self.weight, self.bias).split(1)
        return torch.cat([first, second[:, :, 2 * half - extent :]], dim=2)


def replace_convolutions(network: nn.Module) -> nn.Module:
    """Put a `Conv3d` with the same parameters in the place of every `nn.Conv3d` of a network, and return the network.

    Subclasses, and layers whose weight is computed from others, are left alone. With PyTorch's own layers, the losses
    of MAG-MS and of MONAI's SegResNet become NaN in bfloat16 on a CPU with AVX512-BF16 but no AMX.
    """
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if type(layer) is nn.Conv3d and isinstance(layer.weight, nn.Parameter):
            same = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
            settings = {name: getattr(layer, name) for name in same} | {"bias": layer.bias is not None}
            # On the device "meta" no random weights are drawn.
            replaced = Conv3d(layer.in_channels, layer.out_channels, **settings, device="meta")
            replaced.weight, replaced.bias = layer.weight, layer.bias
            network.set_submodule(name, replaced)
    return network


class GroupNorm(nn.GroupNorm):
    """A group norm of ``(B, C, X, Y, Z)`` whose gradient on a CPU is not slow for tensors in channels-last order.

    With PyTorch's, a step of M3AE in bfloat16 takes 1.6 times as long, and one of its pretraining 1.8 times (phantom,
    one core of a Xeon with AMX). So a tensor that needs a gradient is normalised in the usual order.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, X, Y, Z)``, and keep the order of the values in memory."""
        slow = input.device.type == "cpu" and input.ndim == 5 and input.requires_grad
        if not slow or not input.is_contiguous(memory_format=torch.channels_last_3d):
            return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        y = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return y.contiguous(memory_format=torch.channels_last_3d)


def instance_norm(x: torch.Tensor) -> torch.Tensor:
    """Apply an instance norm without parameters to ``(B, C, ...)``; 1.5 ms instead of 8.1 for 8 channels of 80^3."""
    if _is_pytorchs(x):
        return F.instance_norm(x)
    return F.group_norm(x.contiguous(), x.shape[1])  # its gradient is slow for tensors in channels-last order


def upsampled(x: torch.Tensor) -> torch.Tensor:
    """Return ``(B, C, ...)`` at twice the resolution, interpolated linearly with aligned corners.

    It is a matrix product for each axis, which takes 21 ms instead of 39 for 16 channels of 80^3 voxels.
    """
    if _is_pytorchs(x):
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return F.interpolate(x, scale_factor=2, mode=mode, align_corners=True)
    x = F.linear(x, _interpolation(x.shape[-1]).to(x))
    for axis in range(x.ndim - 2, 1, -1):
        shape = [*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]]
        x = torch.matmul(_interpolation(x.shape[axis]).to(x), x.flatten(axis + 1)).reshape(shape)
    return x


def weighted_sum(weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return S weighted sums over modalities: weights ``(B, S, M)``, x ``(B, M, C, ...)`` -> ``(B, S, C, ...)``.

    In float32 on a CPU it takes one row at a time: 3.6 ms each, four together 39, for 8 channels of 80^3 voxels.
    """
    weights, flat = weights.to(x), x.flatten(2)
    rows = weights.split(1, dim=1) if x.device.type == "cpu" and x.dtype == torch.float32 else [weights]
    y = torch.cat([torch.bmm(row, flat) for row in rows], dim=1)
    return y.reshape(x.shape[0], weights.shape[1], *x.shape[2:])


def _is_pytorchs(x: torch.Tensor) -> bool:
    """Return whether PyTorch's own operation is used: on a GPU, in exports, and in bfloat16, whose rounding differs."""
    return x.device.type != "cpu" or x.dtype != torch.float32 or torch.jit.is_tracing()


def _interpolation(extent: int) -> torch.Tensor:
    """Return the matrix ``(2 * extent, extent)`` of linear interpolation with aligned corners."""
    positions = torch.linspace(0, extent - 1, 2 * extent)[:, None]
    return (1 - (positions - torch.arange(extent)).abs()).clamp(min=0)
