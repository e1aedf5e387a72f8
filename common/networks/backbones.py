"""Backbones by name: networks with an encoder for each modality, which PASSION and GSS train."""

from __future__ import annotations

from collections.abc import Sequence

from monai.utils import optional_import
from torch import nn

from common.networks.m2ftrans import M2FTrans
from common.networks.mmformer import MMFormer
from common.networks.rfnet import RFNet

BACKBONES: dict[str, type[nn.Module]] = {"RFNet": RFNet, "mmFormer": MMFormer, "M2FTrans": M2FTrans}
TRANSFORMER = {"RFNet": (), "mmFormer": ("embed_dim", "mlp_dim", "heads"), "M2FTrans": ("mlp_dim", "heads")}
"""Backbone -> which of the transformer's sizes it has."""


def build_backbone(
    name: str,
    modalities: int,
    classes: int,
    width: int,
    crop: Sequence[int],
    embed_dim: int = 512,
    mlp_dim: int = 4096,
    heads: int = 8,
) -> nn.Module:
    """Return a network by its name.

    Args:
        name: ``RFNet``, ``mmFormer`` or ``M2FTrans``; or the dotted path of any class that is made from ``modalities``,
            ``classes``, ``width`` and ``crop``, and has their ``encode``, ``decode`` and ``decode_separately``.
        modalities: M.
        classes: K of the softmax, background included.
        width: channels at full resolution.
        crop: size of the training crop in voxels.
        embed_dim: of mmFormer's tokens.
        mlp_dim: hidden width of a transformer's perceptron; unused by a backbone without one.
        heads: of a transformer's attention; unused by a backbone without one.

    Raises:
        ValueError: no such backbone, or a size that it cannot take.
    """
    sizes = {"embed_dim": embed_dim, "mlp_dim": mlp_dim, "heads": heads}
    backbone, found = BACKBONES.get(name), True
    if backbone is None:
        module, _, attribute = name.rpartition(".")
        backbone, found = optional_import(module, name=attribute) if module else (None, False)
    if not found:
        raise ValueError(
            f"backbone {name!r}: expected one of {', '.join(BACKBONES)}, or the dotted path of a class that can be "
            "imported (key `backbone`)."
        )
    chosen = {key: sizes[key] for key in TRANSFORMER.get(name, ())}
    return backbone(modalities=modalities, classes=classes, width=width, crop=tuple(crop), **chosen)
