"""What RFNet, mmFormer and M2FTrans have in common: modalities are encoded separately, and those present are fused.

All three have one convolutional encoder per modality, a decoder that fuses the modalities present, and a "separate"
decoder of single modalities, with one set of weights for all, which is used only in training. Source: Ding et al., ICCV
2021 (RFNet); Zhang et al., MICCAI 2022 (mmFormer); Shi et al., JBHI 2024 (M2FTrans); in the variants released with
PASSION (Shi et al., ACM MM 2024).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from common.networks.subsets import available_modalities, forward_for_export


class Decoded(NamedTuple):
    """Output of decoding one subset in training mode.

    Attributes:
        logits: ``(B, K, ...)`` at full resolution.
        deep: logits of the auxiliary heads, fine to coarse, each ``(B, K, ...)`` at its own resolution.
        features: ``(B, width, ...)``, the input of the last layer.
    """

    logits: torch.Tensor
    deep: list[torch.Tensor]
    features: torch.Tensor


class FusionOutput(NamedTuple):
    """Output of a `FusionNetwork` in training mode.

    Attributes:
        fused: output of the decoder that fuses the modalities present.
        separate: ``(P, K, ...)`` logits of the separate decoder, a row for each present modality of each sample, in the
            order of ``present.nonzero()``.
        present: bool ``(B, M)``, on the CPU.
    """

    fused: Decoded
    separate: torch.Tensor
    present: torch.Tensor


class FusionNetwork(nn.Module):
    """A network that encodes each modality separately and fuses the modalities present.

    A subclass defines

    - ``encode(image, present)``, which returns a list of tensors, batch first, which in training starts with the
      tensors that the separate decoder needs. In evaluation all are ``(B, M, ...)`` and zero where a modality is
      absent; otherwise exports are wrong (see `forward_for_export`).
    - ``decode(features, present)``, which returns logits or, in training, a `Decoded`. Its ``deep`` may have any number
      of levels, or none.
    - ``separate``, a decoder of single modalities, e.g. a `SeparateDecoder`. Or it overrides `decode_separately`.
    - ``head``, the last layer, whose ``weight`` has a row for each class (`require_classes` reads it).

    The image may be a MetaTensor: ``encode`` takes ``image.as_subclass(torch.Tensor)``, as `FeatureEncoder` does. What
    `available_modalities` returns is on the CPU, and so is ``present`` in training; in evaluation and exports it can be
    on the image's device, so ``decode`` moves it to where it needs it. `scatter_modalities`, `gather_rows` and
    `scatter_rows` convert between ``(B, M, ...)`` and rows of the modalities that are present.
    """

    encode: Callable[..., list[torch.Tensor]]
    decode: Callable[..., Any]
    separate: nn.Module

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor | FusionOutput:
        """Return logits ``(B, K, ...)`` of images ``(B, M, ...)``; in training mode, a `FusionOutput`."""
        if torch.jit.is_tracing():
            return forward_for_export(self.encode, self.decode, image, present)
        present = available_modalities(image, present)
        features = self.encode(image, present)
        fused = self.decode(features, present)
        return FusionOutput(fused, self.decode_separately(features, present), present) if self.training else fused

    def decode_separately(self, features: Sequence[torch.Tensor], present: torch.Tensor) -> torch.Tensor:
        """Return logits ``(P, K, ...)`` of each present modality alone, as in `FusionOutput`; in training mode only."""
        return self.separate(features, present)

    def fused_features(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features that `decode` needs; `decode` accepts these as well as all features."""
        return features
