"""PMKL's second stage: the students learn from the label and from the frozen multimodal teacher.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021. In the first
stage the teacher is trained alone (`common.methods.plain`). The losses are in `common.losses.pmkl`.
"""

import logging
import os
from collections.abc import Sequence
from typing import Self

import torch
from torch import nn

from common.io import load_weights
from common.io.facts import read_facts
from common.losses.pmkl import PMKLOutput
from common.methods.step import TrainingStep
from common.networks.dedicated import Dedicated
from common.networks.gated import l2_penalty
from common.networks.pmkl import PMKL, MetricHead
from common.networks.subsets import available_modalities

logger = logging.getLogger(__name__)


class MetricHeads(nn.Module):
    """The two metric heads of a student: for its own features, and for the teacher's."""

    def __init__(self, width: int, crop: Sequence[int], stride: int) -> None:
        super().__init__()
        self.student, self.teacher = MetricHead(width, crop, stride), MetricHead(width, crop, stride)


class PrivilegedDistillation(TrainingStep):
    """Draw one of the subsets that have a student, and forward this student and the frozen teacher.

    The metric heads belong to this module and not to the network, so that the network has only the weights needed for
    inference. Give the optimiser this module's parameters (the teacher's get no gradient), and checkpoint ``heads``.
    For the network see `load_teacher`. ``crop`` is the size of the training crops in voxels, ``metric_stride`` the
    stride of the metric heads' pooling (see `MetricHead`), 1 in the release.

    Attributes:
        heads: the `MetricHeads` of each student.
    """

    def __init__(self, network: PMKL, crop: Sequence[int], metric_stride: int = 40) -> None:
        super().__init__(network)
        width = network.full.head.in_channels
        self.heads = Dedicated(network.missing.subsets, lambda channels: MetricHeads(width, crop, metric_stride))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the students and their heads; the teacher stays in evaluation mode."""
        super().train(mode)
        self.network.full.eval()
        return self

    def forward(self, image: torch.Tensor) -> PMKLOutput:
        """Return the outputs of a student and the teacher for crops ``(B, M, X, Y, Z)``."""
        image = image.as_subclass(torch.Tensor)
        present = available_modalities(image, None)
        students, teacher = self.network.missing, self.network.full
        subset = students.draw_subset(present)
        heads = self.heads.network_for(subset)
        with torch.no_grad():
            taught = teacher.decoder(teacher.fuse(teacher.encode(image, present), present))
        student = students.network_for(subset)
        learnt = student(students.select_channels(image, subset))
        embeddings = heads.student(learnt.features), heads.teacher(taught.features)
        return PMKLOutput(learnt.logits, taught.logits, *embeddings, l2_penalty([student, heads]))


def require_teacher(path: str | os.PathLike | None, cohort: str) -> None:
    """Refuse a teacher's weights that do not exist, or say that they are of another cohort; None is accepted.

    Raises FileNotFoundError if the file does not exist; ValueError if the teacher was trained on another cohort.
    """
    if path is None:
        return
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such weights of a teacher. PMKL's students learn from a teacher. Train it first, or name the "
            "weights of one (key `teacher`)."
        )
    facts = read_facts(path)
    if facts is None:
        logger.warning(f"{path}: does not say which cohort this teacher was trained on; assuming {cohort}")
        return
    noted = facts.settings.get("cohort")
    if noted != cohort:
        raise ValueError(
            f"{path}: a teacher trained on {noted}; expected one trained on {cohort}, as the students are. Train one "
            "or name another (key `teacher`)."
        )


def load_teacher(network: PMKL, path: str, cohort: str) -> None:
    """Load and freeze the teacher of the first stage, and initialise the students' feature encoders from its own.

    Raises FileNotFoundError if the file does not exist; ValueError if it is damaged, or belongs to another network
    (width, modalities, classes, feature encoder) or cohort than the students.
    """
    require_teacher(path, cohort)
    load_weights(network.full, path).requires_grad_(False)
    network.full.zero_grad()  # gradients of its own training, if that ran in this process
    ours = network.full.feature_encoder
    for subset in network.missing.subsets:
        layers = ours.layers if ours.kind == "shared" else [ours.layers[m] for m in subset if ours.kind]
        for layer, start in zip(network.missing.network_for(subset).feature_encoder.layers, layers, strict=True):
            layer.load_state_dict(start.state_dict())
    logger.info(f"the students' teacher is {path}")
