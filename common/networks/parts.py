"""Which of a network's weights see one modality alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def modality_parts(network: nn.Module, modalities: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the parts of a network that see one modality alone, for each modality.

    These are the items of the network's lists named in its attribute ``per_modality``, or of its ``encoders``, and of a
    feature encoder that is separate for each. A network that fuses its input has none.

    Args:
        network: e.g. a FusionNetwork.
        modalities: names in the cohort's order, e.g. ``("t1", "t1c", "t2", "flair")``.

    Returns:
        e.g. ``{"t1": ["encoders.0", "intra.0"], ...}``, prefixes of keys of the network's state.
    """
    names = getattr(network, "per_modality", ("encoders",) if hasattr(network, "encoders") else ())
    if getattr(getattr(network, "feature_encoder", None), "kind", None) == "separate":
        names = (*names, "feature_encoder.layers")
    return {modality: [f"{name}.{number}" for name in names] for number, modality in enumerate(modalities)}
