"""PMKL: a multimodal teacher, and a student that learns from it for each incomplete subset of modalities.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021; networks as
released. The release has only students of single modalities. Students of two and three modalities, whose input is the
subset's channels, follow MedMAP (Liu et al.), which reports such results.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.dedicated import FullAndMissing, Subset
from common.networks.feature_encoder import FeatureEncoder
from common.networks.gated import ContentEncoder, Decoder, GatedNetwork, GatedOutput, linear

POOL = 40  # edge of the average pooling window in voxels; a shorter axis is pooled as a whole
HIDDEN, EMBEDDED = 32, 16  # output sizes of a metric head's two layers, independent of the width


class Student(nn.Module):
    """One encoder for all ``channels`` |S| of a subset, and a decoder built like the teacher's for its M modalities.

    A single channel is replicated M times, as in the release. Each student has its own feature encoder, of the
    teacher's kind.
    """

    def __init__(self, channels: int, modalities: int, classes: int, width: int, feature_encoder: str | None) -> None:
        super().__init__()
        # A shared encoder gives M channels whatever the subset; separate ones are as many as the subset's modalities.
        of = modalities if feature_encoder == "shared" else channels
        self.feature_encoder = FeatureEncoder(of, 3, feature_encoder)
        taken = channels * self.feature_encoder.channels
        self.copies = modalities if taken == 1 else 1
        self.encoder = ContentEncoder(taken * self.copies, width)
        self.decoder = Decoder(classes, width)

    def forward(self, image: torch.Tensor) -> torch.Tensor | GatedOutput:
        """Return logits ``(B, K, X, Y, Z)`` of ``(B, |S|, X, Y, Z)``; in training mode, a `GatedOutput`."""
        present = torch.ones(image.shape[:2], dtype=torch.bool)  # on the CPU
        x = self.feature_encoder(image, present).flatten(1, 2)
        output = self.decoder(self.encoder(x.repeat(1, self.copies, 1, 1, 1)))
        return output if self.training else output.logits


class MetricHead(nn.Module):
    """Turn a decoder's features into a unit vector; used only in training.

    The layers are average pooling, a linear layer, ReLU and a linear layer, both without bias. As released (``stride``
    1 of the pooling, in voxels), an 80^3 crop has 41^3 pooled positions and the head 35 M weights; a stride of 40 gives
    2^3 positions with receptive fields of the same size.
    """

    def __init__(self, width: int, crop: Sequence[int], stride: int) -> None:
        super().__init__()
        edges = [min(POOL, extent) for extent in crop]
        positions = [(extent - edge) // stride + 1 for extent, edge in zip(crop, edges, strict=True)]
        # Pool one axis after the other: the result is the same as with a box, at a small part of the cost.
        self.pools = nn.Sequential(
            *[nn.AvgPool3d(_along(axis, edge), _along(axis, stride)) for axis, edge in enumerate(edges)]
        )
        self.hidden = linear(width * positions[0] * positions[1] * positions[2], HIDDEN, bias=False)
        self.embedding = linear(HIDDEN, EMBEDDED, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(B, width, X, Y, Z)`` to ``(B, 16)``."""
        pooled = self.pools(features).movedim(1, -1).flatten(1)  # channels last, as in the release
        return F.normalize(self.embedding(F.relu(self.hidden(pooled))).float())


class PMKL(FullAndMissing):
    """A teacher, which is a `GatedNetwork` for all modalities, and a `Student` for each incomplete subset.

    The ``subsets``, as channels, are those that get a student; None: all (14 for four modalities). The release has
    those of one modality.

    Examples:
        >>> import torch
        >>> from common.networks.pmkl import PMKL
        >>> network = PMKL(modalities=2, classes=3, width=4, subsets=[(0,), (1,)]).eval()  # two students
        >>> image = torch.randn(2, 2, 16, 16, 16)
        >>> image[1, 0] = torch.nan  # the second subject lacks the first modality, so its student segments it
        >>> network(image).shape
        torch.Size([2, 3, 16, 16, 16])
    """

    full: GatedNetwork

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        width: int = 16,
        feature_encoder: str | None = None,
        subsets: Sequence[Subset] | None = None,
    ) -> None:
        super().__init__(
            modalities,
            GatedNetwork(modalities, classes, width, feature_encoder),
            lambda channels: Student(channels, modalities, classes, width, feature_encoder),
            FeatureEncoder(modalities, 3, None),
            subsets,
        )


def _along(axis: int, extent: int) -> tuple[int, int, int]:
    return extent if axis == 0 else 1, extent if axis == 1 else 1, extent if axis == 2 else 1
