"""Import of checkpoints by the authors of ACN and SMU-Net: pure maps from their keys to ours.

Their checkpoints hold one path each. Their axes are ours (x, y, z). The modalities of a missing path are assumed to be
in the order of the full path. Their classes ED, NCR, ET, background are reordered to background, NCR, ED, ET.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from common.networks.dedicated import FullAndMissing
from mmb.authors.fusion_keys import NAMES
from mmb.authors.m3ae_keys import M3AE_STAGES
from mmb.authors.matching import fits, require_match

AUTHORS = {"ACN": ("t1", "t2", "flair", "t1ce"), "SMUNet": ("flair", "t1", "t1ce", "t2")}
"""Class of our network -> modalities in the authors' order."""
CLASSES = [3, 1, 0, 2]
"""Positions of our classes in the authors' head."""
STAGES = {
    **{ours: f"unet.{theirs}" for theirs, ours in M3AE_STAGES.items() if not theirs.startswith("ds_out")},
    "regressor": "VID_branch.regressor",
    "log_scale": "VID_branch.log_scale",
    "style": "unet.convc",
    "merge": "unet.convco",
}
"""Our name of a stage, without ``unet.`` -> the authors' name."""
UNUSED = r"(vae_branch|VID_branch)\."
"""Pattern of the authors' keys that no loss uses: both paths' auto-encoder, and the full path's prediction."""


def import_cotraining(
    state: Mapping[str, torch.Tensor], network: nn.Module, subset: Sequence[int] | None = None
) -> dict[str, torch.Tensor]:
    """Turn the authors' checkpoint of one path into a part of a state dict of our network.

    The keys of ``state`` may begin with ``module.``; the network is an ACN or SMUNet of four modalities, the subset
    that of the missing path as channels of our image, or None for the full path. A pair of paths is the union of two
    imports, with ``network = ACN(subsets=[subset])``.
    """
    name = type(network).__name__
    if not isinstance(network, FullAndMissing) or name not in AUTHORS:
        raise ValueError(f"{name}: expected {' or '.join(AUTHORS)}, whose published weights can be imported.")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    prefix = "full." if subset is None else f"missing.networks.{'_'.join(map(str, subset))}."
    own = {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
    if subset is not None and not own:
        raise ValueError(f"No missing path for channels {list(subset)}; expected one of {network.missing.subsets}.")
    wanted = {_theirs(key.removeprefix(prefix)): key for key in own}
    path = "the full path" if subset is None else f"the path for channels {list(subset)}"
    shapes = {theirs: own[ours].shape for theirs, ours in wanted.items()}
    require_match(state, shapes, f"{path} of this {name}", UNUSED)
    names = NAMES if subset is None else [NAMES[m] for m in subset]
    theirs = [modality for modality in AUTHORS[name] if modality in names]
    order = [theirs.index(modality) for modality in names]  # position of each of our modalities in the authors' input
    return {ours: _reordered(ours, state[theirs], order) for theirs, ours in wanted.items()}


def fits_cotraining(state: Iterable[str], network: nn.Module) -> bool:
    """Return whether these are keys of the full path of the authors' network, without ``module.``."""
    own = (key for key in network.state_dict() if key.startswith("full."))
    return fits(state, (_theirs(key.removeprefix("full.")) for key in own), UNUSED)


def _theirs(key: str) -> str:
    """Return the authors' key for ours, within a path."""
    key = key.removeprefix("unet.")
    stage = next(stage for stage in STAGES if key == stage or key.startswith(f"{stage}."))
    return STAGES[stage] + key.removeprefix(stage).replace("norm", "gn")


def _reordered(key: str, value: torch.Tensor, order: list[int]) -> torch.Tensor:
    if key.endswith("unet.encoder.0.0.weight"):
        return value[:, order]
    return value[CLASSES] if ".unet.head." in key else value
