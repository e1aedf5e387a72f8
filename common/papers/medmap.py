"""MedMAP: on top of another method, every modality's features are pulled to one anchor.

Source: Liu et al., "MedMAP: Promoting Incomplete Multi-modal Brain Tumor Segmentation with Alignment": section IV-A is
the anchor, eq. (12) and (13); section IV-B adds alpha L_A to the loss of a backbone, eq. (14), (16) and (17). Features
are those of the feature encoder T (`common.networks.feature_encoder`), or bottlenecks. The norm is a mean over
elements, since only a mean has the magnitude of the original loss, which alpha = 1/8 "of the original loss"
presupposes. At inference the feature encoder stays, and the anchor is not used.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from common.io.settings import check_choice, check_number
from common.networks.feature_encoder import FeatureEncoder
from common.networks.kernels import weighted_sum
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities

FLOOR = 1e-6  # constant added to a standard deviation before its logarithm
LEAST_SHARE = 0.1
"""Smallest usable sum of the weights of the present modalities, as a share of the absolute sum of all; below it the
weights nearly cancel, and rescaling could blow up."""


class AlignedOutput(NamedTuple):
    """Output of a method, with the features to align.

    Attributes:
        output: output of the method.
        features: ``(B, M, C, ...)``, zero where a modality is absent; None if nothing is aligned.
        present: bool ``(B, M)``.
    """

    output: Any
    features: torch.Tensor | None
    present: torch.Tensor | None


class FeatureAlignment(TrainingStep):
    """Run a method's training step, and collect the features to align from its network.

    Args:
        method: training step whose outputs are passed on.
        align: whether to collect features; if False, only the outputs are passed on.
        at: ``input``, the feature encoder's output; or ``bottleneck``, that of each modality alone, for networks with
            ``bottlenecks(image, present)`` (only ACN; the paper describes it this way), at M more passes of the
            encoder.
    """

    network: Any

    def __init__(self, method: nn.Module, network: nn.Module, align: bool = True, at: str = "input") -> None:
        super().__init__(network)
        self.method, self.align = method, align
        self.at = check_choice("align_at", at, ("input", "bottleneck"))
        encoders = [module for module in network.modules() if isinstance(module, FeatureEncoder) and module.kind]
        if not align:
            return
        if at == "bottleneck" and not hasattr(network, "bottlenecks"):
            raise ValueError(
                f"align_at 'bottleneck': {type(network).__name__} cannot compute the bottleneck of one modality; "
                "only ACN can. Set `align_at` to input."
            )
        if at == "input" and len(encoders) != 1:
            raise ValueError(
                f"{type(network).__name__} has {len(encoders)} feature encoders to align; expected one. Set "
                "`feature_encoder` to shared or separate, or `anchor` to null to train without alignment."
            )
        self.aligned = encoders[0] if at == "input" else None

    def forward(self, image: torch.Tensor) -> AlignedOutput:
        """Return the method's outputs for crops ``(B, M, ...)`` and the features to align."""
        if not self.align:
            return AlignedOutput(self.method(image), None, None)
        if self.aligned is None:
            present = available_modalities(image, None)
            return AlignedOutput(self.method(image), self.network.bottlenecks(image, present), present)
        passes: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = self.aligned.register_forward_hook(lambda _, inputs, output: passes.append((output, inputs[1])))
        try:
            output = self.method(image)
        finally:
            hook.remove()  # so that validation does not fill the list
        ((features, present),) = passes
        return AlignedOutput(output, features, present)


class Alignment(nn.Module):
    """L_A, the mean squared distance of the modalities' features from their anchor.

    The anchor ``adaptive`` (P*, eq. 13) is a sum of all modalities with learned weights; features and anchor get a
    gradient. The anchor named after a modality (P^k, eq. 12) is that modality's features, without gradient. ``normal``
    (P_N) has no anchor: the loss is the divergence of each channel's mean and standard deviation over space from those
    of N(0, 1).

    Where modalities are absent, sums run over those present. The adaptive weights are scaled to their full sum or, if
    little of it is left (`LEAST_SHARE`), made equal. A sample without the named modality has no loss. ``prior`` is the
    modality whose initial weight is 1; those of the others are 0.
    """

    def __init__(self, modalities: Sequence[str], anchor: str = "adaptive", prior: str = "flair") -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.anchor = check_choice("anchor", anchor, ("adaptive", "normal", *modalities))
        if anchor == "adaptive":
            if prior not in modalities:
                raise ValueError(
                    f"prior {prior!r}: is not a sequence of the cohort; set the key `prior` to that which shows the "
                    f"target best, one of {', '.join(modalities)}."
                )
            self.weights = nn.Parameter(torch.tensor([float(name == prior) for name in modalities]))

    def forward(self, features: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the scalar L_A of features ``(B, M, C, ...)``; ``present`` is bool ``(B, M)``."""
        if features.shape[1] != len(self.modalities):
            raise ValueError(
                f"Features of {features.shape[1]} modalities to align; expected {len(self.modalities)} "
                f"({', '.join(self.modalities)}). Use the same cohort for the anchor and the features."
            )
        features, present = features.float(), present.to(features.device, non_blocking=True)
        share = present / present.sum(dim=1, keepdim=True)
        if self.anchor == "normal":
            flat = features.flatten(3)
            mean, std = flat.mean(dim=3), flat.std(dim=3, unbiased=False) + FLOOR
            divergence = (-std.log() + (std.square() + mean.square() - 1) / 2).mean(dim=2)
            return (divergence * share).sum(dim=1).mean()
        anchor, valid = self._anchor(features, present, share)
        distance = (features - anchor).square().flatten(2).mean(dim=2)
        return (distance * share * valid).sum(dim=1).mean()

    def _anchor(
        self, features: torch.Tensor, present: torch.Tensor, share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the anchor ``(B, 1, C, ...)`` of each sample, and whether it has one, bool ``(B, 1)``."""
        if self.anchor != "adaptive":
            k = self.modalities.index(self.anchor)
            return features[:, k : k + 1].detach(), present[:, k : k + 1]
        weights = self.weights * present
        part = weights.sum(dim=1, keepdim=True)
        usable = part.abs() > LEAST_SHARE * self.weights.abs().sum()
        scale = torch.where(usable, self.weights.sum() / torch.where(usable, part, 1), 1)
        weights = torch.where(usable | present.all(dim=1, keepdim=True), weights * scale, share)
        return weighted_sum(weights[:, None], features), torch.ones_like(usable)


class AlignedLoss(nn.Module):
    """A method's loss plus alpha L_A, eq. (14), (16), (17); for ``modalities`` and ``prior`` see `Alignment`.

    Without an ``anchor`` it is the method's loss alone.

    Attributes:
        terms: those of the method's loss, and ``align``.

    Examples:
        >>> import torch
        >>> from common.baselines.hved import SoftmaxLoss
        >>> from common.papers.medmap import AlignedLoss, AlignedOutput
        >>> features = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1, 1)  # of T1c and FLAIR
        >>> output = AlignedOutput(torch.zeros(1, 3, 4, 4), features, present=torch.tensor([[True, True]]))
        >>> loss = AlignedLoss(SoftmaxLoss(), ["t1c", "flair"], anchor="t1c")
        >>> value = loss(output, torch.zeros(1, 1, 4, 4))
        >>> loss.terms["align"]  # the mean of 0 and (2 - 0) ** 2, which counts an eighth
        tensor(2.)
    """

    def __init__(
        self,
        loss: nn.Module,
        modalities: Sequence[str],
        anchor: str | None = "adaptive",
        alpha: float = 0.125,
        prior: str = "flair",
    ) -> None:
        super().__init__()
        self.loss: Any = loss
        self.alpha = check_number("alpha", alpha, 0)
        self.alignment = None if anchor is None else Alignment(modalities, anchor, prior)
        self.terms: dict[str, torch.Tensor] = {}

    @property
    def aligns(self) -> bool:
        """Whether there is an anchor."""
        return self.alignment is not None

    def forward(self, output: AlignedOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a method's output against its target."""
        total = self.loss(output.output, target)
        self.terms = dict(self.loss.terms)
        if self.alignment is not None:
            if output.features is None or output.present is None:
                raise ValueError("`FeatureAlignment` passed on no features to align: expected its `align` to be true.")
            with torch.autocast(output.features.device.type, enabled=False):
                align = self.alignment(output.features, output.present)
            self.terms["align"] = align.detach()
            total = total + self.alpha * align
        return total
