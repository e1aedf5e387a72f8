"""RFNet, mmFormer and M2FTrans as the golden files define them: weights and inputs by a rule, arrays in our order.

The authors' modalities are FLAIR, T1c, T1, T2; this module returns everything in the order T1, T1c, T2, FLAIR.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.modalities import drop
from common.networks.published.fusion_keys import AUTHORS, NAMES, export_fusion, import_fusion

GOLDEN = Path(__file__).parents[1] / "golden"
ORDER = [AUTHORS.index(name) for name in NAMES]
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest absolute value of the golden array."""


@cache
def golden(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the arrays of a golden file, e.g. ``mmformer_small``, and its description of how they were made."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        arrays = dict(arrays)
    return arrays, json.loads(str(arrays["meta"]))


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a network as published: ``rfnet``, ``mmformer`` or ``m2ftrans``."""
    lines = (GOLDEN / f"state_dict_{name}.txt").read_text().splitlines()
    return {key: tuple(map(int, shape.split("x"))) for key, shape in (line.split() for line in lines)}


def authors_state(name: str, network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the authors' state dict with weights by the golden files' rule.

    Args:
        name: ``rfnet``, ``mmformer`` or ``m2ftrans``, whose published keys these must be.
        network: ours; it says the shapes.
    """
    shapes = {key: tuple(value.shape) for key, value in export_fusion(network, prefix="").items()}
    assert set(shapes) == set(published_shapes(name)), set(shapes) ^ set(published_shapes(name))
    state = {}
    for key, shape in shapes.items():
        n = np.random.default_rng([zlib.crc32(key.encode()), 0]).standard_normal(shape)
        if len(shape) == 1:
            n = 1 + 0.1 * n if key.endswith(".weight") else 0.1 * n
        elif len(shape) == 3:
            n = 0.5 * n
        else:
            n = n / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(n.astype(np.float32))
    return state


def with_golden_weights(name: str, network: nn.Module) -> nn.Module:
    """Load the golden weights into our network, as if from the authors' checkpoint, and return it."""
    state, _ = import_fusion({f"module.{key}": value for key, value in authors_state(name, network).items()}, network)
    network.load_state_dict(state)
    return network


def ours(values: np.ndarray | list, axis: int = 1) -> torch.Tensor:
    """Return values of the four modalities in our order, e.g. masks or losses ``(B, 4)``."""
    return torch.as_tensor(np.asarray(values)).index_select(axis, torch.tensor(ORDER))


def subset(names: str) -> torch.Tensor:
    """Return the modalities in a name of the golden files, e.g. ``flair+t1ce``, as bool ``(1, 4)``."""
    return torch.tensor([[name in names.split("+") for name in NAMES]])


def draw_image(seed: int, batch: int, crop: int) -> torch.Tensor:
    """Return the golden files' input ``(B, 4, crop, crop, crop)``."""
    shape = (batch, 4, crop, crop, crop)
    return ours(np.random.default_rng([seed, 1]).standard_normal(shape).astype(np.float32))


def without(image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the image with NaN in the channels of the absent modalities."""
    return drop(image, present.expand(len(image), -1))


def draw_labels(seed: int, batch: int, crop: int) -> torch.Tensor:
    """Return the golden files' class indices ``(B, 1, crop, crop, crop)``."""
    labels = np.random.default_rng([seed, 2]).integers(0, 4, size=(batch, *[crop // 4] * 3))
    for axis in (1, 2, 3):
        labels = labels.repeat(4, axis=axis)
    return torch.from_numpy(labels)[:, None].long()


def relative_error(found: torch.Tensor, expected: np.ndarray, stride: int = 1) -> float:
    """Return the largest difference to a golden array, relative to the array's largest absolute value.

    Args:
        found: ours, of which every ``stride``-th voxel along each axis is compared.
        expected: the golden array.
        stride: of the golden array.
    """
    expected = torch.from_numpy(expected)
    found = found.detach()[..., ::stride, ::stride, ::stride]
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max())
