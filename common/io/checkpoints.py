"""Checkpoints: written atomically, and read without executing code that they may contain."""

import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from common.io.facts import TrainingFacts, read_facts, write_facts
from common.io.files import replacing

logger = logging.getLogger(__name__)


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


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``; a damaged one, or one with other values, raises ValueError."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such checkpoint. Train first, or name one that exists.")
    try:
        if zipfile.is_zipfile(path):  # else of PyTorch before 1.6, or not a checkpoint
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():  # PyTorch 2.13 writes checksums but does not verify them
                    raise zipfile.BadZipFile(f"{damaged} fails its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise ValueError(
            f"{path}: not an intact checkpoint of plain tensors ({type(error).__name__}). It is damaged, of another "
            "kind, or holds objects that are not loaded, since loading them could run any code. For a file that others "
            'made, save only its tensors in a container without network: see "Files that hold more than tensors" in '
            "docs/share.md."
        ) from None  # torch's own message advises loading it unsafely


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read a state dict, which may lie under the key ``state_dict`` or ``model``; all its values must be finite."""
    state: Any = read_checkpoint(path)
    if isinstance(state, Mapping):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"{path}: the file holds a {type(state).__name__}; expected a state dict: a dict of named tensors, or one "
            "under the key state_dict or model."
        )
    for name, value in state.items():
        if not value.float().isfinite().all():  # in single precision, as networks hold them
            raise ValueError(f"{path}: {name!r} holds NaN or infinity. Use another checkpoint.")
    return dict(state)


Network = TypeVar("Network", bound=nn.Module)


def load_weights(network: Network, path: str | os.PathLike) -> Network:
    """Load a plain state dict (``models/model.pt``) into a network of the same architecture and return the network."""
    state = read_weights(path)
    require_unwrapped(state, network.state_dict(), path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        if facts := read_facts(path):
            settings = ", ".join(f"{key} {value}" for key, value in facts.settings.items())
            todo = f"It is of {facts.method}, bundle {facts.bundle}: use that, with its config ({settings})"
        else:
            todo = (
                "Use the config of its training (cohort, backbone, width, crop); convert a file of a method's authors "
                "by import_weights"
            )
        raise ValueError(
            f"{path}: a checkpoint of another architecture than {type(network).__name__}. {todo}. "
            f"{' '.join(str(error).split())[:500]}"
        ) from None
    return network


def require_unwrapped(state: Mapping[str, Any], own: Iterable[str], path: str | os.PathLike) -> None:
    """Refuse weights that have all names of a network, but each with the same prefix, as ``module.``."""
    first, *others = own
    for name in state:
        prefix = name.removesuffix(first)
        if prefix and name.endswith(f".{first}") and all(prefix + other in state for other in others):
            raise ValueError(
                f"{path}: its names begin with {prefix!r}, as those of a network within another one, such as "
                "DistributedDataParallel or torch.compile. Save the inner network's state_dict(), or remove the prefix "
                "from the names."
            )


def start_from(
    network: nn.Module, init_from: str | os.PathLike | None, new_sequences: int = 0, new_head: bool = False
) -> None:
    """Load the weights that a training starts from (key `init_from`); None leaves the network unchanged.

    Args:
        new_sequences: number of the network's sequences, after all others, that the weights have not seen. Weights
            that only these use begin with zeros, so that M3AE without them computes what it did before; encoders of
            their own begin at random.
        new_head: whether the layers called head, and others that are made for other classes, stay as they are.
    """
    if init_from is None:
        return
    if not new_sequences and not new_head:
        load_weights(network, init_from)
        return
    state, own = read_weights(init_from), network.state_dict()
    require_unwrapped(state, own, init_from)
    loaded = {}
    for name, value in own.items():
        given = None if new_head and "head" in name else state.get(name)
        if given is not None and new_sequences and given.shape != value.shape and given.ndim == value.ndim:
            given = _widened(given, value.shape)
        if given is not None and given.shape == value.shape:
            loaded[name] = given
    fresh = sorted(own.keys() - loaded.keys())
    if len(loaded) < len(own) / 2:
        raise ValueError(
            f"{init_from}: a checkpoint of another architecture than {type(network).__name__}: {len(loaded)} of "
            f"{len(own)} tensors fit. Use the config of its training."
        )
    network.load_state_dict(loaded, strict=False)
    logger.info(f"{init_from}: {len(loaded)} tensors; at random begin {', '.join(fresh) or 'none'}")


def _widened(value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a tensor with zeros after its own values along each axis; of another shape if an axis would shrink."""
    missing = [size - own for size, own in zip(shape, value.shape, strict=True)]
    return (
        nn.functional.pad(value, [each for size in reversed(missing) for each in (0, size)])
        if min(missing) >= 0
        else value
    )
