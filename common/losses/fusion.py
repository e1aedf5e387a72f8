"""The loss of RFNet, mmFormer and M2FTrans: weighted cross-entropy plus Dice on the softmax of every head.

Source: Ding et al., ICCV 2021 (RFNet), section 3.4; the constants are the released code's, which the three networks
share (see `common.losses.dice_ce`).
"""

import torch
from torch import nn

from common.io.settings import check_number
from common.losses.dice_ce import (
    class_indices,
    dice_from_sums,
    dice_loss,
    dice_sums,
    label_rows,
    probabilities,
    weighted_cross_entropy,
)
from common.networks.fusion import FusionOutput
from common.networks.subsets import scatter_rows


class FusionLoss(nn.Module):
    """Cross-entropy plus Dice of the fused, the separate and the auxiliary predictions, all with the same weight.

    Dice sums over the batch. The separate predictions give one loss per modality, over the samples that have it. The
    fused prediction contributes from epoch ``fusion_start_epoch`` on, counted from 0: RFNet's released code has 20 of
    300 epochs; those of mmFormer and M2FTrans have 0.

    Attributes:
        epoch: number of the epoch, from 0, set by `common.engines.epoch.SetEpoch` if the fused prediction starts later.
        terms: ``fuse``, ``separate`` and ``deep``.

    Examples:
        >>> import torch
        >>> from common.losses.fusion import FusionLoss
        >>> from common.networks import Decoded, FusionOutput
        >>> unsure = torch.zeros(1, 2, 4)  # two classes of the same probability; what a network returns has more axes
        >>> output = FusionOutput(Decoded(unsure, [], unsure), separate=unsure, present=torch.tensor([[True]]))
        >>> loss = FusionLoss()
        >>> loss(output, torch.tensor([[[0, 0, 1, 1]]]))  # twice log(2) / 2 + 1 / 2, of cross-entropy and Dice
        tensor(1.6931)
        >>> list(loss.terms)
        ['fuse', 'separate', 'deep']
    """

    def __init__(self, fusion_start_epoch: int = 0) -> None:
        super().__init__()
        self.fusion_start_epoch = check_number("fusion_start_epoch", fusion_start_epoch, 0)
        self.epoch = 0
        self.terms: dict[str, torch.Tensor] = {}

    def parts(self, output: FusionOutput, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the scalars ``fuse``, ``separate``, ``deep`` against class indices ``(B, 1, ...)``; set ``terms``."""
        label = class_indices(target, output.fused.logits)
        parts = {
            "fuse": self._head(output.fused.logits, label),
            "separate": self._separate(output, label),
            "deep": sum((self._head(logits, label) for logits in output.fused.deep), torch.zeros(())),
        }
        self.terms = {name: value.detach() for name, value in parts.items()}
        return parts

    def forward(self, output: FusionOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a network's training outputs against class indices ``(B, 1, ...)``."""
        parts = self.parts(output, target)
        return (self.epoch >= self.fusion_start_epoch) * parts["fuse"] + parts["separate"] + parts["deep"]

    def _head(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        soft = probabilities(logits, label.shape[2:])
        return weighted_cross_entropy(soft, label).mean() + dice_loss(soft, label, batch=True)

    def _separate(self, output: FusionOutput, label: torch.Tensor) -> torch.Tensor:
        soft, present = probabilities(output.separate, label.shape[2:]), output.present
        label = label_rows(label, present)
        both, total = (scatter_rows(sums, present).sum(dim=0) for sums in dice_sums(soft, label))
        entropy = scatter_rows(weighted_cross_entropy(soft, label), present).sum(dim=0)
        samples = present.sum(dim=0).to(entropy.device, non_blocking=True)
        loss = entropy / samples.clamp_min(1) + dice_from_sums(both, total)
        return torch.where(samples > 0, loss, 0).sum()
