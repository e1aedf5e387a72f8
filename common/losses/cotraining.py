"""What the losses of ACN and SMU-Net share: Dice of both paths, their consistency, and discriminators between them.

Source: Wang et al., MICCAI 2021 (ACN); Azad et al., MIDL 2022 (SMU-Net); formulas and constants of their released code.

A discriminator is to tell the full path (0) from a missing path (1), which is to be taken for the full one. There are
two optimisers for this in the released code, and a single one here, with one backward pass: discriminators learn from
detached maps, and the missing path from discriminators whose weights are detached, so each gets the gradient that it
would have got. (The released code makes the discriminators' optimiser anew in each step, so that its moments never
accumulate; we keep it.)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn
from torch.func import functional_call

from common.io.settings import check_number
from common.losses.fusion import class_indices


class CoTrainingOutput(NamedTuple):
    """What the method forwards to a loss.

    Attributes:
        full: what the full path returns in training, an `ACNOutput` or a `SMUNetOutput`.
        missing: what a missing path returns for the same samples.
    """

    full: Any
    missing: Any


def ramp_up(epoch: int, length: int) -> float:
    """Return ``exp(-5 (1 - min(t, T) / T)^2)``, by which the consistency's weight grows over the first T epochs.

    Args:
        epoch: t, from 0.
        length: T.
    """
    return math.exp(-5 * (1 - min(epoch, length) / length) ** 2)


class Discriminator(nn.Sequential):
    """Convolutions with LeakyReLU 0.2 between them.

    Args:
        channels: of the input, and of what each convolution gives.
        kernel: of all convolutions; padded by 1.
        strides: of each.
        least: the smallest input that the convolutions can take; smaller ones are padded by zeros at their end.
    """

    def __init__(self, channels: tuple[int, ...], kernel: int, strides: tuple[int, ...], least: int = 1) -> None:
        layers: list[nn.Module] = []
        for before, after, stride in zip(channels[:-1], channels[1:], strides, strict=True):
            layers += [nn.Conv3d(before, after, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers[:-1])
        self.least = least

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, C, ...)`` to logits ``(B, C', ...)`` of not being from the full path."""
        lacking = [max(0, self.least - extent) for extent in x.shape[:1:-1]]
        return super().forward(F.pad(x, [pad for extent in lacking for pad in (0, extent)]) if any(lacking) else x)


def generator_loss(discriminator: nn.Module, missing: torch.Tensor) -> torch.Tensor:
    """Return the scalar cross-entropy by which a missing path's map ``(B, C, ...)`` is not taken for the full path's.

    Its gradient reaches the map alone.
    """
    weights = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    logits = functional_call(discriminator, weights, (missing,)).float()
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def discriminator_loss(discriminator: nn.Module, full: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return the scalar ``(BCE(D(full), 0) + BCE(D(missing), 1)) / 2`` of two maps ``(B, C, ...)``.

    Its gradient reaches the discriminator alone.
    """
    logits = discriminator(torch.cat([full, missing]).detach()).float()
    target = torch.zeros_like(logits)
    target[len(full) :] = 1
    return F.binary_cross_entropy_with_logits(logits, target)


class CoTrainingLoss(nn.Module):
    """``a Dice_full + b Dice_missing + w(t) consistency``, to which ACN and SMU-Net add their own.

    Dice of a class is ``1 - (2 sum p y) / (sum p^2 + sum y^2 + 1e-7)`` of its sigmoid p, sums over batch and space; it
    is summed over the classes other than the background, as is the mean squared difference between both paths' sigmoids
    (the consistency, which draws both). ``w(t) = c ramp_up(t)``.

    Args:
        ramp_epochs: T of `ramp_up`.
        weights: of the terms, by name; ``full``, ``missing`` and ``consistency`` (c) are those of above.

    Attributes:
        discriminators: an `nn.ModuleDict`, whose parameters the optimiser needs beside the network's.
        epoch: t, from 0; `common.engines.SetEpoch` tells it.
        terms: the latest values of all terms without their weights, detached.

    Raises:
        ValueError: a negative weight, or no epoch to ramp over.
    """

    def __init__(self, ramp_epochs: int, **weights: float) -> None:
        super().__init__()
        self.ramp_epochs = check_number("ramp_epochs", ramp_epochs, 1)
        self.weights = {name: check_number(f"{name}_weight", weight, 0) for name, weight in weights.items()}
        self.dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            squared_pred=True,
            batch=True,
            reduction="sum",
            smooth_nr=0,
            smooth_dr=1e-7,
        )
        self.discriminators = nn.ModuleDict()
        self.epoch = 0
        self.terms: dict[str, torch.Tensor] = {}

    def shared_terms(self, output: CoTrainingOutput, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms ``full``, ``missing`` and ``consistency``, scalars.

        Args:
            output: of both paths.
            target: class indices ``(B, 1, ...)``.

        Raises:
            ValueError: the target does not fit, see `class_indices`.
        """
        label = class_indices(target, output.full.logits)
        full, missing = (sigmoids(path) for path in output)
        consistency = (full - missing)[:, 1:].square().mean() * (full.shape[1] - 1)
        return {"full": self.dice(full, label), "missing": self.dice(missing, label), "consistency": consistency}

    def weighted_total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the terms, and keep them; ``discriminators`` weighs 1."""
        self.terms = {name: value.detach() for name, value in terms.items()}
        weights = {"discriminators": 1.0, **self.weights}
        weights["consistency"] *= ramp_up(self.epoch, self.ramp_epochs)
        return sum(weights[name] * value for name, value in terms.items())


def sigmoids(output: Any) -> torch.Tensor:
    """Return the probabilities ``(B, K, ...)`` of a path's output, a plain float32 tensor."""
    return output.logits.as_subclass(torch.Tensor).float().sigmoid()
