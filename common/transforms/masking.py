"""Random choice of the modalities that are dropped and the patches that are masked.

The functions for subsets take ``present``, bool ``(B, M)`` with at least one True in each row, and return a non-empty
subset of it, on the CPU.
"""

from collections.abc import Sequence

import torch


def random_subsets(present: torch.Tensor, kept: Sequence[float] | None = None) -> torch.Tensor:
    """Draw which modalities each sample keeps: k ~ Uniform{0 .. n-1} of its n present ones are dropped.

    Any k of them are equally likely. So of four modalities, all stay with probability 1/4, each triple and each single
    with 1/16, and each pair with 1/24. Source: M3AE, "Fine-Tune with Heterogeneous Missing-Modal Self Distillation".
    ``kept`` changes how often 1, 2, ... modalities are kept, in any unit; of a sample with n, the first n count.

    Examples:
        >>> import torch
        >>> from common.transforms import random_subsets
        >>> present = torch.tensor([[True, True, False]]).expand(100_000, -1)  # the third modality is missing
        >>> kept = random_subsets(present)
        >>> kept.any(dim=1).all(), kept[:, 2].any()
        (tensor(True), tensor(False))
        >>> round(kept[:, :2].all(dim=1).float().mean().item(), 1)  # half of them keep both
        0.5
    """
    count = present.cpu().sum(dim=1, keepdim=True)
    if kept is None:
        return _drop(present.cpu(), torch.floor(torch.rand(count.shape) * count))
    if len(kept) != present.shape[1] or min(kept) < 0 or kept[0] == 0:
        raise ValueError(
            f"kept {[*kept]}: expected {present.shape[1]} numbers, for 1 to all modalities, the first above 0."
        )
    share = torch.tensor([kept]) * (torch.arange(len(kept)) < count)
    return _drop(present.cpu(), count - 1 - torch.multinomial(share, 1))


def incomplete_subsets(present: torch.Tensor) -> torch.Tensor:
    """Draw an incomplete subset for each sample: k ~ Uniform{1 .. n-1} of its n present modalities are dropped.

    A sample with one modality keeps it. Source: our own variant of `random_subsets` without the complete set.
    """
    count = present.cpu().sum(dim=1, keepdim=True)
    return _drop(present.cpu(), torch.where(count > 1, 1 + torch.floor(torch.rand(count.shape) * (count - 1)), 0))


def _drop(present: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Drop a given number ``(B, 1)`` of each row's modalities, all equally likely."""
    score = torch.where(present, torch.rand(present.shape), torch.full(present.shape, 2.0))
    rank = score.argsort(dim=1).argsort(dim=1)
    return present & (rank >= dropped)


def uniform_subsets(present: torch.Tensor) -> torch.Tensor:
    """Draw for each sample one of the ``2^n - 1`` non-empty subsets of its n present modalities, all equally likely.

    Source: RFNet, mmFormer, M2FTrans and PASSION, as released.

    Examples:
        >>> import torch
        >>> from common.transforms import uniform_subsets
        >>> present = torch.tensor([[True, True, False]]).expand(100_000, -1)  # the third modality is missing
        >>> kept = uniform_subsets(present)
        >>> round(kept[:, :2].all(dim=1).float().mean().item(), 1)  # a third keeps both, since there are three subsets
        0.3
    """
    present = present.cpu()
    count = present.sum(dim=1, keepdim=True)
    number = 1 + torch.floor(torch.rand(count.shape) * (2**count - 1)).long()
    bit = (present.cumsum(dim=1) - 1).clamp(min=0)  # the n-th bit of the number stands for the n-th present modality
    return present & ((number >> bit) & 1).bool()


def random_patches(keep: torch.Tensor, patches: Sequence[int], mask_ratio: float) -> torch.Tensor:
    """Draw visible patches so that the combined rate of dropped modalities and masked patches is ``mask_ratio``.

    Exactly ``round((1 - mask_ratio) * M * patches)`` patches stay visible, drawn with equal probability from those of
    the kept modalities, independently for each modality. Source: M3AE, "Self-Supervised Multimodal Representation
    Learning". Returns bool ``(B, M, *patches)``, True where visible. Raises ValueError if more patches would have to
    stay visible than the kept modalities have. ``keep``, bool ``(B, M)`` on the CPU, has the modalities that are not
    dropped; ``patches`` is the number of patches along each axis of the crop.
    """
    batch, modalities = keep.shape
    each = int(torch.tensor(patches).prod())
    visible = round((1 - mask_ratio) * modalities * each)
    fewest = int(keep.sum(dim=1).min()) * each
    if not 0 < visible <= fewest:
        raise ValueError(
            f"mask_ratio {mask_ratio} leaves {visible} of {modalities * each} patches visible; expected 1 to {fewest}, "
            "the patches of the kept modalities. Change mask_ratio, patch_size or the crop."
        )
    score = torch.rand((batch, modalities, each)).masked_fill(~keep[..., None], -1).flatten(1)
    mask = torch.zeros_like(score, dtype=torch.bool).scatter(1, score.topk(visible, dim=1).indices, True)
    return mask.reshape(batch, modalities, *patches)
