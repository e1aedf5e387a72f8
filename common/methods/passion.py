"""PASSION's training step: the prediction from a subject's modalities teaches that from each one alone.

Source: Shi et al., "PASSION: Towards Effective Incomplete Multi-Modal Medical Image Segmentation with Imbalanced
Missing Rates", ACM MM 2024, section 3.2. The losses are in `common.losses.passion`, the balancing between epochs in
`common.engines.preference`; the datalist says which training case lacks which modality (`common.cohorts.missing`).
"""

import torch
import torch.nn.functional as F

from common.losses.passion import PassionOutput
from common.methods.step import TrainingStep
from common.networks.build import require_fusion
from common.networks.fusion import Decoded, FusionNetwork
from common.networks.subsets import available_modalities
from common.transforms import uniform_subsets


class SelfDistillation(TrainingStep):
    """Forward each subject with all its modalities (the teacher) and with each of them alone (the students).

    Args:
        drop_modalities: whether to use only a random non-empty subset of the subject's modalities each time, all
            subsets equally likely (the ModDrop baseline).
        perfect_data: whether all modalities of every subject are present and encoded, and a random subset is drawn only
            for the teacher's fusion (PDT, as in RFNet, mmFormer and M2FTrans).
        distil: whether gradients flow through the students; if False, they only measure the distance to the teacher.
    """

    def __init__(
        self, network: FusionNetwork, drop_modalities: bool = False, perfect_data: bool = False, distil: bool = True
    ) -> None:
        super().__init__(require_fusion(network, "Self-distillation"))
        if drop_modalities and perfect_data:
            raise ValueError("training moddrop: with perfect_data true nothing is dropped; change one of the two keys.")
        self.drop_modalities, self.perfect_data, self.distil = drop_modalities, perfect_data, distil

    def forward(self, image: torch.Tensor) -> PassionOutput:
        """Return the outputs of teacher, students and separate decoder for crops ``(B, M, ...)``."""
        present = available_modalities(image, None)
        subset = uniform_subsets(present) if self.drop_modalities or self.perfect_data else present
        if self.drop_modalities:
            present = subset
        features = self.network.encode(image, present)
        separate = self.network.decode_separately(features, present)
        features = self.network.fused_features(features)
        sample, modality = present.nonzero(as_tuple=True)
        alone = F.one_hot(modality, present.shape[1]).bool()
        if self.distil:  # one batch, which shares work and kernel launches
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
    """Return the first ``count`` rows, and the remaining ones."""
    parts = (slice(None, count), slice(count, None))
    first, others = (
        Decoded(decoded.logits[part], [level[part] for level in decoded.deep], decoded.features[part]) for part in parts
    )
    return first, others
