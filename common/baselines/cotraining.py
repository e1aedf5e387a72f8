"""ACN and SMU-Net: a full path and a missing path process the same subjects and learn from each other.

Source: Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI
2021; Azad et al., "SMU-Net: Style Matching U-Net for Brain Tumor Segmentation with Missing Modalities", MIDL 2022;
formulas and constants of their released code. They train a pair of paths for one subset; here each step draws one of
the subsets that have a missing path. The networks are in `common.networks.cotraining`.

Both have discriminators. A discriminator learns to tell the full path (0) from a missing path (1), while the missing
path learns to be taken for the full one. The released code has two optimisers for this. Here one optimiser and one
backward pass suffice: discriminators learn from detached maps, and the missing path from discriminators with detached
weights, so each gets the same gradient. (The released code creates the discriminators' optimiser anew in each step, so
that its moments never accumulate; here they accumulate.)

ACN's mutual information follows the paper: in the released code both bottlenecks come from the missing path, so the
full path has no influence.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn
from torch.func import functional_call

from common.io.settings import check_choice, check_number
from common.losses.dice_ce import class_indices
from common.networks.dedicated import FullAndMissing
from common.networks.kernels import Conv3d
from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities

EPSILON = 1e-30  # constant added to a probability before its logarithm (released code)
STYLE_SIZE = (20, 24, 16)
"""Size of the style for the published crop of 160x192x128, the only one that the released discriminator accepts."""


class CoTrainingOutput(NamedTuple):
    """Training outputs of the full and of a missing path for the same samples: `ACNOutput` or `SMUNetOutput`."""

    full: Any
    missing: Any


class CoTraining(TrainingStep):
    """Run all modalities through the full path of an ACN or SMUNet, and a random subset through its missing path."""

    network: FullAndMissing

    def forward(self, image: torch.Tensor) -> CoTrainingOutput:
        """Return the outputs of both paths for crops ``(B, M, X, Y, Z)``; a missing modality is a ValueError."""
        present = available_modalities(image, None)
        if not bool(present.all()):
            lacking = (~present).any(dim=0).nonzero().flatten().tolist()
            raise ValueError(
                f"{int((~present).any(dim=1).sum())} of {len(present)} training samples lack a modality (channels "
                f"{lacking}), but the full path of {type(self.network).__name__} needs all. Train on complete subjects."
            )
        x, missing = self.network.features(image, present), self.network.missing
        subset = missing.draw_subset(present)
        return CoTrainingOutput(self.network.full(x), missing.network_for(subset)(missing.select_channels(x, subset)))


def ramp_up(epoch: int, length: float) -> float:
    """Return ``exp(-5 (1 - min(t, T) / T)^2)``, the factor of a weight in epoch t of a ramp of length T (epochs)."""
    return math.exp(-5 * (1 - min(epoch, length) / length) ** 2)


class Discriminator(nn.Sequential):
    """A sequence of convolutions with LeakyReLU (negative slope 0.2) between them.

    ``channels`` are those of the input and of each convolution's output. Convolutions have padding 1. Inputs of less
    than ``least`` voxels along an axis are padded with zeros at their end.
    """

    def __init__(self, channels: tuple[int, ...], kernel: int, strides: tuple[int, ...], least: int = 1) -> None:
        layers: list[nn.Module] = []
        for before, after, stride in zip(channels[:-1], channels[1:], strides, strict=True):
            layers += [Conv3d(before, after, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])
        self.least = least

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to logits ``(B, C', ...)``; high means that the input is not from the full path."""
        lacking = [max(0, self.least - extent) for extent in x.shape[:1:-1]]
        return super().forward(F.pad(x, [pad for extent in lacking for pad in (0, extent)]) if any(lacking) else x)


def generator_loss(discriminator: nn.Module, missing: torch.Tensor) -> torch.Tensor:
    """Return the scalar cross-entropy that is low if a missing path's map ``(B, C, ...)`` is taken for the full path's.

    Only the map gets a gradient.
    """
    weights = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    logits = functional_call(discriminator, weights, (missing,)).float()
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def discriminator_loss(discriminator: nn.Module, full: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return the scalar ``(BCE(D(full), 0) + BCE(D(missing), 1)) / 2`` of two maps ``(B, C, ...)``.

    Only the discriminator gets a gradient.
    """
    logits = discriminator(torch.cat([full, missing]).detach()).float()
    target = torch.zeros_like(logits)
    target[len(full) :] = 1
    return F.binary_cross_entropy_with_logits(logits, target)


class CoTrainingLoss(nn.Module):
    """``a Dice_full + b Dice_missing + w(t) consistency``, to which ACN and SMU-Net add their own terms.

    The Dice loss of a class is ``1 - (2 sum p y) / (sum p^2 + sum y^2 + 1e-7)`` with sigmoids p and sums over batch and
    space. It is summed over the classes without the background, as is the consistency, the mean squared difference
    between both paths' sigmoids, which has a gradient for both paths. ``w(t) = c ramp_up(t)``. T of the ramp is
    ``ramp_epochs`` (see `ramp_up`); the weights ``full``, ``missing`` and ``consistency`` are a, b and c.

    Attributes:
        discriminators: an `nn.ModuleDict` whose parameters the optimiser needs in addition to the network's.
        epoch: number of the epoch t, from 0, set by `common.engines.epoch.SetEpoch`.
    """

    def __init__(self, ramp_epochs: int, **weights: float) -> None:
        super().__init__()
        self.ramp_epochs = check_number("ramp_epochs", ramp_epochs, 1)
        self.weights = {name: check_number(f"{name}_weight", weight, 0) for name, weight in weights.items()}
        settings: dict[str, Any] = {"squared_pred": True, "reduction": "sum", "smooth_nr": 0, "smooth_dr": 1e-7}
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, batch=True, **settings)
        self.discriminators = nn.ModuleDict()
        self.epoch = 0
        self.terms: dict[str, torch.Tensor] = {}

    def shared_terms(self, output: CoTrainingOutput, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the scalars ``full``, ``missing`` and ``consistency`` against class indices ``(B, 1, ...)``."""
        label = class_indices(target, output.full.logits, ignoring=False)
        full, missing = (sigmoids(path) for path in output)
        consistency = (full - missing)[:, 1:].square().mean() * (full.shape[1] - 1)
        return {"full": self.dice(full, label), "missing": self.dice(missing, label), "consistency": consistency}

    def weighted_total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the terms and store them; ``discriminators`` has the weight 1."""
        self.terms = {name: value.detach() for name, value in terms.items()}
        weights = {"discriminators": 1.0, **self.weights}
        weights["consistency"] *= ramp_up(self.epoch, self.ramp_epochs)
        return sum((weights[name] * value for name, value in terms.items()), torch.zeros(()))


def sigmoids(output: Any) -> torch.Tensor:
    """Return the probabilities ``(B, K, ...)`` of a path's output as a plain float32 tensor."""
    return output.logits.as_subclass(torch.Tensor).float().sigmoid()


def entropy_maps(probabilities: torch.Tensor) -> torch.Tensor:
    """Return ``-q log2 q / log2 K``, ``(B, K, ...)``; q is the softmax of the classes' sigmoids (released code)."""
    soft = probabilities.softmax(dim=1)
    return -soft * (soft + EPSILON).log2() / math.log2(soft.shape[1])


def mutual_information(output: CoTrainingOutput) -> torch.Tensor:
    """Return L_MI, the negative log-likelihood of the full path's bottleneck under the missing path's prediction.

    Up to a constant it is the mean over elements of ``((mean - f)^2 / variance + log variance) / 2``, where f is that
    bottleneck, without gradient, since the bound on the mutual information treats its entropy as a constant.
    """
    missing = output.missing
    target = output.full.bottleneck.detach().float()
    variance = missing.variance.float()[:, None, None, None]
    return ((missing.mean.float() - target).square() / variance + variance.log()).mean() / 2


class ACNLoss(CoTrainingLoss):
    """``0.2 Dice_full + 0.8 Dice_missing + w(t) consistency + 0.5 L_MI + 0.001 L_EnA + 0.0002 L_KnA``.

    L_MI is weighted by ``information_weight``, L_EnA by ``entropy_weight``, L_KnA by ``knowledge_weight``; for the
    first three terms see `CoTrainingLoss`. L_EnA and L_KnA apply to the missing path: they are low when the
    discriminators mistake its entropy maps and its bottleneck for those of the full path. The discriminators' own
    losses are added. Their channels grow with the network's width; at 16 they are as published. Entropy maps of less
    than 32 voxels are padded. ``classes`` and ``width`` are those of the network.

    Attributes:
        discriminators: ``entropy`` and ``knowledge``; the optimiser needs their parameters.
        terms: ``full``, ``missing``, ``consistency``, ``information``, ``entropy``, ``knowledge`` and
            ``discriminators``.
    """

    def __init__(
        self,
        classes: int = 4,
        width: int = 16,
        full_weight: float = 0.2,
        missing_weight: float = 0.8,
        consistency_weight: float = 10.0,
        ramp_epochs: int = 20,
        information_weight: float = 0.5,
        entropy_weight: float = 0.001,
        knowledge_weight: float = 0.0002,
    ) -> None:
        super().__init__(
            ramp_epochs,
            full=full_weight,
            missing=missing_weight,
            consistency=consistency_weight,
            information=information_weight,
            entropy=entropy_weight,
            knowledge=knowledge_weight,
        )
        of_maps = (classes, 4 * width, 8 * width, 16 * width, 32 * width, 1)
        self.discriminators["entropy"] = Discriminator(of_maps, 4, (2, 2, 2, 2, 2), least=32)
        of_features = (8 * width, 16 * width, 32 * width, 1)
        self.discriminators["knowledge"] = Discriminator(of_features, 3, (1, 1, 2))

    def forward(self, output: CoTrainingOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of two `ACNOutput`, full and missing, against class indices ``(B, 1, ...)``."""
        terms = self.shared_terms(output, target) | {"information": mutual_information(output)}
        maps = {
            "entropy": [entropy_maps(sigmoids(path)) for path in output],
            "knowledge": [path.bottleneck for path in output],
        }
        for name, (_, missing) in maps.items():
            terms[name] = generator_loss(self.discriminators[name], missing)
        losses = [discriminator_loss(self.discriminators[name], *both) for name, both in maps.items()]
        terms["discriminators"] = sum(losses, torch.zeros(()))
        return self.weighted_total(terms)


def gram(features: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrix ``(B C, B C)`` of ``(B, C, ...)``, divided by the number of elements."""
    flat = features.float().flatten(0, 1).flatten(1)
    with torch.autocast(features.device.type, enabled=False):
        return flat @ flat.T / flat.numel()


def style_distance(full: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return ``sum (G_full - G_missing)^2 / (4 C^2 (H W)^2)``, a scalar, of two styles ``(B, C, H, W, D)``.

    As in the released code, the Gram matrices G are already divided by the number of elements, so the result is tiny.
    """
    _, channels, height, width, _ = full.shape
    return (gram(full) - gram(missing)).square().sum() / (4 * channels**2 * (height * width) ** 2)


class StyleDiscriminator(Discriminator):
    """The discriminator of styles ``(B, 8 * width, ...)``; at a width of 16 its channels are as published.

    Kind ``pooled`` ends with global average pooling and a linear layer, for styles of any size (those of less than 8
    voxels are padded); ``released`` ends with a convolution that spans the style of the published crop.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__((8 * width, 4 * width, 8 * width, 16 * width), 4, (2, 2, 2), least=8)
        self.kind = kind
        self.append(nn.LeakyReLU(0.2))
        if kind == "pooled":
            self.append(nn.AdaptiveAvgPool3d(1))
        self.append(nn.Conv3d(16 * width, 1, 1 if kind == "pooled" else (2, 3, 2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 8 * width, ...)`` to logits ``(B, 1, 1, 1, 1)``; high means not from the full path."""
        if self.kind == "released" and tuple(x.shape[2:]) != STYLE_SIZE:
            raise ValueError(
                f"A style of {list(x.shape[2:])} voxels, but the released discriminator expects {list(STYLE_SIZE)}, "
                "that of a crop of 160x192x128. Set `crop` to this, or `style_discriminator` to pooled."
            )
        return super().forward(x)


class SMUNetLoss(CoTrainingLoss):
    """``0.4 Dice_full + 0.6 Dice_missing + w(t) consistency + 0.2 content + 1e-4 style + 0.0002 adversary``.

    For the first three terms see `CoTrainingLoss`. Content is the mean squared difference of the two paths' contents,
    style that of their Gram matrices (see `style_distance`). The adversary's term applies to the missing path, whose
    style should be taken for the full path's. The discriminator's own loss, ``BCE(D(full), 0) + BCE(D(missing), 1)``,
    is added. ``style_discriminator`` is ``pooled`` or ``released``; see `StyleDiscriminator`.

    Attributes:
        discriminators: ``style``; the optimiser needs its parameters.
        terms: ``full``, ``missing``, ``consistency``, ``content``, ``style``, ``adversary`` and ``discriminators``.
    """

    def __init__(
        self,
        width: int = 16,
        full_weight: float = 0.4,
        missing_weight: float = 0.6,
        consistency_weight: float = 10.0,
        ramp_epochs: int = 20,
        content_weight: float = 0.2,
        style_weight: float = 1e-4,
        adversary_weight: float = 0.0002,
        style_discriminator: str = "pooled",
    ) -> None:
        super().__init__(
            ramp_epochs,
            full=full_weight,
            missing=missing_weight,
            consistency=consistency_weight,
            content=content_weight,
            style=style_weight,
            adversary=adversary_weight,
        )
        kind = check_choice("style_discriminator", style_discriminator, ("pooled", "released"))
        self.discriminators["style"] = StyleDiscriminator(width, kind)

    def forward(self, output: CoTrainingOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of two `SMUNetOutput`, full and missing, against class indices ``(B, 1, ...)``."""
        full, missing = output
        discriminator = self.discriminators["style"]
        terms = self.shared_terms(output, target) | {
            "content": F.mse_loss(full.content.float(), missing.content.float()),
            "style": style_distance(full.style, missing.style),
            "adversary": generator_loss(discriminator, missing.style),
            "discriminators": 2 * discriminator_loss(discriminator, full.style, missing.style),
        }
        return self.weighted_total(terms)
