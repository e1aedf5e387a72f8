"""The authors' networks as the golden files define them: weights and inputs by a rule, arrays in our axes and order.

`tests/golden` holds the arrays and the authors' lists of keys. Functions of one family of networks have its name.
"""

import json
import math
import re
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.baselines.cotraining import CoTraining, CoTrainingOutput
from common.modalities import drop
from common.networks import M3AE
from common.networks.cotraining import ACN, SMUNet
from mmb.authors import cotraining_keys
from mmb.authors.cotraining_keys import import_cotraining
from mmb.authors.fusion_keys import AUTHORS, NAMES, export_fusion, import_fusion
from mmb.authors.m3ae_keys import import_m3ae

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest absolute value of the golden array."""


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden file, e.g. ``mmformer_small``."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a network as published, e.g. ``rfnet``."""
    lines = (GOLDEN / f"state_dict_{name}.txt").read_text().splitlines()
    pairs = (re.split(r"\s", line, maxsplit=1) for line in lines if not line.startswith("#"))
    return {key: tuple(map(int, re.findall(r"\d+", shape))) for key, shape in pairs}


def draw(seed: int | list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Return an input by the golden files' rule."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def draw_weights(shapes: Mapping[str, tuple[int, ...]], *seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return weights by the golden files' rule for the authors' keys, whose checksums are the seeds."""
    state = {}
    for key, shape in shapes.items():
        n = np.random.default_rng([zlib.crc32(f"{prefix}{key}".encode()), *seed]).standard_normal(shape)
        if key.endswith("log_scale"):
            n = math.log(math.exp(5 - 1e-5) - 1) + 0.1 * n
        elif key.endswith(("bias", "beta")):
            n = 0.1 * n
        elif len(shape) == 1:
            n = 1 + 0.1 * n
        elif len(shape) == 3:  # positions and fusion tokens
            n = 0.5 * n
        elif key != "limage":
            n = n / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(n.astype(np.float32))
    return state


def relative_error(found: torch.Tensor, expected: np.ndarray, stride: int = 1) -> float:
    """Return the largest difference to an array that holds every ``stride``-th voxel, relative to its largest value."""
    expected, found = torch.from_numpy(expected), found.detach()
    if found.ndim > 3:
        found = found[..., ::stride, ::stride, ::stride]
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max())


def stored_error(found: torch.Tensor, name: str, key: str) -> float:
    """Return the `relative_error` to an array that is stored with its whole shape and its stride."""
    stored = arrays(name)
    assert tuple(found.shape) == tuple(stored[f"{key}/shape"]), key
    return relative_error(found, stored[key], int(stored[f"{key}/stride"]))


# RFNet, mmFormer and M2FTrans. The authors' modalities are FLAIR, T1c, T1, T2; ours are T1, T1c, T2, FLAIR.


@cache
def fusion_golden(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the arrays of a golden file and its description of how they were made."""
    return arrays(name), json.loads(str(arrays(name)["meta"]))


def fusion_state(name: str, network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the authors' state dict of ``rfnet``, ``mmformer`` or ``m2ftrans`` in the size of our network."""
    shapes = {key: tuple(value.shape) for key, value in export_fusion(network, prefix="").items()}
    assert set(shapes) == set(published_shapes(name)), set(shapes) ^ set(published_shapes(name))
    return draw_weights(shapes, 0)


def with_fusion_weights(name: str, network: nn.Module) -> nn.Module:
    """Load the golden weights into our network, as if from the authors' checkpoint, and return it."""
    state = import_fusion({f"module.{key}": value for key, value in fusion_state(name, network).items()}, network)
    network.load_state_dict(state)
    return network


def ours(values: np.ndarray | list) -> torch.Tensor:
    """Return values of the four modalities in our order, e.g. masks or losses ``(B, 4)``."""
    return torch.as_tensor(np.asarray(values))[:, [AUTHORS.index(name) for name in NAMES]]


def subset(names: str) -> torch.Tensor:
    """Return the modalities in a name of the golden files, e.g. ``flair+t1ce``, as bool ``(1, 4)``."""
    return torch.tensor([[name in names.split("+") for name in NAMES]])


def fusion_image(seed: int, batch: int, crop: int) -> torch.Tensor:
    """Return the golden files' input ``(B, 4, crop, crop, crop)``."""
    return ours(draw([seed, 1], (batch, 4, crop, crop, crop)))


def without(image: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the image with NaN in the channels of the absent modalities."""
    return drop(image, present.expand(len(image), -1))


def fusion_labels(seed: int, batch: int, crop: int) -> torch.Tensor:
    """Return the golden files' class indices ``(B, 1, crop, crop, crop)``."""
    labels = np.random.default_rng([seed, 2]).integers(0, 4, size=(batch, *[crop // 4] * 3))
    for axis in (1, 2, 3):
        labels = labels.repeat(4, axis=axis)
    return torch.from_numpy(labels)[:, None].long()


# M3AE. The authors' axes are (z, y, x), and their regions are ET, TC, WT.

M3AE_SEED = int(arrays("m3ae")["seed"])
GRID = tuple(int(n) for n in arrays("m3ae")["xsub_shape"][:1:-1])
"""Size of x_sub along our axes."""
START = [int(low) for low in arrays("m3ae")["location"][::-1, 0]]


def transpose(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Swap (z, y, x) and (x, y, z)."""
    return torch.as_tensor(array).permute(0, 1, 4, 3, 2)


def m3ae_state(width: int, outputs: int = 3) -> dict[str, torch.Tensor]:
    """Return the authors' state dict in another size than that of their key list (width 16, 3 outputs)."""
    shapes = {}
    for key, shape in published_shapes("m3ae").items():
        if key == "limage":
            shapes[key] = (1, 4, *GRID[::-1])
        elif outputs == 3 or "ds_out" not in key:
            shape = tuple(n if n in (1, 3, 4) else n * width // 16 for n in shape)
            shapes[key] = (outputs, *shape[1:]) if key.startswith("unet.up1conv") else shape
    return draw_weights(shapes)


def imported_m3ae(width: int, outputs: int = 3) -> M3AE:
    """Return our network with the authors' weights; x_sub stays in the orientation of the golden arrays."""
    network = M3AE(4, outputs, width, GRID, deep_supervision=outputs == 3)
    network.load_state_dict(import_m3ae({f"module.{k}": v for k, v in m3ae_state(width, outputs).items()}))
    network.x_sub.data = network.x_sub.data.flip(2, 3)
    return network


def m3ae_error(found: torch.Tensor, key: str, *, regions: bool = False) -> float:
    """Return the `stored_error` of a tensor in our axes, whose channels may be regions in our order."""
    theirs = transpose(found)
    return stored_error(theirs.flip(1) if regions else theirs, "m3ae", key)


# ACN and SMU-Net. The authors' modalities differ from network to network; their classes are ED, NCR, ET, background.

COTRAINING = {"acn": ACN, "smunet": SMUNet}
MISSING = {"acn": "mono", "smunet": "missing"}
"""Name of the missing path in the golden files."""
AUTHORS_CLASSES = [2, 1, 3, 0]
"""Index in our head of each of the authors' classes."""


def path_shapes(name: str, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of the authors' path for a number of modalities, without ACN's auto-encoder."""
    shapes = {key: s for key, s in published_shapes(name).items() if not key.startswith(("d_", "vae_branch."))}
    return shapes | {"unet.conv1a.weight": (16, channels, 3, 3, 3)}


def path_state(name: str, path: str, channels: int = 4) -> dict[str, torch.Tensor]:
    """Return the state dict of one of the authors' paths, ``full``, ``mono`` or ``missing``."""
    return draw_weights(path_shapes(name, channels), prefix=f"{path}.")


def with_golden_discriminator(name: str, prefix: str, discriminator: nn.Module) -> nn.Module:
    """Load the golden weights into a discriminator; its input classes, if it takes entropy maps, are in our order."""
    weights = draw_weights({key: s for key, s in published_shapes(name).items() if key.startswith(prefix)})
    state = {key.removeprefix(prefix): value for key, value in weights.items()}
    if prefix == "d_main.":
        state["0.weight"] = state["0.weight"][:, cotraining_keys.CLASSES]
    discriminator.load_state_dict(state)
    return discriminator


def missing_subset(name: str) -> tuple[int]:
    """Return the channel, in our order, that the golden file's missing path uses."""
    authors = cotraining_keys.AUTHORS[COTRAINING[name].__name__]
    return (NAMES.index(authors[int(arrays(name)["mono_channel"])]),)


@cache
def imported_paths(name: str) -> nn.Module:
    """Return our network for the golden file's pair with imported weights, without dropout."""
    chosen = missing_subset(name)
    network = COTRAINING[name](subsets=[chosen])
    full = import_cotraining(path_state(name, "full"), network)
    missing = import_cotraining(path_state(name, MISSING[name], channels=1), network, chosen)
    network.load_state_dict(full | missing)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


@cache
def cotraining_image(name: str) -> torch.Tensor:
    """Return the golden file's input ``(1, 4, ...)`` in our order."""
    stored, authors = arrays(name), cotraining_keys.AUTHORS[COTRAINING[name].__name__]
    image = draw(int(stored["seed"]), (1, 4, *stored["full/prob/shape"][2:]))
    return image[:, [authors.index(modality) for modality in NAMES]]


@cache
def trained_paths(name: str) -> CoTrainingOutput:
    """Return the outputs of training mode for the golden file's input."""
    with torch.no_grad():
        return CoTraining(imported_paths(name).train())(cotraining_image(name))


def cotraining_label(name: str) -> torch.Tensor:
    """Return the golden file's label as class indices ``(1, 1, ...)``."""
    values = torch.from_numpy(arrays(name)["label"]).long()
    return torch.where(values == 4, 3, values).reshape(1, 1, *cotraining_image(name).shape[2:])


def cotraining_error(found: torch.Tensor, name: str, key: str, *, classes: bool = False) -> float:
    """Return the `stored_error` of a tensor whose channels may be classes in our order."""
    return stored_error(found[:, AUTHORS_CLASSES] if classes else found, name, key)
