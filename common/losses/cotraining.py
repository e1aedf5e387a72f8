"""Common parts of the losses of ACN and SMU-Net: Dice of both paths, their consistency, and discriminators.

Source: Wang et al., MICCAI 2021 (ACN); Azad et al., MIDL 2022 (SMU-Net); formulas and constants of their released code.

A discriminator learns to tell the full path (0) from a missing path (1), while the missing path learns to be taken for
the full one. The released code has two optimisers for this. Here one optimiser and one backward pass suffice:
discriminators learn from detached maps, and the missing path from discriminators with detached weights, so each gets
the same gradient. (The released code creates the discriminators' optimiser anew in each step, so that its moments never
accumulate; here they accumulate.)
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn
from torch.func import functional_call

from common.io.settings import check_number
from common.losses.parts import class_indices


class CoTrainingOutput(NamedTuple):
    """Output of the co-training method, which the losses take.

    Attributes:
        full: training output of the full path, an `ACNOutput` or a `SMUNetOutput`.
        missing: training output of a missing path for the same samples.
    """

    full: Any
    missing: Any


def ramp_up(epoch: int, length: int) -> float:
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
            layers += [nn.Conv3d(before, after, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
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
        epoch: number of the epoch t, from 0, set by `common.engines.SetEpoch`.
    """

    def __init__(self, ramp_epochs: int, **weights: float) -> None:
        super().__init__()
        self.ramp_epochs = check_number("ramp_epochs", ramp_epochs, 1)
        self.weights = {name: check_number(f"{name}_weight", weight, 0) for name, weight in weights.items()}
        settings = {"squared_pred": True, "batch": True, "reduction": "sum", "smooth_nr": 0, "smooth_dr": 1e-7}
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, **settings)
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
        return sum(weights[name] * value for name, value in terms.items())


def sigmoids(output: Any) -> torch.Tensor:
    """Return the probabilities ``(B, K, ...)`` of a path's output as a plain float32 tensor."""
    return output.logits.as_subclass(torch.Tensor).float().sigmoid()
