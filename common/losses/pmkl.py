"""The losses of gated networks and of PMKL's students, which learn from the teacher.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021; constants as
released. The segmentation loss (cross-entropy plus Dice) is also RobustSeg's.
"""

from typing import NamedTuple

import torch
from monai.losses import DiceLoss
from torch import nn

from common.io.settings import check_number
from common.losses.parts import FLOOR, class_indices, probabilities, weighted_cross_entropy
from common.networks.gated import GatedOutput


class PMKLOutput(NamedTuple):
    """Output of PMKL's training step, which its loss takes.

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
    own = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    return torch.where(own, distance.square(), (margin - distance).clamp_min(0).square()).mean()


class SegmentationLoss(nn.Module):
    """Cross-entropy plus Dice on the softmax; also the loss of PMKL's teacher.

    In the cross-entropy the weight of a class is 1 minus its fraction of the batch's voxels, and probabilities are
    clamped to at least 0.005. Dice has squared probabilities in its denominator, sums over batch and space, and is
    averaged over the classes, including the background. The terms are ``ce`` and ``dice``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(to_onehot_y=True, squared_pred=True, batch=True, smooth_nr=0.0, smooth_dr=1e-7)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: GatedOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of ``logits`` ``(B, K, X, Y, Z)`` against class indices ``(B, 1, X, Y, Z)``."""
        return self.of_indices(output.logits, class_indices(target, output.logits, ignoring=False))

    def of_indices(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss for a label that `class_indices` has checked."""
        soft = probabilities(logits, label.shape[2:])
        entropy = weighted_cross_entropy(_merge_batch(soft), _merge_batch(label)).mean()
        dice = self.dice(soft, label)
        self.terms = {"ce": entropy.detach(), "dice": dice.detach()}
        return entropy + dice


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


def _merge_batch(x: torch.Tensor) -> torch.Tensor:
    """Reshape ``(B, C, X, ...)`` to one sample ``(1, C, B * X, ...)``."""
    return x.transpose(0, 1).flatten(1, 2)[None]
