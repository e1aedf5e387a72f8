"""The authors' M3AE as the golden files define it: weights by a rule, arrays in our axes, order and names."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

from common.networks import M3AE
from common.networks.published.m3ae_keys import import_m3ae

GOLDEN = Path(__file__).parents[1] / "golden"
ARRAYS = np.load(GOLDEN / "m3ae.npz")
SEED = int(ARRAYS["seed"])
GRID_ZYX = tuple(int(n) for n in ARRAYS["xsub_shape"][2:])
START = [int(low) for low in ARRAYS["location"][::-1, 0]]


def draw(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the input that the golden files' rule gives, in the authors' (z, y, x) axes."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def transpose(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Swap (z, y, x) and (x, y, z)."""
    return torch.as_tensor(array).permute(0, 1, 4, 3, 2)


def authors_shapes(width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of the authors' network, from their published key list (width 16, 3 outputs)."""
    shapes = {}
    for line in (GOLDEN / "state_dict_m3ae.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        key, text = line.split("\t")
        shape = tuple(int(n) for n in text.strip("()").split(",") if n.strip())
        if key != "limage":
            shape = tuple(n if n in (1, 3, 4) else n * width // 16 for n in shape)
            if outputs != 3 and "ds_out" in key:
                continue
            if key.startswith("unet.up1conv"):
                shape = (outputs, *shape[1:])
        shapes[key] = shape if key != "limage" else (1, 4, *GRID_ZYX)
    return shapes


def authors_state(width: int, outputs: int = 3) -> dict[str, torch.Tensor]:
    """Return the authors' state dict with weights by the golden files' rule."""
    state = {}
    for key, shape in authors_shapes(width, outputs).items():
        n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        if key.endswith("bias"):
            n = 0.1 * n
        elif len(shape) == 1:
            n = 1 + 0.1 * n
        elif key != "limage":
            n = n / np.sqrt(np.prod(shape[1:]))
        state[key] = torch.from_numpy(n.astype(np.float32))
    return state


def imported(width: int, outputs: int = 3) -> M3AE:
    """Return our network with the authors' weights; x_sub stays in the orientation of the golden arrays."""
    network = M3AE(4, outputs, width, GRID_ZYX[::-1], deep_supervision=outputs == 3)
    network.load_state_dict(import_m3ae({f"module.{k}": v for k, v in authors_state(width, outputs).items()}))
    network.x_sub.data = network.x_sub.data.flip(2, 3)
    return network


def relative_error(ours: torch.Tensor, key: str, *, regions: bool = False) -> float:
    """Return the largest difference to a golden array, relative to the array's largest absolute value."""
    golden = torch.from_numpy(ARRAYS[key])
    theirs = transpose(ours.detach())
    if regions:  # WT, TC, ET -> ET, TC, WT
        theirs = theirs.flip(1)
    stride = int(ARRAYS[f"{key}/stride"])
    assert tuple(theirs.shape) == tuple(ARRAYS[f"{key}/shape"]), key
    return float((theirs[:, :, ::stride, ::stride, ::stride] - golden).abs().max() / golden.abs().max())
