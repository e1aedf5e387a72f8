"""PMKL: students of incomplete subsets learn from the label and from a frozen multimodal teacher.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021; constants as
released. In the first stage the teacher is trained alone (`common.baselines.plain`, with the loss
`common.losses.gated`). The second stage is here; the networks are in `common.networks.pmkl`.
"""

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import nn

from common.cohorts.described import recorded
from common.io.checkpoints import load_weights
from common.io.facts import read_facts
from common.io.settings import check_number
from common.losses.dice_ce import FLOOR, class_indices, probabilities
from common.losses.gated import SegmentationLoss
from common.networks.dedicated import Dedicated
from common.networks.gated import l2_penalty
from common.networks.pmkl import PMKL, MetricHead
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities

logger = logging.getLogger(__name__)


class PMKLOutput(NamedTuple):
    """Output of the training step.

    Attributes:
        logits: logits of the student, ``(B, K, X, Y, Z)``.
        teacher_logits: logits of the teacher, same shape, without gradient.
        embedding: unit vectors of the student's features, ``(B, D)``.
        teacher_embedding: unit vectors of the teacher's features, same shape, with a gradient for the metric head only.
        l2_penalty: scalar, half the sum of the student's and both metric heads' squared kernels.
    """

    logits: torch.Tensor
    teacher_logits: torch.Tensor
    embedding: torch.Tensor
    teacher_embedding: torch.Tensor
    l2_penalty: torch.Tensor


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

    network: PMKL

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
    """Refuse a teacher's weights that say that they are of another cohort; None is accepted."""
    facts = None if path is None else read_facts(path)
    if facts is not None and facts.settings.get("cohort") != recorded(cohort):
        raise ValueError(
            f"{path}: a teacher trained on {facts.settings.get('cohort')}; expected one trained on {cohort}, as the "
            "students are. Train one or name another (key `teacher`)."
        )


def load_teacher(network: PMKL, path: str, cohort: str) -> None:
    """Load and freeze the teacher of the first stage, and initialise the students' feature encoders from its own."""
    require_teacher(path, cohort)
    load_weights(network.full, path).requires_grad_(False)
    network.full.zero_grad()  # gradients of its own training, if that ran in this process
    ours = network.full.feature_encoder
    for subset in network.missing.subsets:
        layers = ours.layers if ours.kind == "shared" else [ours.layers[m] for m in subset if ours.kind]
        for layer, start in zip(network.missing.network_for(subset).feature_encoder.layers, layers, strict=True):
            layer.load_state_dict(start.state_dict())
    logger.info(f"the students' teacher is {path}")


@torch.no_grad()
def teacher_advantage(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return how much the student's cross-entropy exceeds the teacher's, 0 where the teacher is wrong or not better.

    Logits are ``(B, K, ...)``; the weights returned are ``(B, 1, ...)`` like the class indices, without gradient.
    """
    lead = teacher.float().log_softmax(dim=1) - student.float().log_softmax(dim=1)
    return lead.gather(1, label).clamp_min(0) * (teacher.argmax(dim=1, keepdim=True) == label)


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the scalar cross-entropy of the student's softened prediction against the teacher's, at a temperature.

    Voxels are weighted by `teacher_advantage`; the sum is divided by the sum of the weights (0 if that is 0). There is
    no factor T^2.
    """
    soft, target = (probabilities(logits, logits.shape[2:], temperature) for logits in (student, teacher.detach()))
    weight = teacher_advantage(student, teacher, label)
    each = -(target * soft.clamp(FLOOR, 1).log()).sum(dim=1, keepdim=True)
    return (weight * each).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def contrastive_loss(student: torch.Tensor, teacher: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the scalar contrastive loss, averaged over all pairs of a batch's embeddings ``(B, D)``.

    With distance d, a pair of one subject adds ``d^2``, a pair of two subjects ``max(0, margin - d)^2``. A batch of one
    subject has only the former.
    """
    distance = torch.linalg.vector_norm(student.float()[:, None] - teacher.float(), dim=2)
    same = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    return torch.where(same, distance.square(), (margin - distance).clamp_min(0).square()).mean()


class PMKLLoss(nn.Module):
    """A student's loss: ``CE + Dice + 0.5 kd + 0.5 contrastive + 1e-5 l2``.

    Here l2 is half the sum of squared kernels; see `distillation_loss` for kd and its ``temperature``,
    `contrastive_loss` for the ``margin``, the distance beyond which two subjects' embeddings no longer repel each
    other. The terms are ``ce``, ``dice``, ``kd``, ``contrastive`` and ``l2``.
    """

    def __init__(
        self,
        kd_weight: float = 0.5,
        contrastive_weight: float = 0.5,
        l2_weight: float = 1e-5,
        temperature: float = 10.0,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {
            "kd": check_number("kd_weight", kd_weight, 0),
            "contrastive": check_number("contrastive_weight", contrastive_weight, 0),
            "l2": check_number("l2_weight", l2_weight, 0),
        }
        self.temperature = check_number("temperature", temperature, 0.01)
        self.margin = check_number("margin", margin, 0)
        self.segmentation = SegmentationLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: PMKLOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a training step's output against class indices ``(B, 1, X, Y, Z)``."""
        label = class_indices(target, output.logits, ignoring=False)
        loss = self.segmentation.of_indices(output.logits, label)
        parts = {
            "kd": distillation_loss(output.logits, output.teacher_logits, label, self.temperature),
            "contrastive": contrastive_loss(output.embedding, output.teacher_embedding, self.margin),
            "l2": output.l2_penalty,
        }
        self.terms = {**self.segmentation.terms, **{name: value.detach() for name, value in parts.items()}}
        return loss + sum(self.weights[name] * value for name, value in parts.items())
