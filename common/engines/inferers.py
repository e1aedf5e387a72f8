"""Sliding-window inference with any subset of the modalities."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import generate_spatial_bounding_box
from monai.utils import ensure_tuple, fall_back_tuple

from common.engines.precision import DTYPES, autocast, to_float32
from common.engines.windows import check_mirror_axes, mirrored, planewise
from common.io.settings import check_choice
from common.modalities import foreground, presence, require_modality
from common.networks import Ensemble

OUTSIDE_LOGIT = -1e4
"""Logit outside the foreground: of every channel for sigmoids, of all channels but the background for a softmax."""


class ForegroundInferer(SlidingWindowInferer):
    """MONAI's sliding windows over the bounding box of the foreground; outside the box nothing is predicted.

    The box contains every voxel at which a present modality differs from its background, with a margin of one voxel. So
    a skull-stripped image has the same box whether its background is 0 or negative, as after a z-score. Absent and
    constant modalities are ignored. A box smaller than the window grows to its size where the image is large enough.

    Args:
        roi_size: size of a window in voxels, which should be the training crop; ``(X, Y)`` processes planes ``(X, Y,
            1)`` with a 2D network (see `Planewise`).
        args: further arguments of `SlidingWindowInferer`, like ``kwargs``.
        softmax: True if the logits are for a softmax whose channel 0 is the background; False if for sigmoids.
        precision: precision of the network, see `check_device`; logits are summed in float32.
        mirror_axes: axes along which windows are also mirrored, see `Mirrored`; none by default.

    Examples:
        >>> import torch
        >>> from common.engines.inferers import ForegroundInferer
        >>> image = torch.zeros(1, 2, 24, 24, 24)
        >>> image[:, 0, 8:16, 8:16, 8:16] = 1  # the brain
        >>> image[:, 1] = torch.nan  # the second modality is missing
        >>> inferer = ForegroundInferer(roi_size=(8, 8, 8))
        >>> image[inferer.box(image)].shape  # with a margin of one voxel
        torch.Size([1, 2, 10, 10, 10])
        >>> logits = inferer(image, torch.nan_to_num)  # a function in place of a network
        >>> logits.shape, logits[0, 0, 12, 12, 12], logits[0, 0, 0, 0, 0]
        (torch.Size([1, 2, 24, 24, 24]), tensor(1.), tensor(-10000.))
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        *args: Any,
        softmax: bool = False,
        precision: str = "float32",
        mirror_axes: Sequence[int] | int = (),
        **kwargs: Any,
    ) -> None:
        size = (*roi_size, 1) if isinstance(roi_size, Sequence) and len(roi_size) == 2 else roi_size
        super().__init__(size, *args, **kwargs)
        if any(not 0 <= part < 1 for part in ensure_tuple(self.overlap)):
            raise ValueError(f"overlap {self.overlap}: expected at least 0 and less than 1, the fraction of a window.")
        self.softmax, self.precision = softmax, check_choice("precision", precision, tuple(DTYPES))
        self.mirror_axes = check_mirror_axes(mirror_axes, self.roi_size)

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return logits ``(B, C, X, Y, Z)`` of images ``(B, M, X, Y, Z)`` with NaN in missing modalities."""
        if isinstance(network, Ensemble):
            return torch.stack([self(inputs, member, *args, **kwargs) for member in network.members]).mean(dim=0)
        require_modality(presence(inputs))
        box = self.box(inputs)
        image = self.fill_missing(inputs, network).as_subclass(torch.Tensor)[box]
        model = planewise(mirrored(network, self.mirror_axes), self.window(inputs))
        with autocast(self.precision, image.device):
            logits: Any = super().__call__(
                image, lambda *given, **named: to_float32(model(*given, **named)), *args, **kwargs
            )
        return paste_box(logits, box, inputs.shape[2:], self.softmax)

    def box(self, inputs: torch.Tensor) -> tuple:
        """Return the index of the box of ``(B, M, X, Y, Z)`` in which windows lie."""
        inside = foreground(inputs.as_subclass(torch.Tensor)).flatten(0, 1)
        # With allow_smaller the margin stays within the image.
        low, high = generate_spatial_bounding_box(inside, margin=1, allow_smaller=True)
        ranges = zip(low, high, self.window(inputs), inputs.shape[2:], strict=True)
        return (..., *(_grown_range(*axis) for axis in ranges))

    def window(self, inputs: torch.Tensor) -> tuple[int, ...]:
        """Return the size in voxels of a window for an image ``(B, M, X, Y, Z)``."""
        return fall_back_tuple(self.roi_size, inputs.shape[2:])

    def fill_missing(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """Return the image that windows are cut from; here it is unchanged, with its NaN channels."""
        return inputs


def paste_box(logits: torch.Tensor, box: tuple, shape: Sequence[int], softmax: bool = False) -> torch.Tensor:
    """Paste the logits of a box into the logits ``(B, C, *shape)`` of the whole image.

    Outside the box they are `OUTSIDE_LOGIT`, except that with ``softmax`` those of channel 0, the background, are 0.
    """
    full = logits.new_full((*logits.shape[:2], *shape), OUTSIDE_LOGIT)
    if softmax:
        full[:, 0] = 0
    full[box] = logits
    return full


def _grown_range(low: int, high: int, window: int, extent: int) -> slice:
    """Grow a range to the window's size where the image allows it, so that real voxels and not padding surround it."""
    size = min(max(high - low, window), extent)
    start = min(max(low - (size - (high - low)) // 2, 0), extent - size)
    return slice(start, start + size)


class SubstituteInferer(ForegroundInferer):
    """Inferer for M3AE, which first fills missing modalities with ``network.x_sub`` at the same location."""

    def fill_missing(self, inputs: torch.Tensor, network: Any) -> torch.Tensor:
        """Return the image ``(B, M, X, Y, Z)`` without NaN."""
        return network.substitute(inputs, presence(inputs))
