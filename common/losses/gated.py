"""The loss of gated networks: that of PMKL's teacher, and the segmentation terms of its students and of RobustSeg.

Source: the released code of Chen et al., TMI 2021 (PMKL) and MICCAI 2019 (RobustSeg).
"""

import torch
from monai.losses import DiceLoss
from torch import nn

from common.losses.dice_ce import class_indices, probabilities, weighted_cross_entropy
from common.networks.gated import GatedOutput


class SegmentationLoss(nn.Module):
    """Cross-entropy plus Dice on the softmax.

    In the cross-entropy the weight of a class is 1 minus its fraction of the batch's voxels, and probabilities are
    clamped to at least 0.005. Dice has squared probabilities in its denominator, sums over batch and space, and is
    averaged over the classes, including the background. The terms are ``ce`` and ``dice``.

    Examples:
        >>> import torch
        >>> from common.losses.gated import SegmentationLoss
        >>> from common.networks.gated import GatedOutput
        >>> unsure = torch.zeros(1, 2, 4)  # two classes of the same probability; what a network returns has more axes
        >>> loss = SegmentationLoss()
        >>> loss(GatedOutput(logits=unsure, features=unsure), torch.tensor([[[0, 0, 1, 1]]]))  # log(2) / 2 + 1 / 3
        tensor(0.6799)
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(to_onehot_y=True, squared_pred=True, batch=True, smooth_nr=0.0, smooth_dr=1e-7)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: GatedOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of ``logits`` ``(B, K, X, Y, Z)`` against class indices ``(B, 1, X, Y, Z)``."""
        return self.of_indices(output.logits, class_indices(target, output.logits, ignoring=False))

    def of_indices(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss for a label that `class_indices` has checked."""
        soft = probabilities(logits, label.shape[2:])
        entropy = weighted_cross_entropy(_merge_batch(soft), _merge_batch(label)).mean()
        dice = self.dice(soft, label)
        self.terms = {"ce": entropy.detach(), "dice": dice.detach()}
        return entropy + dice


def _merge_batch(x: torch.Tensor) -> torch.Tensor:
    """Reshape ``(B, C, X, ...)`` to one sample ``(1, C, B * X, ...)``."""
    return x.transpose(0, 1).flatten(1, 2)[None]
