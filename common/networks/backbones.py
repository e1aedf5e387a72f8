"""Backbones by name: networks with an encoder for each modality, which PASSION and GSS train."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from monai.utils import optional_import

from common.networks.blocks import FusionNetwork
from common.networks.m2ftrans import M2FTrans
from common.networks.mmformer import MMFormer
from common.networks.rfnet import RFNet

BACKBONES: dict[str, type[FusionNetwork]] = {"RFNet": RFNet, "mmFormer": MMFormer, "M2FTrans": M2FTrans}


def build_backbone(
    name: str,
    modalities: int,
    classes: int,
    width: int,
    crop: Sequence[int],
    embed_dim: int = 512,
    mlp_dim: int = 4096,
    heads: int = 8,
) -> FusionNetwork:
    """Return a network by its name.

    Args:
        name: ``RFNet``, ``mmFormer`` or ``M2FTrans``; or the dotted path of another `FusionNetwork` that is made from
            ``modalities``, ``classes``, ``width`` and ``crop``.
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
    if not found or not (isinstance(backbone, type) and issubclass(backbone, FusionNetwork)):
        raise ValueError(
            f"backbone {name!r}: expected one of {', '.join(BACKBONES)}, or the dotted path of a FusionNetwork that "
            "can be imported (key `backbone`)."
        )
    taken = inspect.signature(backbone).parameters
    chosen = {key: size for key, size in sizes.items() if key in taken}
    return backbone(modalities=modalities, classes=classes, width=width, crop=tuple(crop), **chosen)


def require_classes(network: FusionNetwork, targets: Sequence[str]) -> None:
    """Refuse a network whose softmax is not over the background and a cohort's targets.

    Raises:
        ValueError: it is over more or fewer classes.
    """
    found = network.head.weight.shape[0]
    if found != 1 + len(targets):
        raise ValueError(
            f"The network's head has {found} classes, but the cohort has {1 + len(targets)}: the background, "
            f"{', '.join(targets)}. Class counts that disagree between network, cohort and loss; set `cohort` to "
            "the one that the network is for."
        )
