"""Metrics of one case."""

from __future__ import annotations

import torch
from monai.metrics import compute_dice


def region_dice(prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return the Dice coefficient of each region, ``(R,)`` in [0, 1].

    A region that is empty in both scores 1, one that is empty in the reference alone scores 0 (the BraTS convention).

    Args:
        prediction: binary masks ``(R, X, Y, Z)``.
        reference: binary masks of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(
            f"The prediction's shape {tuple(prediction.shape)} is not the reference's {tuple(reference.shape)}."
        )
    return compute_dice(prediction[None], reference[None], include_background=True, ignore_empty=False)[0]
