"""Parts that the losses of several papers share: labels as class indices, softmax, weighted cross-entropy and Dice.

Source: Ding et al., ICCV 2021 (RFNet), section 3.4; the weights, the clamp and the epsilon are those of its released
code, which the code of mmFormer, M2FTrans and PASSION shares. A one-hot volume is never built.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn

from common.modalities import IGNORED, to_host

FLOOR = 0.005  # minimum that probabilities are clamped to before a logarithm; below it there is no gradient


def class_indices(label: torch.Tensor, logits: torch.Tensor, ignoring: bool = True) -> torch.Tensor:
    """Return the label ``(B, 1, ...)`` as long indices after checking that it fits logits ``(B, K, ...)``.

    With ``ignoring`` it may hold `IGNORED`. Raises ValueError if it has another shape, or an index outside 0 to K - 1.
    """
    expected, classes = (logits.shape[0], 1, *logits.shape[2:]), logits.shape[1]
    if label.shape != expected:
        raise ValueError(f"label: shape {tuple(label.shape)}, expected {expected}: one class index per voxel.")
    label = label.as_subclass(torch.Tensor).long()
    counted = torch.where(label == IGNORED, 0, label) if ignoring else label
    low, high = to_host(torch.stack(counted.aminmax())).tolist()
    if high == IGNORED:
        raise ValueError(
            "label: contains voxels to ignore, which this method's loss does not support. Choose the cohort that reads "
            "these classes as background (..._cavity_background), or train them."
        )
    if low < 0 or high >= classes:
        raise ValueError(
            f"label: holds class indices {low} to {high}, but the network's head has {classes} classes (0 to "
            f"{classes - 1}). Class counts of network, cohort and loss disagree: give the network as many "
            "`classes` as the cohort has, including the background, and map the cohort's label values to indices."
        )
    return label


def probabilities(logits: torch.Tensor, size: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Return the softmax of logits ``(B, K, ...)`` as a plain float32 tensor of a spatial size.

    The softmax of a coarser head is upsampled linearly with aligned corners. Logits are divided by the temperature.
    """
    soft = (logits.as_subclass(torch.Tensor).float() / temperature).softmax(dim=1)
    if soft.shape[2:] == torch.Size(size):
        return soft
    return F.interpolate(soft, size=tuple(size), mode="bilinear" if soft.ndim == 4 else "trilinear", align_corners=True)


def weighted_cross_entropy(probabilities: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy ``(B,)`` in which the weight of a class is 1 minus its fraction of the sample's voxels.

    It is the mean over voxels of ``-w_y log max(p_y, 0.005)``, not divided by the sum of weights. A batch's loss is the
    mean over samples. Probabilities are ``(B, K, ...)``, the label's class indices ``(B, 1, ...)``, long. Voxels that
    are `IGNORED` count nowhere.
    """
    counted = (label != IGNORED).flatten(1)
    voxels = counted.sum(dim=1).clamp_min(1)
    weight = 1 - _class_sizes(label, probabilities.shape[1]) / voxels[:, None]
    index = torch.where(label == IGNORED, 0, label)
    weight = weight.gather(1, index.flatten(1))
    # Each index occurs once per voxel, so the gradient of this gather is deterministic, too.
    right = probabilities.gather(1, index).flatten(1)
    return -torch.where(counted, weight * right.clamp(FLOOR, 1).log(), 0).sum(dim=1) / voxels


def dice_sums(probabilities: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums over space for Dice, ``sum p_k y_k`` and ``sum p_k + sum y_k``, both ``(B, K)``.

    Voxels that are `IGNORED` are left out.
    """
    classes, label_flat = probabilities.shape[1], label.flatten(1)
    right = probabilities.gather(1, torch.where(label == IGNORED, 0, label)).flatten(1)
    both = torch.stack([torch.where(label_flat == k, right, 0).sum(dim=1) for k in range(classes)], dim=1)
    predicted = torch.where(label == IGNORED, 0, probabilities).flatten(2).sum(dim=2)
    return both, predicted + _class_sizes(label, classes)


def dice_from_sums(both: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """Return 1 minus the mean over classes of Dice, from the sums ``(..., K)`` of `dice_sums`."""
    return 1 - (2 * both / (total + 1e-7)).mean(dim=-1)


def dice_loss(probabilities: torch.Tensor, label: torch.Tensor, batch: bool = False) -> torch.Tensor:
    """Return 1 minus the mean Dice over the classes, including the background.

    With ``batch`` the sums are over batch and space, and the result is a scalar; otherwise they are over space, and the
    result is ``(B,)``. Probabilities are ``(B, K, ...)``, the label's class indices ``(B, 1, ...)``, long.
    """
    both, total = dice_sums(probabilities, label)
    return dice_from_sums(both.sum(dim=0), total.sum(dim=0)) if batch else dice_from_sums(both, total)


def dice_ce(probabilities: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return `weighted_cross_entropy` plus `dice_loss` of each sample, ``(B,)``."""
    return weighted_cross_entropy(probabilities, label) + dice_loss(probabilities, label)


class DiceCE(nn.Module):
    """MONAI's Dice, with the background, plus cross-entropy, of logits against class indices ``(B, 1, ...)``.

    `monai.losses.DiceCELoss` has no voxels to ignore; without any, the two are equal.
    """

    def __init__(self, squared_pred: bool = False) -> None:
        super().__init__()
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, squared_pred=squared_pred, ignore_index=IGNORED)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss; logits are ``(B, K, ...)``, the label's indices long."""
        voxels = (label != IGNORED).sum().clamp_min(1)
        entropy = F.cross_entropy(logits, label[:, 0], ignore_index=IGNORED, reduction="sum") / voxels
        return self.dice(logits, label) + entropy


def label_rows(label: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the label ``(B, 1, ...)`` once per present modality (bool ``(B, M)``, on the CPU), ``(P, 1, ...)``."""
    return label.index_select(0, present.nonzero()[:, 0].to(label.device, non_blocking=True))


def _class_sizes(label: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the number of voxels of each class, float ``(B, K)``."""
    label = label.flatten(1)
    return torch.stack([(label == k).sum(dim=1) for k in range(classes)], dim=1).float()
