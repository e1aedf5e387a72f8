"""MedMAP's feature encoder, which other networks have in front of their own encoders.

Source: Liu et al., "MedMAP: Promoting Incomplete Multi-modal Brain Tumor Segmentation with Alignment", section IV; the
paper gives only the numbers of channels.
"""

import torch
from torch import nn

from common.io.settings import check_choice
from common.networks.kernels import Conv3d
from common.networks.subsets import scatter_modalities, select_rows


class FeatureEncoder(nn.Module):
    """MedMAP's encoder, which maps each modality by a 3x3x3 convolution into a space where all can be aligned.

    Its kind is ``shared`` (T*), one set of weights for all M modalities, 1 -> M channels, so as many weights
    as ``separate`` has in all; ``separate`` (T), one for each, 1 -> 1; or None, which leaves the image unchanged.
    Attribute ``channels`` is the number of output channels C of each modality.
    """

    def __init__(self, modalities: int, dims: int, kind: str | None) -> None:
        super().__init__()
        if kind is not None:
            check_choice("feature_encoder", kind, ("shared", "separate"))
        self.kind, self.channels = kind, modalities if kind == "shared" else 1
        layer, count = nn.Conv2d if dims == 2 else Conv3d, {"shared": 1, "separate": modalities, None: 0}[kind]
        self.layers = nn.ModuleList([layer(1, self.channels, 3, padding=1) for _ in range(count)])

    def forward(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Map ``(B, M, ...)`` to ``(B, M, C, ...)``, zero where a modality is absent; with ``kind`` None NaN stays."""
        image = image.as_subclass(torch.Tensor)
        if self.kind is None:
            return image[:, :, None]
        parts = [
            self.layers[m % len(self.layers)](select_rows(image[:, m], rows)[:, None]) if bool(rows.any()) else None
            for m, rows in enumerate(present.T)
        ]
        return scatter_modalities(parts, present)
