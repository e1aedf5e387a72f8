"""Sliding windows that are encoded once and decoded for each subset of the modalities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.inferers.utils import _get_scan_interval  # windows must lie where sliding_window_inference puts them
from monai.utils import ensure_tuple_rep, fall_back_tuple
from torch import nn

from common.modalities import presence


def decode_subsets(
    image: torch.Tensor,
    network: nn.Module,
    keep: torch.Tensor,
    inferer: SlidingWindowInferer,
    subsets_at_once: int = 1,
) -> Iterator[torch.Tensor]:
    """Yield what sliding windows give for each subset, with one encoding of each window for all subsets.

    The windows are the outer loop. Logits that no later window reaches are moved to temporary files: of the subsets
    together, memory holds one window's depth along X, and of one subset at a time the whole when it is yielded.

    Args:
        image: one sample ``(1, M, X, Y, Z)``, missing modalities being NaN.
        network: with ``encode(windows, present)``, which returns a list of tensors ``(N, ...)``, and
            ``decode(features, present)``, which returns logits ``(N, C, ...)`` and heeds only the present ones.
        keep: bool ``(S, M)``, a row per subset of the image's modalities.
        inferer: its windows, overlap, weighting and ``sw_batch_size`` are used.
        subsets_at_once: how many subsets are decoded in one batch.

    Yields:
        Logits ``(1, C, X, Y, Z)``, in the order of ``keep``, on the CPU. With one subset at once they equal those of
        MONAI's `SlidingWindowInferer` on that subset bit for bit.
    """
    window = fall_back_tuple(inferer.roi_size, image.shape[2:])
    padded, inner = _pad(image, window)
    size = padded.shape[2:]
    interval = _get_scan_interval(size, window, len(size), ensure_tuple_rep(inferer.overlap, len(size)))
    slices = dense_patch_slices(size, window, interval)
    weight = compute_importance_map(window, inferer.mode, inferer.sigma_scale, image.device, image.dtype)
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile()) for _ in keep]
        sums = _Sums(size, slices, weight, files)
        for start in range(0, len(slices), inferer.sw_batch_size):
            chunk = slices[start : start + inferer.sw_batch_size]
            sums.advance(chunk)
            windows = torch.cat([padded[(..., *place)] for place in chunk])
            features = network.encode(windows, presence(image).expand(len(chunk), -1))
            for first in range(0, len(keep), subsets_at_once):
                some = keep[first : first + subsets_at_once]
                repeated = features if len(some) == 1 else [torch.cat([level] * len(some)) for level in features]
                logits = network.decode(repeated, some.repeat_interleave(len(chunk), dim=0))
                for offset, part in enumerate(logits.split(len(chunk))):
                    sums.add(first + offset, part, chunk)
        sums.flush()
        for file in files:
            file.seek(0)
            values = np.fromfile(file, np.float32).reshape(size[0], -1, *size[1:])
            yield torch.from_numpy(values).transpose(0, 1)[None][inner].contiguous()


class _Sums:
    """Weighted sums of overlapping windows for S subsets, and the files that finished planes along X are moved to."""

    def __init__(self, size: Sequence[int], slices: Sequence, weight: torch.Tensor, files: Sequence) -> None:
        self.size, self.weight, self.files = size, weight, files
        self.counts = weight.new_zeros(tuple(size))
        for place in slices:
            self.counts[place] += weight
        self.first = self.end = 0
        self.values: torch.Tensor | None = None

    def advance(self, chunk: Sequence) -> None:
        """Write the planes that lie before the windows to come; these come in the order of their position on X."""
        self.flush(chunk[0][0].start)
        self.end = max(place[0].stop for place in chunk)

    def add(self, subset: int, logits: torch.Tensor, chunk: Sequence) -> None:
        if self.values is None:
            self.values = logits.new_zeros((len(self.files), logits.shape[1], 0, *self.size[1:]), dtype=torch.float32)
        if (more := self.end - self.first - self.values.shape[2]) > 0:
            self.values = F.pad(self.values, [0, 0, 0, 0, 0, more])
        logits *= self.weight
        for (x, y, z), part in zip(chunk, logits, strict=True):
            self.values[subset, :, x.start - self.first : x.stop - self.first, y, z] += part

    def flush(self, stop: int | None = None) -> None:
        stop = self.size[0] if stop is None else stop
        if self.values is None or stop == self.first:
            return
        done = self.values[:, :, : stop - self.first] / self.counts[self.first : stop]
        for file, planes in zip(self.files, done, strict=True):
            file.write(planes.transpose(0, 1).contiguous().cpu().numpy().tobytes())
        self.values, self.first = self.values[:, :, stop - self.first :].clone(), stop


def _pad(image: torch.Tensor, window: Sequence[int]) -> tuple[torch.Tensor, tuple]:
    """Pad an image to a window's size, as MONAI does, and return the index of the image in it."""
    lacking = [max(w - n, 0) for w, n in zip(window, image.shape[2:], strict=True)]
    widths = [side for n in reversed(lacking) for side in (n // 2, n - n // 2)]
    inner = [slice(n // 2, n // 2 + extent) for n, extent in zip(lacking, image.shape[2:], strict=True)]
    return F.pad(image, widths), (..., *inner)
