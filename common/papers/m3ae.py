"""M3AE: a masked autoencoder learns what fills in for missing modalities, then two views of a subject teach each other.

Source: Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities",
AAAI 2023, section "Method": stage 1 is eq. (1) and (3), stage 2 is eq. (2), (4) and (5). The network, with the
substitute image x_sub, is `common.networks.m3ae`. Where the paper does not define the segmentation loss ("Dice plus
cross entropy"), we follow the released code: 0.7 Dice + 0.3 binary cross-entropy, with squared denominators in Dice,
and both views pooled.
"""

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.data import Dataset
from monai.losses import DiceLoss
from monai.networks.utils import copy_model_state
from torch import nn
from torch.nn.modules.loss import _Loss
from tqdm import tqdm

from common.io.checkpoints import read_weights, require_unwrapped, start_from
from common.io.settings import check_choice, check_number
from common.modalities import IGNORED, presence, to_host
from common.networks import M3AE, SegmentationOutput
from common.networks.step import TrainingStep
from common.networks.subsets import gather_rows
from common.transforms import incomplete_subsets, locate, random_patches, random_subsets

logger = logging.getLogger(__name__)
MASKINGS = ("m3ae", "modality_dropout")
FILLS = ("x_sub", "zero", "mean")
SURELY_NOT = -1e4
"""Logit whose probability and cross-entropy are 0 in every precision."""


class Reconstruction(NamedTuple):
    """Output of `Pretraining`: volumes ``(B, M, X, Y, Z)`` of which ``image`` has NaN in missing modalities.

    ``present`` is bool ``(B, M)``, the modalities that the image has; ``x_sub`` is ``(1, M, *grid)``.
    """

    reconstruction: torch.Tensor
    image: torch.Tensor
    present: torch.Tensor
    x_sub: torch.Tensor


class Pretraining(TrainingStep):
    """Stage 1: drop random modalities, mask random patches of the others, fill in x_sub, reconstruct the image.

    ``mask_ratio`` is the combined rate of dropped modalities and masked patches, whose edge of ``patch_size`` voxels
    divides the crop's extents. The masking ``modality_dropout`` is the paper's ablation without patches (Table 3 b).
    """

    network: M3AE

    def __init__(self, network: M3AE, mask_ratio: float = 0.875, patch_size: int = 16, masking: str = "m3ae") -> None:
        super().__init__(network)
        self.mask_ratio, self.patch_size = mask_ratio, patch_size
        self.masking = check_choice("masking", masking, MASKINGS)

    def forward(self, image: torch.Tensor) -> Reconstruction:
        """Mask and reconstruct crops ``(B, M, X, Y, Z)``."""
        present = to_host(presence(image))
        visible = random_subsets(present)
        if self.masking == "m3ae":
            size, edge = tuple(image.shape[2:]), self.patch_size
            if any(extent % edge for extent in size):
                raise ValueError(f"crop {size}: expected multiples of patch_size {edge}.")
            patches = random_patches(visible, [extent // edge for extent in size], self.mask_ratio)
            visible = patches.to(image.device, non_blocking=True)
            for axis in (2, 3, 4):
                visible = visible.repeat_interleave(edge, dim=axis)
        reconstruction = self.network.unet(self.network.substitute(image, visible))
        if isinstance(reconstruction, SegmentationOutput):
            reconstruction = reconstruction.logits
        return Reconstruction(reconstruction, image.as_subclass(torch.Tensor), present, self.network.x_sub)


class PretrainingLoss(nn.Module):
    """L_mse(x, F(S(x, x_sub))) + gamma * R(x_sub), eq. (1) and (3).

    L_mse is the mean over all voxels of the modalities present, masked or not. R is of x_sub after subtracting each
    modality's spatial mean: ``mean_square``, the mean of its squares (the paper's "L2"), or ``norm``, its (not squared)
    Euclidean norm, as released. The gradient of the norm has length 1 however small x_sub is, so unless that of L_mse
    is longer than gamma, which it is in no setting of the paper's, the norm shrinks x_sub to a constant. The terms are
    ``mse`` and ``regulariser``.
    """

    def __init__(self, gamma: float = 0.005, regulariser: str = "mean_square") -> None:
        super().__init__()
        self.gamma = check_number("gamma", gamma, 0)
        self.regulariser = check_choice("regulariser", regulariser, ("mean_square", "norm"))
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: Reconstruction, target: None = None) -> torch.Tensor:
        """Return the scalar loss; the target is part of the output and ignored here."""
        mse = F.mse_loss(gather_rows(output.reconstruction, output.present), gather_rows(output.image, output.present))
        centred = output.x_sub - output.x_sub.mean(dim=(2, 3, 4), keepdim=True)
        squares = self.regulariser == "mean_square"
        regulariser = centred.square().mean() if squares else torch.linalg.vector_norm(centred)
        self.terms = {"mse": mse.detach(), "regulariser": regulariser.detach()}
        return mse + self.gamma * regulariser


def pretraining_parameters(network: M3AE, learning_rate: float, learning_rate_x_sub: float) -> list[dict]:
    """Return the optimiser's parameter groups: the U-Net, and x_sub with its own learning rate if it is learned."""
    groups = [{"params": list(network.unet.parameters()), "lr": learning_rate}]
    if network.x_sub.requires_grad:
        groups.append({"params": [network.x_sub], "lr": learning_rate_x_sub})
    return groups


def prepare_fill(network: M3AE, fill: str, images: Dataset, x_sub_std: float = 1.0) -> None:
    """Set the substitute for missing content before pretraining (the paper's ablation, Table 3 c and d).

    Fill ``x_sub`` is learned, from Gaussian noise of standard deviation ``x_sub_std``. The release starts from 1, as
    much as the whole range of the images: where x_sub is seldom shown, this noise stays, unless the regulariser removes
    all.
    ``zero`` and ``mean`` set a constant, the latter the mean image of the training set at each location of the grid.
    The images are items with ``image`` ``(M, X, Y, Z)``, normalised, uncropped or cropped to the brain.
    """
    if check_choice("fill", fill, FILLS) == "x_sub":
        with torch.no_grad():
            network.x_sub.mul_(check_number("x_sub_std", x_sub_std, low=0))
        return
    network.x_sub.requires_grad_(False)
    network.x_sub.zero_()
    if fill == "mean":
        network.x_sub.copy_(mean_image(images, list(network.x_sub.shape[2:])))


def mean_image(images: Dataset, grid: list[int]) -> torch.Tensor:
    """Return the mean over a training set at each location of the grid, ``(1, M, *grid)``, without missing modalities.

    The items have ``image`` ``(M, X, Y, Z)``, RAS, whose metadata give the location.
    """
    if len(images) == 0:
        raise ValueError("The mean image needs at least one training case, but the training set is empty.")
    total = torch.zeros(1, 1, *grid)
    count = torch.zeros(1)
    for item in tqdm(images, desc="mean image"):
        batch = item["image"][None]
        start = locate(batch, grid)[0][0]
        low = start.clamp(min=0)
        high = torch.minimum(start + torch.tensor(batch.shape[2:]), torch.tensor(grid))
        inside = [slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        source = [slice(a, b) for a, b in zip((low - start).tolist(), (high - start).tolist(), strict=True)]
        present = presence(batch)[0]
        full = torch.zeros(batch.shape[1], *grid)
        full[:, *inside] = torch.where(present[:, None, None, None], batch[0].as_tensor()[:, *source], 0)
        total, count = total + full, count + present
    return total / count.clamp(min=1)[None, :, None, None, None]


def start_finetuning(
    network: M3AE,
    pretrained: str,
    weights: bool = True,
    init_from: str | os.PathLike | None = None,
    new_sequences: int = 0,
    new_head: bool = False,
) -> None:
    """Start from complete weights of the segmentation network by `start_from`, or else by `load_pretrained`."""
    if init_from is None:
        load_pretrained(network, pretrained, weights)
    else:
        start_from(network, init_from, new_sequences, new_head)


def load_pretrained(network: M3AE, path: str, weights: bool = True) -> None:
    """Start fine-tuning from a pretraining checkpoint: always x_sub, and if ``weights``, the U-Net without its heads.

    Without ``weights`` it is the ablation without pretraining (Table 3 a). Raises FileNotFoundError if the checkpoint
    does not exist; ValueError if it is damaged, has values that are not finite numbers, or belongs to another
    architecture (width, grid, modalities).
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no pretraining. Run `pretrain` or `fit` with this output_dir first, or give weights of the whole "
            "network as init_from. With pretrained_weights false, the substitute image still comes from it."
        )
    state = read_weights(path)
    wanted = [key for key in network.state_dict() if "head" not in key] if weights else ["x_sub"]
    require_unwrapped(state, wanted, path)
    state = {key: state[key] for key in wanted if key in state}
    _, updated, _ = copy_model_state(network, state)
    if len(updated) != len(wanted):
        lost = sorted(set(wanted) - set(updated))
        raise ValueError(
            f"{path}: not a pretraining checkpoint of this network; {len(lost)} of {len(wanted)} tensors do not match, "
            f"e.g. {lost[:3]}. Pretrain with the same width, grid and modalities (run id `pretrain`)."
        )
    logger.info(f"fine-tuning starts from {path}: {len(updated)} tensors")


class FineTuning(TrainingStep):
    """Stage 2: two missing-modality views of each subject, forwarded together.

    The network is an `M3AE` with one output per region; its x_sub stays constant from here on. The views are
    ``random``, two random subsets (paper), or ``full_and_incomplete``, all modalities and a random incomplete subset,
    so that every step uses the full set (our own variant).
    """

    network: M3AE

    def __init__(self, network: M3AE, views: str = "random") -> None:
        super().__init__(network)
        self.views = check_choice("views", views, ("random", "full_and_incomplete"))
        self.network.x_sub.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> SegmentationOutput:
        """Return the training outputs of two views of crops ``(B, M, X, Y, Z)``: B first views, then B second views."""
        present = to_host(presence(image))
        if self.views == "random":
            subsets = [random_subsets(present), random_subsets(present)]
        else:
            subsets = [present, incomplete_subsets(present)]
        return self.network.unet(torch.cat([self.network.substitute(image, subset) for subset in subsets]))


class DiceBCELoss(_Loss):
    """L of eq. (5): mean Dice loss and mean binary cross-entropy over region channels, weighted, on logits.

    Dice of a channel is ``1 - (2 sum(pt) + 1) / (sum(p^2) + sum(t^2) + 1)`` with the sums over batch and space. Voxels
    that are `IGNORED` count nowhere. The weights are those of the release.
    """

    def __init__(self, dice_weight: float = 0.7, ce_weight: float = 0.3) -> None:
        super().__init__()
        self.dice_weight = check_number("dice_weight", dice_weight, 0)
        self.ce_weight = check_number("ce_weight", ce_weight, 0)
        self.dice = DiceLoss(sigmoid=True, squared_pred=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of logits against masks, both ``(B, C, X, Y, Z)``."""
        counted = target != IGNORED
        logits, target = logits.masked_fill(~counted, SURELY_NOT), target.masked_fill(~counted, 0)
        ce = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / counted.sum().clamp_min(1)
        return self.dice_weight * self.dice(logits, target) + self.ce_weight * ce


class DeeplySupervisedLoss(nn.Module):
    """L_seg, eq. (5): the weighted sum of `DiceBCELoss` over the full-resolution and the deep logits.

    The paper's weights are equal, ``deep_weights`` (1, 1) for the 1/4 and the 1/2 level. Deep logits at their own size
    meet the masks pooled to it: each voxel's share of the region, or `IGNORED` if any of its voxels is. Of a network
    without deep heads only the logits count.
    """

    def __init__(
        self, dice_weight: float = 0.7, ce_weight: float = 0.3, deep_weights: Sequence[float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.loss = DiceBCELoss(dice_weight, ce_weight)
        self.deep_weights = [check_number("deep_weights", weight, 0) for weight in deep_weights]

    def forward(self, output: SegmentationOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a network's training outputs against region masks ``(B, C, X, Y, Z)``."""
        if len(output.deep) not in (0, len(self.deep_weights)):
            raise ValueError(
                f"deep_weights {self.deep_weights}: expected one for each of the {len(output.deep)} deep heads."
            )
        target = target.to(output.logits.dtype).as_subclass(torch.Tensor)
        total = self.loss(output.logits, target)
        for weight, logits in zip(self.deep_weights, output.deep, strict=False):
            total = total + weight * self.loss(logits, _pooled(target, logits.shape[2:]))
        return total


def _pooled(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if target.shape[2:] == size:
        return target
    ignored = F.adaptive_max_pool3d((target == IGNORED).to(target.dtype), tuple(size)) > 0
    return F.interpolate(target, size=tuple(size), mode="area").masked_fill(ignored, IGNORED)


class FineTuningLoss(nn.Module):
    """Deeply supervised segmentation loss of two views plus lambda times their consistency, eq. (2) and (4).

    One segmentation loss covers both views, as in the release; eq. (4) adds one per view, which is about twice as much.

    Args:
        lambda_con: weight of the consistency; 0 is the paper's ablation without self-distillation.
        consistency: ``bottleneck``, the MSE between the two views' bottleneck features (paper), or ``quarter_logits``,
            the MSE between their upsampled 1/4 logits (the released code gets there by an off-by-one index).
        lambda_distil: weight of our own distillation from the first view to the second: the binary cross-entropy of the
            second view's logits against the first view's probabilities. It helps if the first view is complete.
        dice_weight: weight of Dice in the segmentation loss.
        ce_weight: weight of the binary cross-entropy in it.

    Attributes:
        terms: ``segmentation``, ``consistency`` and, if it has a weight, ``distillation``.

    Examples:
        >>> import torch
        >>> from common.networks import SegmentationOutput
        >>> from common.papers.m3ae import FineTuningLoss
        >>> views = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1, 1)  # two views of one subject
        >>> output = SegmentationOutput(logits=views.expand(2, 3, 4, 4, 4), deep=[], bottleneck=views)
        >>> loss = FineTuningLoss()
        >>> loss(output, torch.zeros(1, 3, 4, 4, 4)).shape  # the masks of the subject's three regions, once
        torch.Size([])
        >>> loss.terms["consistency"]  # (2 - 0) ** 2
        tensor(4.)
    """

    def __init__(
        self,
        lambda_con: float = 0.1,
        consistency: str = "bottleneck",
        lambda_distil: float = 0.0,
        dice_weight: float = 0.7,
        ce_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.consistency = check_choice("consistency", consistency, ("bottleneck", "quarter_logits"))
        self.lambda_con = check_number("lambda_con", lambda_con, 0)
        self.lambda_distil = check_number("lambda_distil", lambda_distil, 0)
        self.loss = DeeplySupervisedLoss(dice_weight, ce_weight)
        self.terms: dict[str, torch.Tensor] = {}

    def forward(self, output: SegmentationOutput, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of training outputs of both views, one batch after the other, against region masks.

        The masks ``(B, C, X, Y, Z)`` are those of the subjects, so the outputs have ``2 B`` rows.
        """
        segmentation = self.loss(output, torch.cat([target, target]))
        first, second = (output.bottleneck if self.consistency == "bottleneck" else output.deep[0]).chunk(2)
        consistency = F.mse_loss(first, second)
        self.terms = {"segmentation": segmentation.detach(), "consistency": consistency.detach()}
        total = segmentation + self.lambda_con * consistency
        if self.lambda_distil > 0:
            teacher, student = output.logits.chunk(2)
            each = F.binary_cross_entropy_with_logits(student, teacher.detach().sigmoid(), reduction="none")
            counted = target.as_subclass(torch.Tensor) != IGNORED
            distillation = torch.where(counted, each, 0).sum() / counted.sum().clamp_min(1)
            self.terms["distillation"] = distillation.detach()
            total = total + self.lambda_distil * distillation
        return total
