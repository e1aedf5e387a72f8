"""Checkpoints: written atomically, and read without executing code that they may contain."""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from common.io.facts import TrainingFacts, read_facts, write_facts
from common.io.files import replacing

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Floating-point types that weights may have; other types lack most operations."""


def write_checkpoint(state: Mapping[str, Any], path: str | os.PathLike, facts: TrainingFacts | None = None) -> None:
    """Write a state dict, or a dict of state dicts, atomically: an existing file is replaced only by a complete one.

    The same tensors give the same bytes, because PyTorch stores a file's name only when it is given a path. ``facts``
    are what the file says of the weights' training.
    """
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            torch.save(dict(state), file)
        if facts is not None:
            write_facts(facts, temporary)


def read_checkpoint(path: str | os.PathLike, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``; a damaged one, or one with other values, raises ValueError."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such checkpoint. Train first, or name one that exists (key `ckpt_path`).")
    try:
        _require_whole(path)
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise ValueError(
            f"{path}: not an intact checkpoint of plain tensors ({type(error).__name__}). It is damaged, of another "
            "kind, or holds objects that are not loaded, since loading them could run any code. For a file that others "
            'made, save only its tensors in a container without network: see "Authors\' weights" in docs/share.md.'
        ) from None  # torch's own message advises loading it unsafely


def _require_whole(path: str | os.PathLike) -> None:
    """Verify a checkpoint against its checksums, which PyTorch 2.13 writes but does not check."""
    if not zipfile.is_zipfile(path):  # the format of PyTorch before 1.6, or not a checkpoint
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
            raise zipfile.BadZipFile("compressed, which a checkpoint never is")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} fails its checksum")


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read a state dict, which may lie under the key ``state_dict`` or ``model``; all its values must be finite."""
    state: Any = read_checkpoint(path)
    if isinstance(state, Mapping):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path}: holds {_kind(state)}; expected a state dict, that is, a dict of named tensors.")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{path}: {name!r} is {_kind(value)}; expected a state dict, that is, a dict of named tensors, or one "
                "under the key state_dict or model."
            )
        if flaw := _flaw(value):
            raise ValueError(f"{path}: {name!r} {flaw}. A network cannot use such weights; use another checkpoint.")
    return dict(state)


def load_weights(network: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load a plain state dict (``models/model.pt``) into a network of the same architecture and return the network."""
    state = read_weights(path)
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or shapes:
        facts = read_facts(path)
        settings = ", ".join(f"{key} {value}" for key, value in facts.settings.items()) if facts else ""
        raise ValueError(
            f"{path}: a checkpoint of another architecture than {type(network).__name__}: "
            f"{len(missing)} keys missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, "
            f"{len(shapes)} of another shape {shapes[:3]}. Use the config that it was trained with "
            f"({settings or 'cohort, backbone, width, crop'}), or another checkpoint."
        )
    for key, value in own.items():
        if state[key].is_floating_point() != value.is_floating_point():
            raise ValueError(f"{path}: {key!r} has type {state[key].dtype}; expected {value.dtype}, as in the network.")
    network.load_state_dict(state)
    return network


def start_from(network: nn.Module, path: str | os.PathLike | None) -> None:
    """Load the weights that a training starts from (key `init_from`); None leaves the network unchanged."""
    if path is not None and not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such checkpoint (key `init_from`).")
    if path is not None:
        load_weights(network, path)


def _kind(value: Any) -> str:
    """Describe, for a message, a value that is not a dict of named tensors."""
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, list(value)[:3])) or 'nothing'}"
    return f"a {type(value).__name__}"


def _flaw(value: torch.Tensor) -> str | None:
    """Return why a tensor cannot be a network's weights, or None if it can."""
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type != "cpu":
        return f"is not a plain tensor of numbers ({value.layout}, {value.dtype}, {value.device})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claims {value.numel()} values but holds fewer"
    if value.is_complex():
        return f"holds complex numbers ({value.dtype})"
    if value.is_floating_point() and value.dtype not in FLOATS:
        return f"has type {value.dtype}; expected one of {', '.join(map(str, FLOATS))}"
    if not (finite := value.float().isfinite()).all():  # in single precision, as networks hold them
        return f"holds NaN or infinity in {(~finite).sum()} of {value.numel()} values"
    return None
