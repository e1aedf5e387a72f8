"""The authors' ACN and SMU-Net as the golden files define them: weights and inputs by a rule, arrays in our order."""

from __future__ import annotations

import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.losses.cotraining import CoTrainingOutput
from common.methods.cotraining import CoTraining
from common.networks.cotraining import ACN, SMUNet
from common.networks.published.cotraining_keys import AUTHORS, CLASSES, NAMES, import_cotraining

GOLDEN = Path(__file__).parents[1] / "golden"
ARRAYS = {name: np.load(GOLDEN / f"{name}.npz") for name in ("acn", "smunet")}
NETWORKS = {"acn": ACN, "smunet": SMUNet}
MISSING = {"acn": "mono", "smunet": "missing"}
"""Name of the missing path in the golden files."""
THEIRS = [2, 1, 3, 0]
"""Index in our head of each of their classes."""
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest absolute value of the golden array."""


def authors_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of the authors' full path and discriminators, from their published key list."""
    shapes = {}
    for line in (GOLDEN / f"state_dict_{name}.txt").read_text().splitlines():
        if not line.startswith("#"):
            key, text = line.split("\t")
            shapes[key] = tuple(int(n) for n in text.strip("()").split(",") if n.strip())
    return shapes


def path_shapes(name: str, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of the authors' path for a number of modalities, without ACN's auto-encoder."""
    shapes = {key: s for key, s in authors_shapes(name).items() if not key.startswith(("d_", "vae_branch."))}
    return shapes | {"unet.conv1a.weight": (16, channels, 3, 3, 3)}


def draw_weights(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, torch.Tensor]:
    """Return weights by the golden files' rule."""
    state = {}
    for key, shape in shapes.items():
        n = np.random.default_rng(zlib.crc32(f"{prefix}{key}".encode())).standard_normal(shape)
        if key.endswith("log_scale"):
            n = math.log(math.exp(5 - 1e-5) - 1) + 0.1 * n
        elif key.endswith("bias"):
            n = 0.1 * n
        elif len(shape) == 1:
            n = 1 + 0.1 * n
        else:
            n = n / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(n.astype(np.float32))
    return state


def authors_state(name: str, path: str, channels: int = 4) -> dict[str, torch.Tensor]:
    """Return the state dict of one of the authors' paths, ``full``, ``mono`` or ``missing``."""
    return draw_weights(path_shapes(name, channels), f"{path}.")


def with_golden_discriminator(name: str, theirs: str, discriminator: nn.Module) -> nn.Module:
    """Load the golden weights into a discriminator; its input classes, if it takes entropy maps, are in our order."""
    shapes = {key: s for key, s in authors_shapes(name).items() if key.startswith(theirs)}
    state = {key.removeprefix(theirs): value for key, value in draw_weights(shapes).items()}
    if theirs == "d_main.":
        state["0.weight"] = state["0.weight"][:, CLASSES]
    discriminator.load_state_dict(state)
    return discriminator


def missing_subset(name: str) -> tuple[int]:
    """Return the channel, in our order, that the golden file's missing path uses."""
    return (NAMES.index(AUTHORS[NETWORKS[name].__name__][int(ARRAYS[name]["mono_channel"])]),)


@cache
def imported(name: str) -> nn.Module:
    """Return our network for the golden file's pair with imported weights, without dropout."""
    subset = missing_subset(name)
    network = NETWORKS[name](subsets=[subset])
    full, _ = import_cotraining(authors_state(name, "full"), network)
    missing, _ = import_cotraining(authors_state(name, MISSING[name], channels=1), network, subset)
    network.load_state_dict(full | missing)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


@cache
def draw_image(name: str) -> torch.Tensor:
    """Return the golden file's input ``(1, 4, ...)`` in our order."""
    arrays, authors = ARRAYS[name], AUTHORS[NETWORKS[name].__name__]
    shape = (1, 4, *arrays["full/prob/shape"][2:])
    image = np.random.default_rng(int(arrays["seed"])).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(image)[:, [authors.index(name) for name in NAMES]]


@cache
def trained(name: str) -> CoTrainingOutput:
    """Return the outputs of training mode for the golden file's input."""
    with torch.no_grad():
        return CoTraining(imported(name).train())(draw_image(name))


def label(name: str) -> torch.Tensor:
    """Return the golden file's label as class indices ``(1, 1, ...)``."""
    values = torch.from_numpy(ARRAYS[name]["label"]).long()
    return torch.where(values == 4, 3, values).reshape(1, 1, *draw_image(name).shape[2:])


def relative_error(name: str, found: torch.Tensor, key: str, *, classes: bool = False) -> float:
    """Return the largest difference to a golden array, relative to the array's largest absolute value.

    Args:
        name: of the golden file.
        found: ours.
        key: of the array.
        classes: channel 1 holds the classes, which are brought into the authors' order.
    """
    arrays, found = ARRAYS[name], found.detach()
    golden, stride = torch.from_numpy(arrays[key]), int(arrays[f"{key}/stride"])
    assert tuple(found.shape) == tuple(arrays[f"{key}/shape"]), key
    found = (found[:, THEIRS] if classes else found)[..., ::stride, ::stride, ::stride]
    return float((found - golden).abs().max() / golden.abs().max())
