"""PMKL's second stage: the students learn from the label and from the multimodal teacher, which is frozen.

Source: Chen et al., "Learning with Privileged Multimodal Knowledge for Unimodal Segmentation", TMI 2021. In the first
stage the teacher is trained by itself (`common.methods.plain`). The losses are in `common.losses.pmkl`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from common.io import load_weights
from common.io.files import replacing
from common.losses.pmkl import PMKLOutput
from common.methods.step import TrainingStep
from common.networks.blocks import available_modalities
from common.networks.dedicated import Dedicated
from common.networks.gated import l2_penalty
from common.networks.pmkl import PMKL, MetricHead

logger = logging.getLogger(__name__)


class MetricHeads(nn.Module):
    """The two heads of a student: for its own features, and for the teacher's."""

    def __init__(self, width: int, crop: Sequence[int], stride: int) -> None:
        super().__init__()
        self.student, self.teacher = MetricHead(width, crop, stride), MetricHead(width, crop, stride)


class PrivilegedDistillation(TrainingStep):
    """Draw one of the sets that there are students for, and forward its student beside the frozen teacher.

    The metric heads are parts of this method and not of the network, whose weights are then those of inference alone:
    give the optimiser the method's parameters, of which the teacher's get no gradient, and the checkpoint ``heads``.

    Args:
        network: whose students are trained, see `load_teacher`.
        crop: size of the training crops in voxels.
        metric_stride: of the metric heads' pooling; released: 1, see `MetricHead`.

    Attributes:
        heads: `MetricHeads` of each student.
    """

    def __init__(self, network: PMKL, crop: Sequence[int], metric_stride: int = 40) -> None:
        super().__init__()
        self.network = network
        width = network.full.head.in_channels
        self.heads = Dedicated(network.missing.subsets, lambda channels: MetricHeads(width, crop, metric_stride))

    def train(self, mode: bool = True) -> PrivilegedDistillation:
        """Set the mode of the students and their heads; the teacher stays in evaluation mode."""
        super().train(mode)
        self.network.full.eval()
        return self

    def forward(self, image: torch.Tensor) -> PMKLOutput:
        """Return what a student and the teacher say on crops ``(B, M, X, Y, Z)``.

        Raises:
            ValueError: there is no student for any set that all subjects of the batch have.
        """
        image = image.as_subclass(torch.Tensor)
        present = available_modalities(image, None)
        students, teacher = self.network.missing, self.network.full
        subset = students.draw_subset(present)
        heads = self.heads.network_for(subset)
        with torch.no_grad():
            taught = teacher.decoder(teacher.fuse(teacher.encode(image, present), present))
        student = students.network_for(subset)
        learnt = student(students.select_channels(image, subset))
        return PMKLOutput(
            learnt.logits,
            taught.logits,
            heads.student(learnt.features),
            heads.teacher(taught.features),
            l2_penalty([student, heads]),
        )


def note_teacher(path: str | os.PathLike, cohort: str) -> None:
    """Note beside a teacher's weights which cohort it was trained on."""
    with replacing(_note(path)) as temporary:
        temporary.write_text(json.dumps({"cohort": cohort}))


def require_teacher(path: str | os.PathLike | None, cohort: str) -> None:
    """Refuse weights of a teacher that are absent, or noted to be of another cohort; None will be trained.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the teacher is of another cohort.
    """
    if path is None:
        return
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no weights of a teacher, which PMKL's students learn from. Train it first, or name the weights "
            "of one (key `teacher`)."
        )
    if not _note(path).is_file():
        logger.warning(f"{path}: nothing beside it says which cohort this teacher is of; {cohort} is assumed")
        return
    noted = json.loads(_note(path).read_text())["cohort"]
    if noted != cohort:
        raise ValueError(f"{path}: a teacher trained on {noted}, but the students are to learn from {cohort}.")


def load_teacher(network: PMKL, path: str, cohort: str) -> None:
    """Take and freeze the teacher of the first stage, and start the students' feature encoders from its own.

    Args:
        network: gets the weights in ``full``.
        path: plain state dict of the teacher.
        cohort: what the students are trained on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another network (width, modalities, classes, feature encoder), or another cohort.
    """
    require_teacher(path, cohort)
    load_weights(network.full, path).requires_grad_(False)
    network.full.zero_grad()  # what its own training left, if it was in this process
    ours = network.full.feature_encoder
    for subset in network.missing.subsets:
        layers = ours.layers if ours.kind == "shared" else [ours.layers[m] for m in subset if ours.kind]
        for layer, start in zip(network.missing.network_for(subset).feature_encoder.layers, layers, strict=True):
            layer.load_state_dict(start.state_dict())
    logger.info(f"the students' teacher is {path}")


def _note(path: str | os.PathLike) -> Path:
    return Path(path).with_suffix(".json")
