"""PASSION: training on subjects that lack modalities, with self-distillation balanced between the modalities.

Source: Shi et al., "PASSION: Towards Effective Incomplete Multi-Modal Medical Image Segmentation with Imbalanced
Missing Rates", ACM MM 2024. The prediction from all of a subject's modalities ("multi") teaches the prediction from
each one alone ("uni"; by the same decoder, hence "self"), voxel by voxel and through the classes' prototypes: section
3.2, eq. (3) to (8). A student's distance from the teacher shows which modality is neglected: section 3.3, eq. (9) and
(10). Within a batch, neglected ones are trained (task mask delta, eq. 11), and from epoch to epoch their weights grow
(coefficients beta, eq. 12 and 13). The sum is eq. (14), section 3.4.

Where paper and released code differ, this follows the released code, which gave the published numbers; the bundle's
README lists the differences. The datalist says which training case lacks which modality (`common.cohorts.missing`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ignite.distributed as idist
import pandas as pd
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from torch import nn

from common.io.files import replacing
from common.io.settings import check_choice, check_number
from common.losses.dice_ce import FLOOR, class_indices, dice_ce, label_rows, probabilities
from common.modalities import IGNORED, to_host
from common.networks.build import require_fusion
from common.networks.fusion import Decoded, FusionNetwork
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities, scatter_rows
from common.transforms import uniform_subsets

EPSILON = 1e-5  # constant that keeps the mean of an empty class and the cosine of a zero vector finite


class PassionOutput(NamedTuple):
    """Output of the training step.

    Attributes:
        teacher: output decoded from each sample's own subset, B rows.
        students: output decoded from one modality alone, P rows in the order of ``present.nonzero()``.
        separate: logits of the separate decoder, ``(P, K, ...)``, in the same order.
        present: bool ``(B, M)``, on the CPU, the modalities that are taught and counted.
    """

    teacher: Decoded
    students: Decoded
    separate: torch.Tensor
    present: torch.Tensor


class SelfDistillation(TrainingStep):
    """Forward each subject with all its modalities (the teacher) and with each of them alone (the students).

    Args:
        drop_modalities: whether to use only a random non-empty subset of the subject's modalities each time, all
            subsets equally likely (the ModDrop baseline).
        perfect_data: whether all modalities of every subject are present and encoded, and a random subset is drawn only
            for the teacher's fusion (PDT, as in RFNet, mmFormer and M2FTrans).
        distil: whether gradients flow through the students; if False, they only measure the distance to the teacher.
    """

    network: FusionNetwork

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
            teacher, students = _rows(both, slice(len(image))), _rows(both, slice(len(image), None))
        else:
            teacher = self.network.decode(features, subset)
            with torch.no_grad():
                students = self.network.decode(_select_samples(features, sample), alone)
        return PassionOutput(teacher, students, separate, present)


def _select_samples(features: list[torch.Tensor], rows: torch.Tensor) -> list[torch.Tensor]:
    rows = rows.to(features[0].device, non_blocking=True)
    return [level.index_select(0, rows) for level in features]


def _rows(decoded: Decoded, rows: slice) -> Decoded:
    return Decoded(decoded.logits[rows], [level[rows] for level in decoded.deep], decoded.features[rows])


def pixel_distillation(
    students: torch.Tensor, teacher: torch.Tensor, counted: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the divergence of students' predictions from the teacher's at one level, ``(n,)``, eq. (3).

    It is ``T^2 mean_{k,i} q_t (log q_t - log q_s)`` of the probabilities at temperature T, upsampled to the full
    resolution and then clamped to 0.005 or more, over the voxels ``counted``, bool ``(1, 1, ...)``. The teacher's
    logits, ``(1, K, ...)`` for all students or one row for each of the students' ``(n, K, ...)``, get no gradient.
    """
    size = counted.shape[2:]
    target = probabilities(teacher.detach(), size, temperature).clamp(FLOOR, 1)
    soft = probabilities(students, size, temperature).clamp(FLOOR, 1)
    each = torch.where(counted, target * (target.log() - soft.log()), 0)
    return temperature**2 * each.flatten(1).sum(dim=1) / (counted.sum().clamp_min(1) * target.shape[1])


def prototypes(features: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return the mean feature of each class, ``(n, w, k)``, eq. (4).

    Features are ``(n, w, N)``; ``inside`` ``(k, N)`` is 1 where a voxel belongs to a class, else 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ inside.T / (inside.sum(dim=1) + EPSILON)


def similarity(features: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return the cosine between each voxel's feature and each class's prototype, ``(n, k, N)``, eq. (5) and (6)."""
    directions = F.normalize(prototypes(features, inside), dim=1, eps=EPSILON)
    with torch.autocast(features.device.type, enabled=False):
        return directions.mT @ F.normalize(features.float(), dim=1, eps=EPSILON)


def relative_preference(distance: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return ``1 - D_m / mean of the present D``, ``(B, M)``, eq. (9) and (10); below 0 a modality is neglected.

    It is 0 for an absent modality (whose distance D is 0), for a subject's only modality, and if no distance was
    measured.
    """
    mean = distance.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True)
    return torch.where(present & (mean > 0), 1 - distance / mean, 0)


def updated_beta(
    beta: torch.Tensor, preference: torch.Tensor, rate: float, limits: Sequence[float] = (0.1, 4.0)
) -> torch.Tensor:
    """Return ``beta - rate * preference``, eq. (13), clamped and scaled so that its M squares sum to M."""
    beta = (beta - rate * preference).clamp(*limits)
    return len(beta) ** 0.5 * beta / torch.linalg.vector_norm(beta)


def prototype_nll(features: torch.Tensor, inside: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of the classes by nearest prototype, ``(n,)``: PMR (Fan et al., CVPR 2023).

    The softmax is over the negative distances between a voxel's feature and the prototypes of its own sample. Voxels
    of a class without a prototype get the probability 0.005. At least one class is needed. The mean is over the voxels
    ``counted``, bool ``(N,)``.
    """
    features = features.float()
    centres = prototypes(features, inside).unbind(dim=2)
    near = torch.stack([-torch.linalg.vector_norm(features - centre[:, :, None], dim=1) for centre in centres], dim=1)
    right = (near.softmax(dim=1) * inside).sum(dim=1)
    return -torch.where(counted, right.clamp(FLOOR, 1).log(), 0).sum(dim=1) / counted.sum().clamp_min(1)


class PassionLoss(nn.Module):
    """PASSION's loss, and those of its ablations and of the baselines that it is compared to.

    ``L = fuse + deep + sum_m (delta_m beta_m v_m separate_m + lambda_1 beta_m v_m pixel_m + lambda_2 delta_m v_m
    prototype_m)``, summed over the samples of the batch, where ``v_m = 1 / (1 - MR_m)``. In ``deep`` and ``pixel`` the
    auxiliary heads have the weights 1/2, 1/4, ..., fine to coarse. Prototypes are compared for the classes that occur
    in the crop of every sample of the batch. The preferences of all samples together decide on delta; beta follows the
    preference computed from the epoch's mean distances.

    The baselines are ``fuse + deep + sum_m separate_m``, to which ``pmr`` adds its prototype loss, times ``lambda_pmr``
    (the paper does not say which parts of PMR it used). All of them measure the distance between students and teacher,
    and so the relative preference.

    Args:
        modalities: names in the cohort's order.
        counts: number of training subjects that have each modality; a modality with 0 plays no part.
        training: ``passion``, ``baseline``, ``moddrop`` (the baseline's loss; modalities are dropped in the data) or
            ``pmr``.
        pixel: whether to use pixel-wise self-distillation (ablation).
        proto: whether to use prototype distillation (ablation).
        delta: whether to use the task mask (ablation); otherwise it is 1.
        beta: False (ablation) sets both factors to 1: the learned beta_m and the fixed v_m, which in the paper is
            beta's initial value. With all four off, the loss is the baseline's.
        temperature: temperature of the pixel-wise term.
        gamma: update rate of beta.
        growth: epochs (from 0) at which the rate grows.
        growth_factor: factor by which it grows each time.
        beta_range: smallest and greatest beta before it is normalised.
        perfect_data: whether no modality is missing in training (PDT): ``v_m = 1``, and all modalities count.

    Attributes:
        beta: ``(M,)``, the current coefficients.
        sums, counts: ``(M,)``, sums of D and of presence over the samples of the current epoch. Sum them over ranks
            before `end_epoch`.
        terms: those in use of ``fuse``, ``deep``, ``separate``, ``pixel``, ``prototype`` and ``pmr``, summed over
            samples and modalities, weighted as above but without the lambdas.

    Examples:
        >>> import torch
        >>> from common.networks import RFNet
        >>> from common.papers.passion import PassionLoss, SelfDistillation
        >>> step = SelfDistillation(RFNet(modalities=2, classes=2, width=4, crop=(16, 16)))
        >>> loss = PassionLoss(["t1c", "flair"], counts=[10, 5], subjects=10)
        >>> loss.v  # half of the subjects lack FLAIR, so it counts twice as much
        tensor([1., 2.])
        >>> image = torch.randn(1, 2, 16, 16)
        >>> image[:, 1] = torch.nan  # this one lacks it, too
        >>> loss(step(image), torch.zeros(1, 1, 16, 16)).shape
        torch.Size([])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        counts: Sequence[int],
        subjects: int,
        training: str = "passion",
        pixel: bool = True,
        proto: bool = True,
        delta: bool = True,
        beta: bool = True,
        lambda_1: float = 0.5,
        lambda_2: float = 0.1,
        temperature: float = 4.0,
        gamma: float = 0.01,
        growth: Sequence[int] = (0, 100, 200),
        growth_factor: float = 1.5,
        beta_range: Sequence[float] = (0.1, 4.0),
        lambda_pmr: float = 1.0,
        perfect_data: bool = False,
    ) -> None:
        super().__init__()
        if len(counts) != len(modalities) or not all(0 <= count <= subjects for count in counts):
            raise ValueError(
                f"counts {list(counts)}: expected the number of training subjects that have each of "
                f"{', '.join(modalities)}, 0 to {subjects} (`subjects`)."
            )
        if perfect_data and min(counts) < subjects:
            raise ValueError(
                "perfect_data: some training subjects lack a modality, but perfect data (PDT) has all of them. "
                "Set missing_rates and masks to null and train on complete subjects, or set perfect_data to false."
            )
        self.modalities, self.perfect_data = tuple(modalities), perfect_data
        self.variant = check_choice("training", training, ("passion", "baseline", "moddrop", "pmr"))
        ours = self.variant == "passion"
        self.use_pixel, self.use_proto = ours and pixel, ours and proto
        self.use_delta, self.use_beta = ours and delta, ours and beta
        self.lambda_1, self.lambda_2 = check_number("lambda_1", lambda_1, 0), check_number("lambda_2", lambda_2, 0)
        self.lambda_pmr, self.gamma = check_number("lambda_pmr", lambda_pmr, 0), check_number("gamma", gamma, 0)
        self.temperature, self.growth = check_number("temperature", temperature, 0.01), tuple(growth)
        self.growth_factor = check_number("growth_factor", growth_factor, 0)
        least, greatest = beta_range
        self.beta_range = check_number("beta_range", least, 0), check_number("beta_range", greatest, least)
        rarity, ones = subjects / torch.tensor(counts, dtype=torch.float32).clamp_min(1), torch.ones(len(counts))
        self.beta: torch.Tensor = nn.Buffer(ones.clone())
        self.v: torch.Tensor = nn.Buffer(rarity if self.use_beta else ones, persistent=False)
        self.sums: torch.Tensor = nn.Buffer(torch.zeros(len(counts)))
        self.counts: torch.Tensor = nn.Buffer(torch.zeros(len(counts)))
        self.terms: dict[str, torch.Tensor] = {}

    @property
    def distils(self) -> bool:
        """Whether the students get a gradient; if not, they serve only to measure distances."""
        return self.use_pixel or self.use_proto or self.variant == "pmr"

    def forward(self, output: PassionOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a training step's output against class indices ``(B, 1, ...)``."""
        label = class_indices(target, output.teacher.logits)
        size, present = label.shape[2:], output.present
        self._check(present)
        heads = [dice_ce(probabilities(logits, size), label).sum() for logits in output.teacher.deep]
        terms = {
            "fuse": dice_ce(probabilities(output.teacher.logits, size), label).sum(),
            "deep": sum((0.5**level * head for level, head in enumerate(heads, 1)), torch.zeros(())),
        }
        classes = _common_classes(label, output.teacher.logits.shape[1])
        prototype, distance, pmr = self._semantic(output, label, classes)
        counted = (present & bool(len(classes))).to(label.device, non_blocking=True)
        distance = scatter_rows(distance, present)
        self.sums += (distance * counted).sum(dim=0)
        self.counts += counted.sum(dim=0)

        delta = self._delta(relative_preference(distance, present.to(label.device, non_blocking=True)))
        separate = dice_ce(probabilities(output.separate, size), label_rows(label, present))
        terms["separate"] = (delta * self.beta * self.v * scatter_rows(separate, present)).sum()
        if self.use_pixel:
            terms["pixel"] = (self.beta * self.v * scatter_rows(self._pixel(output, label), present)).sum()
        if self.use_proto:
            terms["prototype"] = (delta * self.v * scatter_rows(prototype, present)).sum()
        if self.variant == "pmr":
            terms["pmr"] = pmr.sum()
        self.terms = {name: value.detach() for name, value in terms.items()}
        scale = {"pixel": self.lambda_1, "prototype": self.lambda_2, "pmr": self.lambda_pmr}
        return sum((scale.get(name, 1) * value for name, value in terms.items()), torch.zeros(()))

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> dict[str, float]:
        """Update beta from the epoch's sums (the epoch counts from 0), and reset the sums. Source: eq. (12), (13).

        For each modality the result has ``rp_<name>``, its relative preference in this epoch (0 if it did not occur),
        and ``beta_<name>``, its coefficient from the next epoch on.
        """
        distance = self.sums / self.counts.clamp_min(1)
        preference = relative_preference(distance[None], self.counts[None] > 0)[0]
        if self.use_beta:
            steps = sum(epoch >= start for start in self.growth)
            rate = self.gamma * self.growth_factor**steps
            self.beta.copy_(updated_beta(self.beta, preference, rate, self.beta_range))
        self.sums.zero_()
        self.counts.zero_()
        values = {"rp": preference.tolist(), "beta": self.beta.tolist()}
        return {f"{key}_{name}": row[i] for key, row in values.items() for i, name in enumerate(self.modalities)}

    def _check(self, present: torch.Tensor) -> None:
        if present.shape[1] != len(self.modalities):
            raise ValueError(
                f"modalities {', '.join(self.modalities)}: the network's output has {present.shape[1]} modalities."
            )
        if self.perfect_data and not bool(present.all()):
            raise ValueError(
                "perfect_data: a sample lacks a modality, but perfect data (PDT) has all of them. Train on "
                "complete subjects, or set perfect_data to false."
            )

    def _delta(self, preference: torch.Tensor) -> torch.Tensor:
        """Return the task mask ``(M,)``, 1 for the neglected modalities and 0 for the others, eq. (11)."""
        return (preference.sum(dim=0) < 0).float() if self.use_delta else torch.ones_like(self.beta)

    def _pixel(self, output: PassionOutput, label: torch.Tensor) -> torch.Tensor:
        """Return the pixel-wise term of each student, summed over all levels, ``(P,)``."""
        students, teacher = ([decoded.logits, *decoded.deep] for decoded in (output.students, output.teacher))
        terms = []
        for sample, rows in _samples(output.present):
            counted = label[sample] != IGNORED
            levels = [
                pixel_distillation(student[rows], target[sample], counted, self.temperature)
                for student, target in zip(students, teacher, strict=True)
            ]
            terms.append(sum((0.5**level * term for level, term in enumerate(levels)), torch.zeros(())))
        return torch.cat(terms)

    def _semantic(
        self, output: PassionOutput, label: torch.Tensor, classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return each student's prototype term, distance D and PMR's term, ``(P,)``, for classes ``(k, 1)``."""
        parts = []
        for sample, rows in _samples(output.present):
            # Masks by comparison, since they are a factor of the prototypes' matrix product.
            counted = label[sample].flatten() != IGNORED
            voxels = counted.sum().clamp_min(1)
            inside = (label[sample].flatten() == classes).float()
            features = output.students.features[rows].as_subclass(torch.Tensor).flatten(2)
            taught = similarity(output.teacher.features[sample].detach().as_subclass(torch.Tensor).flatten(2), inside)
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.use_proto):
                gap = torch.where(counted, similarity(features, inside) - taught, 0)
            count = voxels * max(len(classes), 1)  # without classes, term and distance are 0
            prototype = gap.square().sum(dim=(1, 2)) / count
            distance = gap.detach().abs().sum(dim=(1, 2)) / count
            pmr = prototype_nll(features, inside, counted) if self.variant == "pmr" and len(classes) else 0 * distance
            parts.append((prototype, distance, pmr))
        prototype, distance, pmr = (torch.cat(part) for part in zip(*parts, strict=True))
        return prototype, distance, pmr


def _common_classes(label: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the classes that occur in every sample, ``(k, 1)``."""
    occurs = torch.stack([(label == k).flatten(1).any(dim=1) for k in range(classes)], dim=1)
    common = [k for k, everywhere in enumerate(to_host(occurs.all(dim=0)).tolist()) if everywhere]
    return torch.tensor(common, dtype=label.dtype, device=label.device)[:, None]


def _samples(present: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield each sample's slices of the B rows and of its students among the P rows; so a teacher is used once."""
    start = 0
    for b, count in enumerate(present.sum(dim=1).tolist()):
        yield slice(b, b + 1), slice(start, start + count)
        start += count


class PreferenceBalancer:
    """Let a `PassionLoss` update its coefficients after each epoch, and record the teacher's relative preference.

    ``rp_<modality>`` (of the epoch) and ``beta_<modality>`` (from the next epoch on) go into ``engine.state.metrics``.
    Attach this handler before those that print and log metrics, and before the checkpoints. In the output folder,
    ``preference.csv`` has the whole history, the paper's Fig. 6 (columns epoch, modality, relative_preference, beta;
    epochs count from 1); below 0 a modality is neglected. Rank 0 replaces it in each epoch; a resumed run keeps the
    rows of earlier epochs.
    """

    def __init__(self, loss: PassionLoss, folder: str) -> None:
        self.loss, self.folder = loss, Path(folder)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for sums in (self.loss.sums, self.loss.counts):
            sums.copy_(torch.as_tensor(idist.all_reduce(sums)))
        values = self.loss.end_epoch(engine.state.epoch - 1)  # the authors count from 0
        engine.state.metrics.update(values)
        if idist.get_rank() == 0:
            self._write(engine.state.epoch, values)

    def _write(self, epoch: int, values: dict[str, float]) -> None:
        rows = [(epoch, name, values[f"rp_{name}"], values[f"beta_{name}"]) for name in self.loss.modalities]
        history = pd.DataFrame(rows, columns=["epoch", "modality", "relative_preference", "beta"])
        path = self.folder / "preference.csv"
        if epoch > 1 and path.is_file():
            before = pd.read_csv(path)
            history = pd.concat([before[before["epoch"] < epoch], history], ignore_index=True)
        with replacing(path) as temporary:
            history.to_csv(temporary, index=False)
