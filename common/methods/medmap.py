"""MedMAP's training step: that of any other method, with the features of each modality kept to be aligned.

Source: Liu et al., "MedMAP: Promoting Incomplete Multi-modal Brain Tumor Segmentation with Alignment", section IV. The
loss is in `common.losses.medmap`. At inference the feature encoder stays, and the anchor has no part.
"""

from __future__ import annotations

import torch
from torch import nn

from common.io.settings import check_choice
from common.losses.medmap import AlignedOutput
from common.methods.step import TrainingStep
from common.networks.blocks import FeatureEncoder, available_modalities


class FeatureAlignment(TrainingStep):
    """Run a method, and take what there is to align from its network.

    Args:
        method: whose training outputs are passed on.
        network: of the method.
        align: False passes the outputs on alone.
        at: ``input``, the feature encoder's output; or ``bottleneck``, of each modality by itself in a network that has
            ``bottlenecks(image, present)`` (ACN, the paper's wording), which costs M more passes of its encoder.

    Raises:
        ValueError: the network has nothing of the kind to align.
    """

    def __init__(self, method: nn.Module, network: nn.Module, align: bool = True, at: str = "input") -> None:
        super().__init__()
        self.method, self.network, self.align = method, network, align
        self.at = check_choice("align_at", at, ("input", "bottleneck"))
        encoders = [module for module in network.modules() if isinstance(module, FeatureEncoder) and module.kind]
        if not align:
            return
        if at == "bottleneck" and not hasattr(network, "bottlenecks"):
            raise ValueError(
                f"align_at 'bottleneck': {type(network).__name__} has no bottleneck of a modality by itself; only ACN "
                "has. Set `align_at` to input."
            )
        if at == "input" and len(encoders) != 1:
            raise ValueError(
                f"{type(network).__name__} has {len(encoders)} feature encoders to align; expected one. Set "
                "`feature_encoder` to shared or separate, or `anchor` to null to train without alignment."
            )
        self.aligned = encoders[0] if at == "input" else None

    def forward(self, image: torch.Tensor) -> AlignedOutput:
        """Return the method's outputs of crops ``(B, M, ...)`` and the features to align."""
        if not self.align:
            return AlignedOutput(self.method(image), None, None)
        if self.aligned is None:
            present = available_modalities(image, None)
            return AlignedOutput(self.method(image), self.network.bottlenecks(image, present), present)
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = self.aligned.register_forward_hook(lambda _, inputs, output: seen.append((output, inputs[1])))
        try:
            output = self.method(image)
        finally:
            hook.remove()  # validation, which nobody would empty the list after, is not looked at
        ((features, present),) = seen
        return AlignedOutput(output, features, present)
