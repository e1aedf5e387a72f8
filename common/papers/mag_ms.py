"""MAG-MS: every modality alone learns from all modalities fused (multi-modality self-distillation).

Source: He et al., "Modality-Agnostic Learning for Medical Image Segmentation Using Multi-modality Self-distillation",
2023, sections 2.2 and 2.3, eq. (1) and (2), Algorithm 1; section 2.1 is the network, `common.networks.mag_ms`. The
paper leaves some details open. We chose: the softmax is over exclusive classes, and Dice includes the background; the
divergence is a mean over voxels; the distance is a mean over the elements of the bottleneck (a sum would outweigh the
other terms); the teacher gets no gradient.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common.io.settings import check_number
from common.losses.dice_ce import DiceCE, class_indices
from common.modalities import IGNORED
from common.networks.mag_ms import MAGMS, MagMSDecoded
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities, gather_rows, scatter_rows, select_rows


class MagMSOutput(NamedTuple):
    """Output of the training step: of the teacher B rows, of the students P rows in the order of ``present.nonzero()``.

    The teacher is decoded from the mean of each sample's modalities, a student from one modality alone. ``present`` is
    bool ``(B, M)``, on the CPU.
    """

    teacher: MagMSDecoded
    students: MagMSDecoded
    present: torch.Tensor


class MultiModalitySelfDistillation(TrainingStep):
    """Decode each subject's modalities fused (the teacher), and each of them alone (the students), Algorithm 1."""

    network: MAGMS

    def forward(self, image: torch.Tensor) -> MagMSOutput:
        """Return the outputs of teacher and students for crops ``(B, M, ...)``."""
        present = available_modalities(image, None)
        features = self.network.encode(image, present)
        # (P, 1, C, ...): no student needs the others' features
        alone = [gather_rows(level, present)[:, None] for level in features]
        students = self.network.decode(alone, present.new_ones(len(alone[0]), 1))
        return MagMSOutput(self.network.decode(features, present), students, present)


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return ``T^2 KL(teacher || student)`` of logits ``(n, K, ...)`` at temperature T, a mean over rows and voxels.

    Voxels where the label ``(n, 1, ...)`` is `IGNORED` are left out.
    """
    student, teacher = ((logits / temperature).log_softmax(dim=1) for logits in (student, teacher))
    counted = label[:, 0] != IGNORED
    each = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * torch.where(counted, each, 0).sum() / counted.sum().clamp_min(1)


class MagMSLoss(nn.Module):
    """``DC(y, f) + sum_m [DC(y, f_m) + lambda KL(f || f_m) + gamma |z_m - z|^2]``, eq. (1) and (2).

    DC is Dice loss plus cross-entropy; f and z are the fused prediction and bottleneck, f_m and z_m those of modality m
    alone. The sum is over modalities; each addend is a mean over the samples that have the modality. With ``lambda_kl``
    and ``gamma`` 0 it is the paper's ablation "MAG". With ``detach_teacher`` the last two terms have no gradient for
    the fused prediction and bottleneck. ``temperature`` is that of the divergence.

    Attributes:
        terms: ``fuse``, ``single``, ``kl`` and ``l2``, summed over modalities.

    Examples:
        >>> import torch
        >>> from common.networks.mag_ms import MAGMS
        >>> from common.papers.mag_ms import MagMSLoss, MultiModalitySelfDistillation
        >>> network = MAGMS(modalities=2, classes=3, crop=(16, 16), width=2, hidden=12, mlp_dim=24, heads=2)
        >>> output = MultiModalitySelfDistillation(network)(torch.randn(1, 2, 16, 16))
        >>> len(output.teacher.logits), len(output.students.logits)
        (1, 2)
        >>> loss = MagMSLoss()
        >>> loss(output, torch.zeros(1, 1, 16, 16)).shape
        torch.Size([])
    """

    def __init__(
        self, lambda_kl: float = 1.0, gamma: float = 1.0, temperature: float = 1.0, detach_teacher: bool = True
    ) -> None:
        super().__init__()
        self.lambda_kl, self.gamma = check_number("lambda_kl", lambda_kl, 0), check_number("gamma", gamma, 0)
        self.temperature, self.detach_teacher = check_number("temperature", temperature, 0.01), detach_teacher
        self.dice_ce = DiceCE()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: MagMSOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a training step's output against class indices ``(B, 1, ...)``."""
        label = class_indices(target, output.teacher.logits)
        teacher, students = (
            MagMSDecoded(*(part.as_subclass(torch.Tensor).float() for part in decoded))
            for decoded in (output.teacher, output.students)
        )
        taught = MagMSDecoded(*(part.detach() for part in teacher)) if self.detach_teacher else teacher
        terms = {"fuse": self.dice_ce(teacher.logits, label), "single": 0, "kl": 0, "l2": 0}
        rows = scatter_rows(torch.arange(len(students.logits)), output.present)  # (B, M), row of each student
        for row, present in zip(rows.T, output.present.T, strict=True):
            if not bool(present.any()):
                continue
            student = row[present].to(label.device, non_blocking=True)
            logits, bottleneck = (part.index_select(0, student) for part in students)
            soft, features, truth = (select_rows(part, present) for part in (*taught, label))
            terms["single"] = terms["single"] + self.dice_ce(logits, truth)
            terms["kl"] = terms["kl"] + divergence(logits, soft, truth, self.temperature)
            terms["l2"] = terms["l2"] + F.mse_loss(bottleneck, features)
        self.terms = {name: value.detach() for name, value in terms.items()}
        return terms["fuse"] + terms["single"] + self.lambda_kl * terms["kl"] + self.gamma * terms["l2"]
