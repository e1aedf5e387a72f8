"""GSS: for each class, the modalities vote for a soft target that all of them learn from.

Source: Qiu et al., "Scratch Each Other's Back: Incomplete Multi-modal Brain Tumor Segmentation Via Category Aware Group
Self-Support Learning", ICCV 2023. Section 3.1, eq. (1) to (3), is the sum of task and distillation. Section 3.2: for
each class one or two modalities that show it well are leaders; the other modalities are the members of its group; their
votes count where no leader is sure (eq. 4 to 6, algorithm 1; eq. 7 and 8, algorithm 2). The votes, normalised over the
classes (eq. 9), are the target of each modality's separate prediction, but for voxels left out at random (section 3.3,
eq. 10). A modality is sure if its probability exceeds a threshold; its vote is its probability at temperature tau.

Where paper and released code differ, there is an option. The default is the paper, since the released votes have
errors: with a single leader, a class gets no vote where the members overrule the leader, and two leaders that agree are
counted twice. GSS changes only the loss, so inference is that of the backbone.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from common.io.settings import check_choice, check_number
from common.losses.dice_ce import FLOOR
from common.losses.fusion import FusionLoss
from common.modalities import ALIASES, IGNORED
from common.networks.build import require_fusion
from common.networks.fusion import FusionNetwork, FusionOutput
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities
from common.transforms import uniform_subsets


class RandomSubsetFusion(TrainingStep):
    """Encode and separately decode every modality of a subject; fuse a random subset, all subsets equally likely.

    So the backbones are trained without GSS, too, and with MedMAP.
    """

    network: FusionNetwork

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__(require_fusion(network, "This training"))

    def forward(self, image: torch.Tensor) -> FusionOutput:
        """Return the training outputs of crops ``(B, M, ...)``; ``present`` says which modalities were encoded."""
        present = available_modalities(image, None)
        features = self.network.encode(image, present)
        fused = self.network.decode(features, uniform_subsets(present))
        return FusionOutput(fused, self.network.decode_separately(features, present), present)


def single_leader_vote(
    sure: torch.Tensor, votes: torch.Tensor, leader_threshold: float, member_threshold: float, rule: str = "paper"
) -> torch.Tensor:
    """Return the vote ``(B, ...)`` for a class with one leader, modality 0, by algorithm 1.

    It is the leader's vote where the leader is sure, else the members' mean where all of them are sure (rule
    ``released``: 0), else the minimum of all votes. A modality is sure where its probability ``sure`` exceeds its
    threshold (T_L for a leader, T_M for a member); ``votes`` are softened probabilities. Both are ``(B, M, ...)``.
    """
    overruled = votes[:, 1:].mean(dim=1) if rule == "paper" else torch.zeros_like(votes[:, 0])
    vote = torch.where((sure[:, 1:] > member_threshold).all(dim=1), overruled, votes.amin(dim=1))
    return torch.where(sure[:, 0] > leader_threshold, votes[:, 0], vote)


def double_leader_vote(
    sure: torch.Tensor,
    votes: torch.Tensor,
    leader_threshold: float,
    member_threshold: float,
    rho: float,
    rule: str = "paper",
) -> torch.Tensor:
    """Return the vote ``(B, ...)`` for a class with two leaders, algorithm 2; otherwise like `single_leader_vote`.

    Where both leaders (modalities 0 and 1) are sure, it is the greater vote (``released``: plus the result for one sure
    leader); where only one is sure, it is the greater vote minus rho times their difference; where neither is, as for
    one leader. (Algorithm 2 prints T_M for the second leader in the case of one; the text and the code have T_L.)
    """
    least, most = votes[:, :2].aminmax(dim=1)
    penalised = most - rho * (most - least)
    both = most if rule == "paper" else most + penalised
    members = torch.where((sure[:, 2:] > member_threshold).all(dim=1), votes[:, 2:].mean(dim=1), votes.amin(dim=1))
    leaders = (sure[:, :2] > leader_threshold).sum(dim=1)
    return torch.where(leaders == 2, both, torch.where(leaders == 1, penalised, members))


def group_vote(
    sure: torch.Tensor,
    votes: torch.Tensor,
    leaders: Sequence[Sequence[int]],
    leader_threshold: float,
    member_threshold: float,
    rho: float,
    rule: str = "paper",
) -> torch.Tensor:
    """Return the votes ``(B, K, ...)`` of all classes without normalisation.

    Probabilities ``sure`` and ``votes`` are ``(B, M, K, ...)``; ``leaders`` has the indices of one or two modalities
    for each class. For the rest see `single_leader_vote` and `double_leader_vote`.
    """
    elected = []
    for k, leading in enumerate(leaders):
        order = [*leading, *(m for m in range(sure.shape[1]) if m not in leading)]
        # Stacked, since a list of indices would be copied to the GPU each time.
        seen, cast = (torch.stack([part[:, m, k] for m in order], dim=1) for part in (sure, votes))
        if len(leading) == 1:
            elected.append(single_leader_vote(seen, cast, leader_threshold, member_threshold, rule))
        else:
            elected.append(double_leader_vote(seen, cast, leader_threshold, member_threshold, rho, rule))
    return torch.stack(elected, dim=1)


def normalised_votes(votes: torch.Tensor) -> torch.Tensor:
    """Return the votes ``(B, K, ...)`` divided by their sum over the classes, eq. (9)."""
    return votes / votes.sum(dim=1, keepdim=True).clamp_min(torch.finfo(votes.dtype).tiny)


def random_mask(students: torch.Tensor, share: float, kind: str = "shared") -> torch.Tensor:
    """Draw which voxels are kept from torch's global generator: bool ``(B, M, N)``, eq. (10).

    Kind ``shared`` leaves each voxel of a sample out with probability ``share`` (alpha), for all students alike;
    ``per_student`` leaves out ``int(alpha N)`` voxels per student, drawn with replacement (released code). Students
    ``(B, M, K, N)`` give shape and device.
    """
    (samples, modalities, _, voxels), device = students.shape, students.device
    if kind == "shared":
        return (torch.rand(samples, 1, voxels, device=device) >= share).expand(-1, modalities, -1)
    kept = torch.ones(samples, modalities, voxels, dtype=torch.bool, device=device)
    drawn = torch.randint(voxels, (samples, modalities, int(share * voxels)), device=device)
    return kept.scatter_(2, drawn, False)


def kd_loss(target: torch.Tensor, log_students: torch.Tensor, kept: torch.Tensor, kind: str = "kl") -> torch.Tensor:
    """Return the distillation loss summed over the students, a scalar.

    ``kl`` is ``KL(S || Q)``, averaged over the voxels kept. ``released`` is the cross-entropy ``-w_k S_k log max(Q_k,
    0.005)``, in which the weight of a class is 1 minus its fraction of the target, averaged over all voxels with those
    left out at 0. The target S is ``(B, M or 1, K, N)``, one for each student or the same for all, without gradient;
    log Q is ``(B, M, K, N)``, ``kept`` bool ``(B, M, N)``.
    """
    target = target.detach()
    if kind == "released":
        shares = (target * kept[:, :, None]).sum(dim=3)
        weight = (1 - shares / shares.sum(dim=2, keepdim=True))[..., None]
        each = -(weight * target * log_students.exp().clamp(FLOOR, 1).log()).sum(dim=2)
        return torch.where(kept, each, 0).mean(dim=(0, 2)).sum()
    each = (torch.xlogy(target, target) - target * log_students).sum(dim=2)
    return (torch.where(kept, each, 0).sum(dim=(0, 2)) / kept.sum(dim=(0, 2)).clamp_min(1)).sum()


class GSSLoss(nn.Module):
    """``0.7 task + 0.3 tau^2 distillation``, eq. (3), on the outputs of a network that gets all modalities.

    Args:
        classes: names in the order of the network's head, including the background (``BG``).
        leaders: names of one or two modalities for each class.
        task_weight: weight of the task loss, 0.7 in the paper.
        kd_weight: weight of the distillation, 0.3 in the paper.
        tau: temperature of the votes and of the students.
        leader_threshold: T_L, above which a leader is sure.
        member_threshold: T_M, above which a member is sure.
        rho: penalty where two leaders disagree.
        alpha: fraction of voxels that the random mask leaves out.
        votes: ``paper`` or ``released``; see `single_leader_vote` and `double_leader_vote`.
        kd: ``kl`` or ``released``; see `kd_loss`.
        scale: scale of the distillation: ``tau_squared`` or ``released`` (a tenth of it).
        task: ``whole`` weights all of the network's loss; ``released`` only that of the separate predictions.
        mask: ``shared`` or ``per_student``; see `random_mask`.
        distillation: teacher of the distillation: ``group``, the vote; ``mutual``, for each student the mean of the
            others' softened predictions (the paper's "direct mutual distillation", for which it gives no formula);
            ``fusion``, the softened fused prediction.
        normalise: whether the votes are normalised over the classes.

    Attributes:
        terms: ``fuse``, ``separate``, ``deep`` and ``distillation``.

    Examples:
        >>> import torch
        >>> from common.networks import RFNet
        >>> from common.papers.gss import GSSLoss, RandomSubsetFusion
        >>> step = RandomSubsetFusion(RFNet(modalities=2, classes=2, width=4, crop=(16, 16)))
        >>> loss = GSSLoss(["t1c", "flair"], classes=["BG", "tumour"], leaders={"BG": ["t1c"], "tumour": ["flair"]})
        >>> output = step(torch.randn(1, 2, 16, 16))  # no modality may be missing here
        >>> loss(output, torch.zeros(1, 1, 16, 16)).shape
        torch.Size([])
        >>> list(loss.terms)
        ['fuse', 'separate', 'deep', 'distillation']
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: Sequence[str],
        leaders: Mapping[str, Sequence[str]],
        task_weight: float = 0.7,
        kd_weight: float = 0.3,
        tau: float = 8.0,
        leader_threshold: float = 0.65,
        member_threshold: float = 0.75,
        rho: float = 0.3,
        alpha: float = 0.2,
        votes: str = "paper",
        kd: str = "kl",
        scale: str = "tau_squared",
        task: str = "whole",
        mask: str = "shared",
        distillation: str = "group",
        normalise: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha {alpha}: expected a fraction of voxels to leave out, 0 <= alpha < 1.")
        for key, value in (("task_weight", task_weight), ("kd_weight", kd_weight)):
            check_number(key, value, 0)
        for key, value in (("T_L", leader_threshold), ("T_M", member_threshold), ("rho", rho)):
            check_number(key, value, 0, 1)
        check_number("tau", tau, 0.01)
        self.classes, self.modalities = tuple(classes), tuple(modalities)
        self.leaders = _resolve(leaders, self.modalities, self.classes)
        self.task_weight, self.kd_weight, self.tau = task_weight, kd_weight, tau
        self.thresholds, self.rho, self.alpha = (leader_threshold, member_threshold), rho, alpha
        self.votes = check_choice("votes", votes, ("paper", "released"))
        self.kd = check_choice("kd", kd, ("kl", "released"))
        tenth = check_choice("scale", scale, ("tau_squared", "released")) == "released"
        self.scale = tau**2 / 10 if tenth else tau**2
        self.whole = check_choice("task", task, ("whole", "released")) == "whole"
        self.mask = check_choice("mask", mask, ("shared", "per_student"))
        self.distillation = check_choice("distillation", distillation, ("group", "mutual", "fusion"))
        self.normalise = normalise
        self.task_loss = FusionLoss()
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: FusionOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a network's training outputs against class indices ``(B, 1, ...)``.

        Raises ValueError if a sample lacks a modality, the target does not fit (see `class_indices`), or the number of
        the head's classes is not that of ``classes``.
        """
        self._check(output)
        parts = self.task_loss.parts(output, target)
        logits = output.separate.as_subclass(torch.Tensor).float().flatten(2)
        logits = logits.unflatten(0, output.present.shape)  # (B, M, K, N)
        log_students = (logits / self.tau).log_softmax(dim=2)
        taught = self._soft_target(logits, log_students, output.fused.logits)
        counted = (target.as_subclass(torch.Tensor) != IGNORED).flatten(2)  # (B, 1, N)
        kept = random_mask(logits, self.alpha, self.mask) & counted
        loss = kd_loss(taught, log_students, kept, self.kd)
        self.terms = {**self.task_loss.terms, "distillation": loss.detach()}
        free = 0 if self.whole else parts["fuse"] + parts["deep"]
        task = sum(parts.values()) - free
        return free + self.task_weight * task + self.kd_weight * self.scale * loss

    @torch.no_grad()
    def _soft_target(self, logits: torch.Tensor, log_students: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
        """Return the soft target, ``(B, 1, K, N)`` or for mutual distillation ``(B, M, K, N)``."""
        if self.distillation == "fusion":
            return (fused.as_subclass(torch.Tensor).float().flatten(2)[:, None] / self.tau).softmax(dim=2)
        votes = log_students.exp()
        if self.distillation == "mutual":
            return (votes.sum(dim=1, keepdim=True) - votes) / (votes.shape[1] - 1)
        elected = group_vote(logits.softmax(dim=2), votes, self.leaders, *self.thresholds, self.rho, self.votes)
        return (normalised_votes(elected) if self.normalise else elected)[:, None]

    def _check(self, output: FusionOutput) -> None:
        classes = output.fused.logits.shape[1]
        if classes != len(self.classes):
            raise ValueError(
                f"classes {', '.join(self.classes)}: {len(self.classes)} names, but the network's head has {classes} "
                "classes. Give as many names as the head has classes, including the background."
            )
        if output.present.shape[1] != len(self.modalities) or not bool(output.present.all()):
            raise ValueError(
                f"modalities: a sample of the batch lacks one of {', '.join(self.modalities)}, but GSS needs all "
                "modalities in training, since they vote for each other's target. Leave incomplete subjects out of the "
                "training datalist, or train with M3AE, MAG-MS or PASSION."
            )


def _resolve(
    leaders: Mapping[str, Sequence[str]], modalities: Sequence[str], classes: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return the leaders of each class as indices of modalities."""
    if set(leaders) != set(classes):
        raise ValueError(f"leaders of {', '.join(leaders)}; expected those of {', '.join(classes)}.")
    resolved = []
    for name in classes:
        given = [ALIASES.get(modality.lower(), modality) for modality in leaders[name]]
        if len(given) not in (1, 2) or len(set(given)) != len(given) or not set(given) < set(modalities):
            raise ValueError(
                f"leaders: class {name!r} has {leaders[name]!r}; expected a list of one or two of "
                f"{', '.join(modalities)}, but not all of them."
            )
        resolved.append(tuple(modalities.index(modality) for modality in given))
    return resolved
