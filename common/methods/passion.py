"""PASSION's training step: the subject's own modalities teach each of them alone, in one network.

Source: Shi et al., "PASSION: Towards Effective Incomplete Multi-Modal Medical Image Segmentation with Imbalanced
Missing Rates", ACM MM 2024, section 3.2. The losses are in `common.losses.passion`, the balancing between epochs in
`common.engines.preference`; who lacks what in training is said by the datalist (`common.cohorts.missing`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from common.losses.passion import PassionOutput
from common.methods.step import TrainingStep
from common.networks.blocks import Decoded, FusionNetwork, available_modalities
from common.networks.build import require_fusion
from common.transforms import uniform_subsets


class SelfDistillation(TrainingStep):
    """Forward each subject with its modalities (the teacher) and with each of them alone (the students).

    Args:
        network: what is trained.
        drop_modalities: draw a non-empty subset of the subject's modalities each time, all alike, and use only these
            (the ModDrop baseline).
        perfect_data: all modalities of every subject are there and encoded; only the teacher's fusion is drawn a subset
            (PDT, the way of RFNet, mmFormer and M2FTrans).
        distil: gradients flow through the students; without, they are run to measure their distance to the teacher.

    Raises:
        ValueError: modalities are to be dropped from perfect data; the network does not fuse modalities.
    """

    def __init__(
        self,
        network: FusionNetwork,
        drop_modalities: bool = False,
        perfect_data: bool = False,
        distil: bool = True,
    ) -> None:
        super().__init__()
        if drop_modalities and perfect_data:
            raise ValueError("training moddrop: with perfect_data true nothing is dropped; set one of the two keys.")
        self.network = require_fusion(network, "Self-distillation")
        self.drop_modalities, self.perfect_data, self.distil = drop_modalities, perfect_data, distil

    def forward(self, image: torch.Tensor) -> PassionOutput:
        """Return what teacher, students and separate decoder say on crops ``(B, M, ...)``."""
        present = available_modalities(image, None)
        subset = uniform_subsets(present) if self.drop_modalities or self.perfect_data else present
        if self.drop_modalities:
            present = subset
        features = self.network.encode(image, present)
        separate = self.network.decode_separately(features, present)
        features = self.network.fused_features(features)
        sample, modality = present.nonzero(as_tuple=True)
        alone = F.one_hot(modality, present.shape[1]).bool()
        if self.distil:  # in one batch, which shares the work and the kernels' starts
            rows = torch.cat([torch.arange(len(image)), sample])
            both = self.network.decode(_select_samples(features, rows), torch.cat([subset, alone]))
            teacher, students = _split(both, len(image))
        else:
            teacher = self.network.decode(features, subset)
            with torch.no_grad():
                students = self.network.decode(_select_samples(features, sample), alone)
        return PassionOutput(teacher, students, separate, present)


def _select_samples(features: list[torch.Tensor], rows: torch.Tensor) -> list[torch.Tensor]:
    rows = rows.to(features[0].device, non_blocking=True)
    return [level.index_select(0, rows) for level in features]


def _split(decoded: Decoded, count: int) -> tuple[Decoded, Decoded]:
    """Return the first ``count`` rows, and the others."""
    parts = (slice(None, count), slice(count, None))
    first, others = (
        Decoded(decoded.logits[part], [level[part] for level in decoded.deep], decoded.features[part]) for part in parts
    )
    return first, others
