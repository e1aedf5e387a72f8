"""Import of M3AE checkpoints by its authors: a pure map from their keys to ours."""

from collections.abc import Iterable, Mapping

import torch

from common.networks.m3ae import M3AE
from mmb.authors.matching import require_match

M3AE_STAGES = {
    "conv1a": "encoder.0.0",
    "conv1b": "encoder.0.1",
    "ds1": "encoder.1.0",
    "conv2a": "encoder.1.1",
    "conv2b": "encoder.1.2",
    "ds2": "encoder.2.0",
    "conv3a": "encoder.2.1",
    "conv3b": "encoder.2.2",
    "ds3": "encoder.3.0",
    "conv4a": "encoder.3.1",
    "conv4b": "encoder.3.2",
    "conv4c": "encoder.3.3",
    "conv4d": "encoder.3.4",
    "up4conva": "up4.reduce",
    "up4convb": "up4.block",
    "up3conva": "up3.reduce",
    "up3convb": "up3.block",
    "up2conva": "up2.reduce",
    "up2convb": "up2.block",
    "up1conv": "head",
    "ds_out.0": "deep_heads.0",
    "ds_out.1": "deep_heads.1",
}
"""The authors' name of a U-Net stage -> ours."""


def import_m3ae(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Turn a state dict of the authors' M3AE (ccarliu/m3ae) into one of `common.networks.M3AE`.

    It is that of pretraining or fine-tuning, with or without ``module.`` in its keys. Their axes are (z, y, x) of
    images stored as LPS, ours (x, y, z) in RAS: kernels and x_sub are transposed, and x_sub is turned to RAS (kernels
    are not, since the network was trained with flips along every axis). Their region order ET, TC, WT becomes WT, TC,
    ET.
    """
    ours = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        if value.ndim == 5:
            value = value.permute(0, 1, 4, 3, 2).contiguous()
        if key == "limage":
            ours["x_sub"] = value.flip(2, 3) if value.ndim == 5 else value
            continue
        name = _rename_m3ae(key)
        if name.startswith(("unet.head", "unet.deep_heads")) and value.shape[:1] == (3,):
            value = value.flip(0)
        ours[name] = value
    _require_whole(ours)
    return ours


def fits_m3ae(state: Iterable[str]) -> bool:
    """Return whether these are keys of the authors' M3AE, without ``module.``."""
    stages = tuple(f"unet.{stage}." for stage in M3AE_STAGES)
    return "limage" in state and all(key == "limage" or key.startswith(stages) for key in state)


def _require_whole(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse a state dict that is not a complete network, of whatever size."""
    sizes = {
        "x_sub": "limage",
        "unet.encoder.0.0.weight": "unet.conv1a.weight",
        "unet.head.weight": "unet.up1conv.weight",
    }
    lost = [
        theirs
        for ours, theirs in sizes.items()
        if ours not in state or state[ours].ndim != 5 or not state[ours].numel()
    ]
    if lost:
        raise ValueError(f"Not a complete checkpoint of the authors' M3AE: {len(state)} tensors, no usable {lost[0]}.")
    (_, _, *grid), (width, modalities, *_), (outputs, *_) = (state[key].shape for key in sizes)
    with torch.device("meta"):
        network = M3AE(modalities, outputs, width, grid, any("deep_heads" in key for key in state))
    require_match(state, {key: value.shape for key, value in network.state_dict().items()}, "the authors' M3AE")


def _rename_m3ae(key: str) -> str:
    for theirs, stage in M3AE_STAGES.items():
        prefix = f"unet.{theirs}."
        if key.startswith(prefix):
            return f"unet.{stage}." + key.removeprefix(prefix).replace("gn", "norm")
    raise ValueError(
        f"Key {key!r} is not one of the authors' M3AE; expected limage and unet.conv1a ... unet.ds_out.1. "
        "Weights made by this software need no import."
    )
