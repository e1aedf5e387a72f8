"""Comparison of an authors' checkpoint with a network, by their keys."""

import re
from collections.abc import Iterable, Mapping, Sequence

import torch


def fits(state: Iterable[str], keys: Iterable[str], unused: str = "(?!)") -> bool:
    """Return whether a checkpoint has all keys of a network, and no others but unused ones (see `require_match`)."""
    own, keys = {*state}, {*keys}
    return keys <= own and all(re.match(unused, key) for key in own - keys)


def require_match(
    state: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], network: str, unused: str = "(?!)"
) -> None:
    """Refuse a checkpoint that lacks one of a network's keys, or has others or other shapes, by a ValueError.

    ``shapes`` are the network's, and ``unused`` is a pattern of keys that no layer uses, not even the authors'. The
    message, in which ``network`` is named, has the first few keys of each kind.
    """
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes and not re.match(unused, key)]
    differing = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(shape)} in the network"
        for key, shape in shapes.items()
        if key in state and state[key].shape != shape
    ]
    if missing or unexpected or differing:
        raise ValueError(
            f"Not a checkpoint of {network}: of {len(state)} tensors, {len(missing)} are missing {missing[:3]}, "
            f"{len(unexpected)} are unexpected {unexpected[:3]}, {len(differing)} have another shape {differing[:3]}. "
            "Likely cause: another architecture or release, another width, crop or number of classes, or weights made "
            "by this software, which need no import."
        )
