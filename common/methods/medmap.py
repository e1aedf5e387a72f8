"""MedMAP's training step: that of another method, with the features of each modality kept for alignment.

Source: Liu et al., "MedMAP: Promoting Incomplete Multi-modal Brain Tumor Segmentation with Alignment", section IV. The
loss is in `common.losses.medmap`. At inference the feature encoder stays, and the anchor is not used.
"""

import torch
from torch import nn

from common.io.settings import check_choice
from common.losses.medmap import AlignedOutput
from common.methods.step import TrainingStep
from common.networks.feature_encoder import FeatureEncoder
from common.networks.subsets import available_modalities


class FeatureAlignment(TrainingStep):
    """Run a method's training step, and collect the features to align from its network.

    Args:
        method: training step whose outputs are passed on.
        align: whether to collect features; if False, only the outputs are passed on.
        at: ``input``, the feature encoder's output; or ``bottleneck``, that of each modality alone, for networks with
            ``bottlenecks(image, present)`` (only ACN; the paper describes it this way), at M more passes of the
            encoder.
    """

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
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        hook = self.aligned.register_forward_hook(lambda _, inputs, output: seen.append((output, inputs[1])))
        try:
            output = self.method(image)
        finally:
            hook.remove()  # so that validation does not fill the list
        ((features, present),) = seen
        return AlignedOutput(output, features, present)
