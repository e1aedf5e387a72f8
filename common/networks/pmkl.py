"""PMKL: a multimodal teacher, and for each incomplete set of modalities a student that learns from it.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021; networks as
released. The release has students of single modalities; those of two and three (their input: the set's channels) are
how MedMAP (Liu et al.) reports it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.blocks import FeatureEncoder
from common.networks.dedicated import FullAndMissing, Subset
from common.networks.gated import ContentEncoder, Decoder, GatedNetwork, GatedOutput, linear

POOL = 40
"""Edge of the average pooling in voxels; an axis that is shorter is pooled as a whole."""
HIDDEN, EMBEDDED = 32, 16
"""Sizes of a metric head's two layers; they do not grow with the width."""


class Student(nn.Module):
    """One encoder over all channels of a set, and a decoder of the teacher's form.

    A single channel is replicated M times, as released.

    Args:
        channels: |S|, modalities of the set.
        modalities: M, of the teacher.
        classes: K.
        width: channels at full resolution.
        feature_encoder: the teacher's, of which each student has its own; see `FeatureEncoder`.
    """

    def __init__(self, channels: int, modalities: int, classes: int, width: int, feature_encoder: str | None) -> None:
        super().__init__()
        # one set of weights has M channels whatever the set, separate ones are as many as the set's modalities
        of = modalities if feature_encoder == "shared" else channels
        self.feature_encoder = FeatureEncoder(of, 3, feature_encoder)
        taken = channels * self.feature_encoder.channels
        self.copies = modalities if taken == 1 else 1
        self.encoder = ContentEncoder(taken * self.copies, width)
        self.decoder = Decoder(classes, width)

    def forward(self, image: torch.Tensor) -> torch.Tensor | GatedOutput:
        """Return logits ``(B, K, X, Y, Z)`` of ``(B, |S|, X, Y, Z)``; in training mode a `GatedOutput`."""
        there = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        x = self.feature_encoder(image, there).flatten(1, 2)
        output = self.decoder(self.encoder(x.repeat(1, self.copies, 1, 1, 1)))
        return output if self.training else output.logits


class MetricHead(nn.Module):
    """Turn a decoder's features into a unit vector; used in training only.

    Average pooling, two linear layers without bias and a ReLU between. As released (``stride`` 1) an 80^3 crop has 41^3
    pooled positions and the head 35 M weights; 40 has the same receptive fields at 2^3 positions.

    Args:
        width: channels of the features.
        crop: their size in voxels.
        stride: of the pooling.
    """

    def __init__(self, width: int, crop: Sequence[int], stride: int) -> None:
        super().__init__()
        edges = [min(POOL, extent) for extent in crop]
        positions = [(extent - edge) // stride + 1 for extent, edge in zip(crop, edges, strict=True)]
        # one axis after the other: the mean over a box is that of its rows' means, at a small part of the work
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
    """The teacher, a `GatedNetwork` for all modalities, and a `Student` for each incomplete set.

    Args:
        modalities: M.
        classes: K, background included.
        width: channels at full resolution.
        feature_encoder: of MedMAP, in front of the teacher's encoders and of each student's: shared, separate or None.
        subsets: channels of the sets to have students for; None: all 2^M - 2. As released: the single ones.
    """

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


def _along(axis: int, extent: int) -> tuple[int, ...]:
    return tuple(extent if a == axis else 1 for a in range(3))
