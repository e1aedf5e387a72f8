"""MAG-MS's training step: all of a subject's modalities together, and each one alone, through one decoder.

Source: He et al., 2023, sections 2.2 and 2.3, Algorithm 1. The loss is in `common.losses.mag_ms`.
"""

import torch

from common.losses.mag_ms import MagMSOutput
from common.methods.step import TrainingStep
from common.networks.mag_ms import MAGMS
from common.networks.subsets import available_modalities, gather_rows


class MultiModalitySelfDistillation(TrainingStep):
    """Decode each subject's modalities fused (the teacher), and each of them alone (the students)."""

    network: MAGMS

    def forward(self, image: torch.Tensor) -> MagMSOutput:
        """Return the outputs of teacher and students for crops ``(B, M, ...)``."""
        present = available_modalities(image, None)
        features = self.network.encode(image, present)
        # (P, 1, C, ...): no student needs the others' features
        alone = [gather_rows(level, present)[:, None] for level in features]
        students = self.network.decode(alone, present.new_ones(len(alone[0]), 1))
        return MagMSOutput(self.network.decode(features, present), students, present)
