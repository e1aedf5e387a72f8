"""Sliding windows that are encoded once and decoded for each modality subset."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.utils import PytorchPadMode, ensure_tuple, ensure_tuple_rep, fall_back_tuple, look_up_option
from torch import nn

from common.modalities import presence, to_host


class Planewise(nn.Module):
    """Apply a 2D network ``(N, C, X, Y)`` to volumes of one plane ``(N, C, X, Y, 1)``.

    It is like MONAI's `SliceInferer`, but also has ``encode`` and ``decode``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image[..., 0])[..., None]

    def encode(self, image: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        return self.network.encode(image[..., 0], present)

    def decode(self, features: list[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        return self.network.decode(features, present)[..., None]


def planewise(network: nn.Module, window: Sequence[int]) -> nn.Module:
    """Return `Planewise` of a network if windows of this size are one voxel thick, else the network itself."""
    return Planewise(network) if len(window) == 3 and window[-1] == 1 else network


class Mirrored(nn.Module):
    """Average a network's logits over all flips of its input along some axes, including none (test-time augmentation).

    Axis 0 is X. The computation takes ``2 ** len(axes)`` times as long. `encode` also returns that many times the
    features: those of one flip after those of another, all in memory at once.
    """

    def __init__(self, network: Any, axes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        dims = [2 + axis for axis in axes]
        self.flips = [flip for count in range(len(dims) + 1) for flip in combinations(dims, count)]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self._average([self.network(image.flip(flip)) for flip in self.flips])

    def encode(self, image: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
        return [level for flip in self.flips for level in self.network.encode(image.flip(flip), present)]

    def decode(self, features: list[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        levels = len(features) // len(self.flips)
        each = [features[start : start + levels] for start in range(0, len(features), levels)]
        return self._average([self.network.decode(some, present) for some in each])

    def _average(self, logits: list[torch.Tensor]) -> torch.Tensor:
        upright = [some.flip(flip).float() for some, flip in zip(logits, self.flips, strict=True)]
        return sum(upright, torch.zeros(())) / len(self.flips)


def check_mirror_axes(mirror_axes: Sequence[int] | int, window: Sequence[int] | int) -> tuple[int, ...]:
    """Return the axes along which windows are mirrored as a tuple, after checking that they exist and differ.

    Windows of a size ``(X, Y)`` or ``(X, Y, 1)`` have only the axes 0 and 1.
    """
    axes = ensure_tuple(mirror_axes)
    existing = list(range(2 if isinstance(window, Sequence) and (len(window) == 2 or window[-1] == 1) else 3))
    if not all(type(axis) is int and axis in existing for axis in axes) or len(set(axes)) < len(axes):
        raise ValueError(f"mirror_axes {list(axes)}: expected distinct axes from {existing}, e.g. [0].")
    return axes


def mirrored(network: nn.Module, axes: Sequence[int]) -> nn.Module:
    """Return `Mirrored` of a network, or the network itself if there are no axes."""
    return Mirrored(network, axes) if axes else network


def decode_subsets(
    image: torch.Tensor, network: Any, keep: torch.Tensor, inferer: SlidingWindowInferer, subsets_at_once: int = 1
) -> Iterator[torch.Tensor]:
    """Yield the sliding-window logits of each subset, encoding each window only once for all subsets.

    Yields logits ``(1, C, X, Y, Z)``, in the order of ``keep``, on the image's device. With ``subsets_at_once`` 1 they
    equal those of MONAI's `SlidingWindowInferer` for that subset bit for bit.

    The outer loop runs over windows, so the sums of all subsets' logits are in memory: 15 subsets of 3 or 4 channels of
    240 x 240 x 155 voxels take 1.6 or 2.1 GB, and those of the box of a brain of 140 x 170 x 140 voxels 0.6 or 0.8 GB.

    Args:
        image: one sample ``(1, M, X, Y, Z)``, with NaN in missing modalities.
        network: network with ``encode(windows, present)``, which returns a list of tensors ``(N, ...)``, and
            ``decode(features, present)``, which returns logits ``(N, C, ...)`` and uses only the modalities present;
            a 2D network if windows are one voxel thick.
        keep: bool ``(S, M)``, one row per subset of the image's modalities.
        inferer: inferer whose windows, overlap, weighting, padding and ``sw_batch_size`` are used.
        subsets_at_once: number of subsets decoded in one batch.
    """
    window = fall_back_tuple(inferer.roi_size, image.shape[2:])
    network = planewise(network, window)
    padded, inner = _pad(image, window, inferer)
    size = padded.shape[2:]
    overlaps = ensure_tuple_rep(inferer.overlap, len(size))
    steps = zip(size, window, overlaps, strict=True)  # windows lie where sliding_window_inference puts them
    interval = [width if width == extent else max(1, int(width * (1 - share))) for extent, width, share in steps]
    slices = dense_patch_slices(size, window, interval)
    weight = compute_importance_map(window, inferer.mode, inferer.sigma_scale, image.device, image.dtype)
    counts = torch.zeros(size, device=image.device)
    for window_slices in slices:
        counts[window_slices] += weight
    available = to_host(presence(image))
    sums: list[torch.Tensor] = []
    for start in range(0, len(slices), inferer.sw_batch_size):
        chunk = slices[start : start + inferer.sw_batch_size]
        windows = torch.cat([padded[:, :, *window_slices] for window_slices in chunk])
        features = network.encode(windows, available.expand(len(chunk), -1))
        for first in range(0, len(keep), subsets_at_once):
            rows = keep[first : first + subsets_at_once]
            repeated = features if len(rows) == 1 else [torch.cat([level] * len(rows)) for level in features]
            logits = network.decode(repeated, rows.repeat_interleave(len(chunk), dim=0)).float()
            logits *= weight
            if not sums:
                sums = list(logits.new_zeros(len(keep), logits.shape[1], *size))
            for total, parts in zip(sums[first:], logits.split(len(chunk)), strict=False):
                for window_slices, part in zip(chunk, parts, strict=True):
                    total[(slice(None), *window_slices)] += part
    for total in sums:
        yield (total / counts)[None][inner].contiguous()


def _pad(image: torch.Tensor, window: Sequence[int], inferer: SlidingWindowInferer) -> tuple[torch.Tensor, tuple]:
    """Pad an image to a window's size, as MONAI does; also return the index of the image within the padded one."""
    lacking = [max(w - n, 0) for w, n in zip(window, image.shape[2:], strict=True)]
    widths = [side for n in reversed(lacking) for side in (n // 2, n - n // 2)]
    inner = [slice(n // 2, n // 2 + extent) for n, extent in zip(lacking, image.shape[2:], strict=True)]
    if any(widths):
        mode = look_up_option(inferer.padding_mode, PytorchPadMode)
        image = F.pad(image, widths, mode, inferer.cval if mode == PytorchPadMode.CONSTANT else None)
    return image, (..., *inner)
