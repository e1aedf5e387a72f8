"""Operations on batches whose samples have different subsets of the modalities.

What is present is known on the host, and decides which layers run. Tensors of all modalities are ``(B, M, ...)``; rows
are those of the modalities present, ``(P, ...)`` in the order of ``present.nonzero()``.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from common.modalities import presence, require_modality, to_host


def available_modalities(image: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """Return which modalities of ``(B, M, ...)`` are present and allowed by ``present``: bool ``(B, M)``, on the CPU.

    The result decides which layers run, so the host has to know it: reading it from a GPU waits for all queued work.
    Raises ValueError if a sample has no modality, or if a network is traced that does not support it (see
    `forward_for_export`).
    """
    if present is None and torch.jit.is_tracing():
        raise ValueError(
            "This network cannot be exported: which of its layers run depends on the modalities present, but a trace "
            "always runs the layers that its example needed."
        )
    there = to_host(presence(image.as_subclass(torch.Tensor)))
    if present is not None:
        there = there & present.cpu()
    require_modality(there)
    return there


def forward_for_export(
    encode: Callable[..., list[torch.Tensor]],
    decode: Callable[..., Any],
    image: torch.Tensor,
    present: torch.Tensor | None,
) -> torch.Tensor:
    """Return a network's logits by operations that are the same for every subset, as an export requires.

    Every modality is encoded, an absent one as zeros, and the features of absent ones are then set to zero. A sample
    without any modality gives NaN instead of an error. The features of ``encode`` are ``(B, M, ...)``,
    zero for absent modalities; the example image for tracing has all modalities.
    """
    image = image.as_subclass(torch.Tensor)
    there = presence(image) if present is None else presence(image) & present
    with warnings.catch_warnings():
        # Warnings about decisions that depend on values; here they are the same for every image.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        features = encode(fill_absent(image, there), torch.ones_like(there))
        logits = decode([fill_absent(level, there) for level in features], there)
    return fill_absent(logits, there.any(dim=1), torch.nan)


def fill_absent(x: torch.Tensor, there: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
    """Return ``(B, ...)`` or ``(B, M, ...)`` with ``fill`` where ``there``, bool ``(B,)`` or ``(B, M)``, is False."""
    return torch.where(there.reshape(*there.shape, *[1] * (x.ndim - there.ndim)), x, fill)


def select_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the samples of ``(B, ...)`` where ``rows`` (bool ``(B,)``, on the CPU) is True."""
    # Without missing rows nothing is selected, since ONNX would lose the shape.
    return x if bool(rows.all()) else x.index_select(0, indices(rows, x.device))


def indices(rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the indices at which a bool tensor ``(N,)`` on the CPU is True, as a tensor on a device.

    Selecting by a mask on a GPU would wait until the host knows the number of rows.
    """
    return rows.nonzero().flatten().to(device, non_blocking=True)


def scatter_modalities(parts: Sequence[torch.Tensor | None], present: torch.Tensor) -> torch.Tensor:
    """Combine the parts of each modality in one tensor ``(B, M, ...)``, zero where it is absent.

    A part has a row for each of the n samples that have the modality, ``(n, ...)``, or is None; ``present`` is on the
    CPU.
    """
    there = [part for part in parts if part is not None]
    if bool(present.all()):
        return torch.stack(there, dim=1)
    full = there[0].new_zeros(*present.shape, *there[0].shape[1:])
    for modality, part in enumerate(parts):
        if part is not None:
            full[:, modality].index_copy_(0, indices(present[:, modality], full.device), part)
    return full


def gather_rows(table: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the entries of ``(B, M, ...)`` where ``present`` (bool ``(B, M)``, on the CPU) is True, ``(P, ...)``."""
    return select_rows(table.flatten(0, 1), present.flatten())


def scatter_rows(rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return a table ``(B, M, ...)`` of rows ``(P, ...)``, zero for absent modalities; the inverse of `gather_rows`."""
    if bool(present.all()):
        return rows.unflatten(0, present.shape)
    table = rows.new_zeros(present.numel(), *rows.shape[1:])
    return table.index_copy(0, indices(present.flatten(), rows.device), rows).unflatten(0, present.shape)
