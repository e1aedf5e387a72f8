"""One network made of several, each for one subset of the modalities.

Methods that train a network for every subset (one UNETR per subset, PMKL's students, the missing paths of ACN and
SMU-Net) are one network here: each sample is sent to the part for its modalities. So they are trained, saved and
evaluated like any other network.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import nn

from common.modalities import resolve_subset
from common.networks.feature_encoder import FeatureEncoder
from common.networks.subsets import available_modalities, indices, select_rows

Subset = tuple[int, ...]
"""Channels of an image: the positions of the modalities in the cohort's order."""


def channel_subsets(modalities: int, complete: bool = True) -> list[Subset]:
    """Return the non-empty subsets of M channels, fewest first; the full set is included only if ``complete``."""
    sizes = range(1, modalities + 1 if complete else modalities)
    return [subset for size in sizes for subset in combinations(range(modalities), size)]


def channels_of(subsets: Sequence[Sequence[str]] | None, modalities: Sequence[str]) -> list[Subset] | None:
    """Return subsets of a cohort's modalities, given by names or aliases, as channels; None stays None."""
    if subsets is None:
        return None
    return [tuple(map(modalities.index, resolve_subset(subset, modalities))) for subset in subsets]


class Dedicated(nn.Module):
    """A collection of networks, one for each of several subsets of the modalities.

    Function ``build`` makes one for a number of input channels; a modality has ``channels`` C.
    """

    def __init__(self, subsets: Sequence[Subset], build: Callable[[int], nn.Module], channels: int = 1) -> None:
        super().__init__()
        self.subsets, self.channels = [tuple(subset) for subset in subsets], channels
        self.networks = nn.ModuleDict({_key(subset): build(channels * len(subset)) for subset in self.subsets})

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of ``(B, M * C, ...)``; those of a sample are by the network for its subset.

        Raises ValueError if there is no network for a sample's modalities (``present``: bool ``(B, M)``, on the CPU).
        """
        there = [(subset, (present == present.new_tensor(row)).all(dim=1)) for subset, row in self._present_in(present)]
        parts = [self.network_for(subset)(self.select_channels(select_rows(x, of), subset)) for subset, of in there]
        logits = parts[0].new_zeros(len(x), *parts[0].shape[1:])
        for (_, of), part in zip(there, parts, strict=True):
            logits.index_copy_(0, indices(of, x.device), part)
        return logits

    def supported_subsets(self, modalities: Sequence[str]) -> list[list[str]]:
        """Return the subsets that have a network, as names of the cohort's modalities."""
        return [[modalities[m] for m in subset] for subset in self.subsets]

    def network_for(self, subset: Subset) -> Any:
        """Return the network for a subset."""
        return self.networks[_key(subset)]

    def select_channels(self, x: torch.Tensor, subset: Subset) -> torch.Tensor:
        """Select the channels ``(B, |S| * C, ...)`` of a subset from ``(B, M * C, ...)``."""
        return torch.cat([x[:, m * self.channels : (m + 1) * self.channels] for m in subset], dim=1)

    def draw_subset(self, present: torch.Tensor) -> Subset:
        """Draw one of the subsets that every sample of ``present`` (bool ``(B, M)``) has; none is a ValueError."""
        everywhere = present.all(dim=0).tolist()
        possible = [subset for subset in self.subsets if all(everywhere[m] for m in subset)]
        if not possible:
            raise ValueError(
                f"All samples of the batch have channels {[m for m, there in enumerate(everywhere) if there]}, but the "
                f"networks are for channels {self.subsets}: none can be trained. Train on complete subjects."
            )
        return possible[int(torch.randint(len(possible), ()))]

    def _present_in(self, present: torch.Tensor) -> list[tuple[Subset, list[bool]]]:
        pairs = []
        for row in present.unique(dim=0).tolist():
            subset = tuple(m for m, there in enumerate(row) if there)
            if subset not in self.subsets:
                raise ValueError(
                    f"No network was trained for the modalities at channels {list(subset)}; expected one of "
                    f"{self.subsets}. Leave the subset out (key `subsets`), or train one for it (key `dedicated`)."
                )
            pairs.append((subset, row))
        return pairs


class FullAndMissing(nn.Module):
    """A network for all modalities, and for each incomplete subset a network that learns from it.

    The ``full`` one takes ``(B, M * C, ...)``; function ``missing`` makes the one of an incomplete subset for a number
    of input channels. MedMAP's feature encoder is in front of both. Of ``subsets`` None stands for all incomplete ones.
    """

    def __init__(
        self,
        modalities: int,
        full: nn.Module,
        missing: Callable[[int], nn.Module],
        feature_encoder: FeatureEncoder,
        subsets: Sequence[Subset] | None = None,
    ) -> None:
        super().__init__()
        self.feature_encoder, self.full = feature_encoder, full
        wanted = channel_subsets(modalities, complete=False) if subsets is None else subsets
        self.missing = Dedicated(wanted, missing, feature_encoder.channels)

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits ``(B, K, ...)`` of images ``(B, M, ...)`` with NaN in missing ones, in evaluation mode."""
        present = available_modalities(image, present)
        x, complete = self.features(image, present), present.all(dim=1)
        if bool(complete.all()):
            return self.full(x)
        incomplete = self.missing(select_rows(x, ~complete), present[~complete])
        logits = incomplete.new_zeros(len(x), *incomplete.shape[1:])
        logits.index_copy_(0, indices(~complete, x.device), incomplete)
        if bool(complete.any()):
            logits.index_copy_(0, indices(complete, x.device), self.full(select_rows(x, complete)))
        return logits

    def supported_subsets(self, modalities: Sequence[str]) -> list[list[str]]:
        """Return the subsets that have a network, as names of the cohort's modalities."""
        return [*self.missing.supported_subsets(modalities), list(modalities)]

    def features(self, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return the input of the networks, ``(B, M * C, ...)``."""
        return self.feature_encoder(image, present).flatten(1, 2)


def _key(subset: Subset) -> str:
    return "_".join(map(str, subset))
