"""Networks by name, as configs choose them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from monai.utils import optional_import
from torch import nn

from common.networks.blocks import FusionNetwork
from common.networks.cotraining import ACN, SMUNet
from common.networks.hved import UHVED, UHeMIS
from common.networks.m2ftrans import M2FTrans
from common.networks.mag_ms import MAGMS
from common.networks.mmformer import MMFormer
from common.networks.pmkl import PMKL
from common.networks.rfnet import RFNet
from common.networks.robustseg import RobustSeg
from common.networks.unetr import DedicatedUNETR, FilledUNETR

BACKBONES: dict[str, type[FusionNetwork]] = {"RFNet": RFNet, "mmFormer": MMFormer, "M2FTrans": M2FTrans}
"""Networks with an encoder for each modality and a decoder of single modalities, which PASSION and GSS train."""

NETWORKS: dict[str, type[nn.Module]] = {
    **BACKBONES,
    "PMKL": PMKL,
    "ACN": ACN,
    "SMU-Net": SMUNet,
    "RobustSeg": RobustSeg,
    "U-HVED": UHVED,
    "U-HeMIS": UHeMIS,
    "MAG-MS": MAGMS,
    "UNETR": FilledUNETR,
    "UNETR per subset": DedicatedUNETR,
}
"""All whose softmax is over the background and a cohort's targets."""


def build_network(name: str, modalities: int, classes: int, width: int, crop: Sequence[int], **sizes: Any) -> nn.Module:
    """Return a network by its name.

    Args:
        name: one of `NETWORKS`; or the dotted path of another class, which is made from ``modalities``, ``classes``,
            ``width`` and ``crop``.
        modalities: M.
        classes: K of the softmax, background included.
        width: channels at full resolution.
        crop: size of the training crop in voxels.
        sizes: other arguments that some networks have, such as ``heads``; a network is given those of its own.

    Raises:
        ValueError: no such network, a size that it cannot take, or a ``feature_encoder`` or ``subsets`` for one that
            has neither.
    """
    network, found = NETWORKS.get(name), True
    if network is None:
        module, _, attribute = name.rpartition(".")
        network, found = optional_import(module, name=attribute) if module else (None, False)
    if not found or not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(
            f"backbone {name!r}: expected one of {', '.join(NETWORKS)}, or the dotted path of a network's class that "
            "can be imported (key `backbone`)."
        )
    sizes = {"modalities": modalities, "classes": classes, "width": width, "crop": tuple(crop), **sizes}
    taken = inspect.signature(network).parameters
    for size, key in (("feature_encoder", "feature_encoder"), ("subsets", "dedicated")):
        if sizes.get(size) is not None and size not in taken:
            raise ValueError(f"{key} {sizes[size]!r}: backbone {name!r} has nothing of the kind; set `{key}` to null.")
    return network(**{key: size for key, size in sizes.items() if key in taken})


def require_fusion(network: nn.Module, method: str) -> FusionNetwork:
    """Return the network, if a method that fuses and separately decodes can train it.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(network, FusionNetwork):
        raise ValueError(
            f"{method} decodes each modality by itself and fused, which {type(network).__name__} does not: expected "
            f"{', '.join(BACKBONES)} or another FusionNetwork (key `backbone`)."
        )
    return network


def require_classes(network: nn.Module, targets: Sequence[str]) -> None:
    """Refuse a network whose last layer, ``head``, is not for the background and a cohort's targets.

    Raises:
        ValueError: it is over more or fewer classes.
    """
    if not hasattr(network, "head"):  # one made of several networks
        return
    found = network.head.weight.shape[0]
    if found != 1 + len(targets):
        raise ValueError(
            f"The network's head has {found} classes, but the cohort has {1 + len(targets)}: the background, "
            f"{', '.join(targets)}. Class counts that disagree between network, cohort and loss; set `cohort` to "
            "the one that the network is for."
        )
