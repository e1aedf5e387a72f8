"""M3AE: one U-Net, and one learned image that stands in for whatever is missing.

Source: Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities",
AAAI 2023, eq. (1) and (3). The released code looks up the substitute image relative to the foreground box at
inference; we use the location in the cohort's grid in both training and inference, as the paper says.
"""

from collections.abc import Sequence
from typing import Optional, Union

import torch
from torch import nn

from common.modalities import presence, require_modality, to_host
from common.networks.residual_unet import ResidualUNet, SegmentationOutput
from common.transforms.location import crop_at, locate


class M3AE(nn.Module):
    """A `ResidualUNet` on the image with its missing content replaced by ``x_sub``.

    ``out_channels`` is the number of regions (segmentation), or M (reconstruction); ``grid`` the size in voxels of the
    cohort's whole image grid, in RAS axes and at the training spacing; the others are those of `ResidualUNet`.

    Attributes:
        x_sub: the substitute image ``(1, M, *grid)`` of normalised intensities, initialised with Gaussian noise.

    Examples:
        >>> import torch
        >>> from common.networks import M3AE
        >>> network = M3AE(modalities=2, out_channels=3, width=8, grid=(24, 24, 16)).eval()
        >>> network.x_sub.shape
        torch.Size([1, 2, 24, 24, 16])
        >>> image = torch.rand(1, 2, 16, 16, 16)
        >>> image[:, 1] = torch.nan  # the second modality is missing: x_sub is used instead
        >>> network(image).shape  # logits of the regions, each with its own sigmoid
        torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(
        self,
        modalities: int = 4,
        out_channels: int = 3,
        width: int = 16,
        grid: Sequence[int] = (240, 240, 155),
        deep_supervision: bool = True,
        upsample_deep: bool = True,
    ) -> None:
        super().__init__()
        self.unet = ResidualUNet(modalities, out_channels, width, deep_supervision, upsample_deep)
        self.x_sub = nn.Parameter(torch.randn(1, modalities, *grid))

    def forward(
        self,
        image: torch.Tensor,
        present: Optional[torch.Tensor] = None,  # noqa: UP045 (TorchScript)
    ) -> Union[torch.Tensor, SegmentationOutput]:  # noqa: UP007 (TorchScript)
        """Return logits ``(B, C, X, Y, Z)``, filling missing modalities (NaN) from the centre of ``x_sub``.

        In training mode it is a `SegmentationOutput`. Intensities are normalised to [0, 1]; X, Y, Z are multiples of 8.
        """
        there = to_host(presence(image))
        if present is not None:
            there = there & present.cpu()
        require_modality(there)
        size = [image.shape[2], image.shape[3], image.shape[4]]
        start = [(self.x_sub.shape[axis + 2] - size[axis] + 1) // 2 for axis in range(3)]
        centre = crop_at(self.x_sub, size, start, [False, False, False])
        there = there.to(image.device, non_blocking=True)
        return self.unet(torch.where(there[:, :, None, None, None], image, centre))

    @torch.jit.unused
    def substitute(self, image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return S(x, x_sub): the image, with what is not visible replaced by ``x_sub`` at the same location.

        The location of the image ``(B, M, X, Y, Z)`` is read from its affine if it is a MetaTensor (else it is
        centred). ``visible`` is bool ``(B, M)``, or ``(B, M, X, Y, Z)`` where patches are masked.
        """
        size = list(image.shape[2:])
        start, flipped = locate(image, list(self.x_sub.shape[2:]))
        crops = [crop_at(self.x_sub, size, s, f) for s, f in zip(start.tolist(), flipped.tolist(), strict=True)]
        image = image.as_subclass(torch.Tensor)
        visible = visible.to(image.device)
        if visible.ndim == 2:
            visible = visible[:, :, None, None, None]
        return torch.where(visible, image, torch.cat(crops))
