"""Importing checkpoints that the authors of ACN and SMU-Net saved: pure maps from their keys to ours.

They have a network for each path, and checkpoints of each. Their axes are ours (x, y, z). The modalities of a missing
path are taken to be in the order of the full one. Their classes ED, NCR, ET, background become background, NCR, ED, ET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from common.networks.published.fusion_keys import Match
from common.networks.published.m3ae_keys import M3AE_STAGES

NAMES = ("t1", "t1ce", "t2", "flair")
"""Our order of the modalities."""
AUTHORS = {"ACN": ("t1", "t2", "flair", "t1ce"), "SMUNet": ("flair", "t1", "t1ce", "t2")}
"""Theirs, by the class of our network."""
CLASSES = [3, 1, 0, 2]
"""Where their head has each of our classes."""

STAGES = {
    **{ours: f"unet.{theirs}" for theirs, ours in M3AE_STAGES.items() if not theirs.startswith("ds_out")},
    "regressor": "VID_branch.regressor",
    "log_scale": "VID_branch.log_scale",
    "style": "unet.convc",
    "merge": "unet.convco",
}
"""Our stage, without ``unet.`` -> theirs."""
UNUSED = r"(vae_branch|VID_branch)\."
"""Their keys that no loss reads: the auto-encoder of both paths, what the full path predicts."""


def import_cotraining(
    state: Mapping[str, torch.Tensor], network: nn.Module, subset: Sequence[int] | None = None
) -> tuple[dict[str, torch.Tensor], Match]:
    """Turn the authors' checkpoint of one path into a part of a state dict of our network.

    A pair of theirs is the union of two imports, for ``network = ACN(subsets=[subset])``.

    Args:
        state: their state dict; keys with or without ``module.``.
        network: an ACN or a SMUNet of four modalities.
        subset: whose missing path the checkpoint is of, as channels of our image; None: the full path.

    Returns:
        The part of the state dict, and what matched.

    Raises:
        ValueError: keys or shapes differ; the first few of each side are named. The network has no path for the subset.
    """
    name = type(network).__name__
    if name not in AUTHORS:
        raise ValueError(f"{name}: expected {' or '.join(AUTHORS)}, of which weights are known.")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    prefix = "full." if subset is None else f"missing.networks.{'_'.join(map(str, subset))}."
    own = {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
    if not own:
        raise ValueError(f"No missing path for channels {list(subset)}; there are those for {network.missing.subsets}.")
    wanted = {_theirs(key.removeprefix(prefix)): key for key in own}
    match = Match(
        matched=[ours for theirs, ours in wanted.items() if theirs in state],
        missing=[theirs for theirs in wanted if theirs not in state],
        unexpected=[key for key in state if key not in wanted and not re.match(UNUSED, key)],
        shapes=[
            f"{theirs} {tuple(state[theirs].shape)} in the file, {tuple(own[ours].shape)} in the path"
            for theirs, ours in wanted.items()
            if theirs in state and state[theirs].shape != own[ours].shape
        ],
        unused=[key for key in state if key not in wanted and re.match(UNUSED, key)],
    )
    if match.missing or match.unexpected or match.shapes:
        raise ValueError(_complaint(match, network, len(state), subset))
    order = _order(AUTHORS[name], range(len(NAMES)) if subset is None else subset)
    return {ours: _reordered(ours, state[theirs], order) for theirs, ours in wanted.items()}, match


def _theirs(key: str) -> str:
    """Return their key of ours in a path."""
    key = key.removeprefix("unet.")
    stage = next(stage for stage in STAGES if key == stage or key.startswith(f"{stage}."))
    return STAGES[stage] + key.removeprefix(stage).replace("norm", "gn")


def _order(authors: tuple[str, ...], subset: Sequence[int]) -> list[int]:
    """Return where their input has each modality of ours."""
    names = [NAMES[m] for m in subset]
    theirs = [name for name in authors if name in names]
    return [theirs.index(name) for name in names]


def _reordered(key: str, value: torch.Tensor, order: list[int]) -> torch.Tensor:
    if key.endswith("unet.encoder.0.0.weight"):
        return value[:, order]
    return value[CLASSES] if ".unet.head." in key else value


def _complaint(match: Match, network: nn.Module, found: int, subset: Sequence[int] | None) -> str:
    path = "full path" if subset is None else f"path for channels {list(subset)}"
    return (
        f"Not a checkpoint of the {path} of this {type(network).__name__}: of {found} tensors {len(match.matched)} "
        f"have a place, {len(match.missing)} are missing {match.missing[:3]}, {len(match.unexpected)} have no place "
        f"{match.unexpected[:3]}, {len(match.shapes)} are of another size {match.shapes[:3]}. Likely cause: another "
        "network, path, width or number of classes, a feature encoder, or weights that this software made, which need "
        "no import."
    )
