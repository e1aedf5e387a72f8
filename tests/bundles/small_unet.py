"""A small backbone of one's own, with all that PASSION and GSS need."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from common.networks import Decoded
from common.networks.blocks import Encoder, Encoders
from common.networks.checks import check_crop
from common.networks.fusion import FusionNetwork
from common.networks.subsets import available_modalities, gather_rows, scatter_modalities


class SmallUNet(FusionNetwork):
    """A U-Net of two levels per modality; one decoder takes their mean over present modalities, or a single one."""

    def __init__(self, modalities: int, classes: int, width: int, crop: Sequence[int]) -> None:
        super().__init__()
        check_crop(crop, multiple=2, least=8)
        self.encoders = Encoders(Encoder(len(crop), width, levels=2) for _ in range(modalities))
        self.merge = nn.Conv3d(3 * width, width, 3, padding=1)
        self.head, self.deep_head = nn.Conv3d(width, classes, 1), nn.Conv3d(2 * width, classes, 1)

    def encode(self, image: torch.Tensor, present: torch.Tensor | None = None) -> list[torch.Tensor]:
        image, present = image.as_subclass(torch.Tensor), available_modalities(image, present)
        return [scatter_modalities(level, present) for level in self.encoders(image[:, :, None], present)]

    def decode(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor | Decoded:
        present = present.to(features[0].device)
        share = present / present.sum(dim=1, keepdim=True)
        return self._decoded(*(torch.einsum("bm,bm...->b...", share, level) for level in features))

    def decode_separately(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        decoded = self._decoded(*(gather_rows(level, present) for level in features))
        return decoded.logits if self.training else decoded

    def _decoded(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor | Decoded:
        raised = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=True)
        y = F.relu(self.merge(torch.cat([fine, raised], dim=1)))
        logits = self.head(y)
        return Decoded(logits, [self.deep_head(coarse)], y) if self.training else logits
