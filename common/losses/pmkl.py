"""The losses of PMKL: of any gated network, and of a student that learns from its teacher.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021; constants as
released. Cross-entropy plus Dice are RobustSeg's as well.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.losses import DiceLoss
from torch import nn

from common.io.settings import check_number
from common.losses.fusion import FLOOR, class_indices, probabilities, weighted_cross_entropy
from common.networks.gated import GatedOutput


class PMKLOutput(NamedTuple):
    """What the training of a student forwards to its loss.

    Attributes:
        logits: of the student, ``(B, K, X, Y, Z)``.
        teacher_logits: of the teacher, same shape, without gradient.
        embedding: of the student's features, unit vectors ``(B, D)``.
        teacher_embedding: of the teacher's features, same shape; the gradient ends in the teacher's metric head.
        l2_penalty: scalar, half the sum of the student's and both metric heads' squared kernels.
    """

    logits: torch.Tensor
    teacher_logits: torch.Tensor
    embedding: torch.Tensor
    teacher_embedding: torch.Tensor
    l2_penalty: torch.Tensor


@torch.no_grad()
def teacher_advantage(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return by how much the student's cross-entropy exceeds the teacher's, 0 where the teacher is wrong or no better.

    Args:
        student: logits ``(B, K, ...)``.
        teacher: logits, same shape.
        label: class indices ``(B, 1, ...)``, long.

    Returns:
        ``(B, 1, ...)``, a constant.
    """
    lead = teacher.float().log_softmax(dim=1) - student.float().log_softmax(dim=1)
    return lead.gather(1, label).clamp_min(0) * (teacher.argmax(dim=1, keepdim=True) == label)


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the cross-entropy of the student's softened prediction to the teacher's, a scalar.

    Voxels are weighted by `teacher_advantage`. The sum is divided by that of the weights, and is 0 if these are. There
    is no factor T^2.

    Args:
        student: logits ``(B, K, ...)``.
        teacher: logits, same shape.
        label: class indices ``(B, 1, ...)``, long.
        temperature: T, what logits are divided by.
    """
    soft, target = (probabilities(logits, logits.shape[2:], temperature) for logits in (student, teacher.detach()))
    weight = teacher_advantage(student, teacher, label)
    each = -(target * soft.clamp(FLOOR, 1).log()).sum(dim=1, keepdim=True)
    return (weight * each).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def contrastive_loss(student: torch.Tensor, teacher: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the mean over all pairs of a batch's embeddings ``(B, D)``, a scalar.

    With distance d, a subject's own pair adds ``d^2``, one of two subjects ``max(0, margin - d)^2``; a batch of one has
    none of these.
    """
    distance = torch.linalg.vector_norm(student.float()[:, None] - teacher.float(), dim=2)
    own = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    return torch.where(own, distance.square(), (margin - distance).clamp_min(0).square()).mean()


class SegmentationLoss(nn.Module):
    """Cross-entropy plus Dice on the softmax; also the loss of PMKL's teacher.

    In the cross-entropy a class weighs 1 minus its share of the batch's voxels, and probabilities are clamped to at
    least 0.005. Dice has squared probabilities in its denominator, sums over batch and space, and is the mean over the
    classes, background included.

    Attributes:
        terms: the latest values of ``ce`` and ``dice``, detached.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(to_onehot_y=True, squared_pred=True, batch=True, smooth_nr=0.0, smooth_dr=1e-7)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: GatedOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss.

        Args:
            output: training outputs of a network, of which ``logits`` ``(B, K, X, Y, Z)`` count.
            target: class indices ``(B, 1, X, Y, Z)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`.
        """
        label = class_indices(target, output.logits)
        soft = probabilities(output.logits, label.shape[2:])
        entropy = weighted_cross_entropy(_merge_batch(soft), _merge_batch(label)).mean()
        dice = self.dice(soft, label)
        self.terms = {"ce": entropy.detach(), "dice": dice.detach()}
        return entropy + dice


class PMKLLoss(nn.Module):
    """A student's loss: ``CE + Dice + 0.5 kd + 0.5 contrastive + 1e-5 l2``.

    Args:
        kd_weight: of `distillation_loss`.
        contrastive_weight: of `contrastive_loss`.
        l2_weight: of half the sum of squared kernels.
        temperature: of the distillation.
        margin: distance beyond which two subjects' embeddings no longer repel each other.

    Attributes:
        terms: the latest values of ``ce``, ``dice``, ``kd``, ``contrastive`` and ``l2``, unweighted and detached.

    Raises:
        ValueError: a constant that makes no sense.
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
        """Return the scalar loss; arguments and errors are those of `SegmentationLoss`."""
        loss = self.segmentation(output, target)
        label = class_indices(target, output.logits)
        parts = {
            "kd": distillation_loss(output.logits, output.teacher_logits, label, self.temperature),
            "contrastive": contrastive_loss(output.embedding, output.teacher_embedding, self.margin),
            "l2": output.l2_penalty,
        }
        self.terms = {**self.segmentation.terms, **{name: value.detach() for name, value in parts.items()}}
        return loss + sum(self.weights[name] * value for name, value in parts.items())


def _merge_batch(x: torch.Tensor) -> torch.Tensor:
    """Return ``(B, C, X, ...)`` as one sample ``(1, C, B * X, ...)``."""
    return x.transpose(0, 1).flatten(1, 2)[None]
