"""The parts of a network that process one modality alone."""

from collections.abc import Sequence

from torch import nn


def modality_modules(network: nn.Module, modalities: Sequence[str]) -> dict[str, list[str]]:
    """Return modality -> prefixes of the state dict's keys of those parts of a network that process it alone.

    An example is ``{"t1": ["encoders.0", "intra.0"], ...}``. These are the items of the module lists named in the
    network's attribute ``per_modality`` (by default ``encoders``), and those of a separate feature encoder. A network
    that concatenates its inputs has none.
    """
    names = getattr(network, "per_modality", ("encoders",) if hasattr(network, "encoders") else ())
    if getattr(getattr(network, "feature_encoder", None), "kind", None) == "separate":
        names = (*names, "feature_encoder.layers")
    return {modality: [f"{name}.{number}" for name in names] for number, modality in enumerate(modalities)}
