"""Networks by name, as configs choose them."""

import inspect
from collections.abc import Sequence
from typing import Any

from monai.utils import optional_import
from torch import nn

from common.networks.filled import FilledNetwork
from common.networks.fusion import FusionNetwork
from common.networks.kernels import replace_convolutions

BACKBONES = {
    "RFNet": "common.networks.rfnet.RFNet",
    "mmFormer": "common.networks.mmformer.MMFormer",
    "M2FTrans": "common.networks.m2ftrans.M2FTrans",
}
"""Name -> class of the networks for PASSION and GSS with an encoder for each modality. A `FusionNetwork` with a shared
one is in `NETWORKS` alone."""

NETWORKS = {
    **BACKBONES,
    "PMKL": "common.networks.pmkl.PMKL",
    "ACN": "common.networks.cotraining.ACN",
    "SMU-Net": "common.networks.cotraining.SMUNet",
    "RobustSeg": "common.networks.robustseg.RobustSeg",
    "U-HVED": "common.networks.hved.UHVED",
    "U-HeMIS": "common.networks.hved.UHeMIS",
    "MAG-MS": "common.networks.mag_ms.MAGMS",
    "UNETR": "common.networks.unetr.FilledUNETR",
    "UNETR per subset": "common.networks.unetr.DedicatedUNETR",
}
"""All networks with a softmax over the background and a cohort's targets; each is imported when it is built."""


def build_network(name: str, modalities: int, classes: int, width: int, crop: Sequence[int], **sizes: Any) -> nn.Module:
    """Return a network by its name.

    Raises ValueError if there is no such network, a size does not suit it, or a ``feature_encoder`` or ``subsets`` is
    given to a network that does not support it.

    The name is one of `NETWORKS`, or the dotted path of another class, which is called with ``modalities``,
    ``classes``, ``width`` and ``crop``, or if it has ``in_channels`` instead, as MONAI's networks do, becomes a
    `FilledNetwork`. Of other arguments, such as ``heads``, each network gets those that it accepts. Every
    `nn.Conv3d` in it becomes a `Conv3d` of `common.networks.kernels`, whose gradient in bfloat16 is right on every CPU.

    Examples:
        >>> import torch
        >>> from common.networks import build_network
        >>> sizes = {"modalities": 2, "classes": 3, "width": 4, "crop": (32, 32)}
        >>> type(build_network("RFNet", **sizes)).__name__
        'RFNet'
        >>> network = build_network("monai.networks.nets.BasicUNet", **sizes)
        >>> image = torch.randn(1, 2, 32, 32)
        >>> image[:, 1] = torch.nan  # a missing modality is zeros for MONAI's networks
        >>> network(image).shape
        torch.Size([1, 3, 32, 32])
    """
    network = network_class(name)
    sizes = {"modalities": modalities, "classes": classes, "width": width, "crop": tuple(crop), **sizes}
    taken = inspect.signature(network).parameters
    for size, key in (("feature_encoder", "feature_encoder"), ("subsets", "dedicated")):
        if sizes.get(size) is not None and size not in taken:
            raise ValueError(f"{key} {sizes[size]!r}: backbone {name!r} does not support it; set `{key}` to null.")
    if "modalities" not in taken and "in_channels" in taken:
        built: nn.Module = FilledNetwork(network, **sizes)
    else:
        built = network(**{key: size for key, size in sizes.items() if key in taken})
    return replace_convolutions(built)


def network_class(name: str) -> type[nn.Module]:
    """Return the class of a network by its name in `NETWORKS` or by its dotted path, or raise ValueError."""
    module, _, attribute = NETWORKS.get(name, name).rpartition(".")
    network, importable = optional_import(module, name=attribute) if module else (None, False)
    if not importable or not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise ValueError(
            f"backbone {name!r}: expected one of {', '.join(NETWORKS)}, or the dotted path of a network's class that "
            "can be imported (key `backbone`)."
        )
    return network


def require_fusion(network: nn.Module, method: str) -> FusionNetwork:
    """Return the network after checking that it has a fusing and a separate decoder."""
    if not isinstance(network, FusionNetwork):
        raise ValueError(
            f"{method} needs a fusing and a separate decoder, which {type(network).__name__} does not have: expected "
            f"{', '.join(BACKBONES)} or another FusionNetwork (key `backbone`)."
        )
    return network


def require_classes(network: nn.Module, targets: Sequence[str]) -> None:
    """Refuse a network whose last layer, ``head``, does not fit the background and a cohort's targets."""
    if not hasattr(network, "head"):  # a network made of several networks
        return
    classes = network.get_parameter("head.weight").shape[0]
    if classes != 1 + len(targets):
        raise ValueError(
            f"The network's head has {classes} classes, but the cohort has {1 + len(targets)}: the background, "
            f"{', '.join(targets)}. Set `cohort` to the one that the network was made for, or choose another network."
        )
