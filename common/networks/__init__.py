"""Network architectures, one file each.

All classes and functions use these words; docstrings explain only what differs.

- Shapes: B samples of M modalities; K classes of the softmax, including the background; C channels. Three spatial axes
  (X, Y, Z) are written out where a network takes no others, else as dots.
- ``modalities`` (M), ``classes`` (K), ``width`` (channels at full resolution, in a part those of the finest level or of
  the level that it processes), ``dims`` (spatial dimensions, 2 or 3).
- ``crop``: size of the training crop in voxels. Transformers learn positions for this size only, so every window has
  it.
- ``embed_dim`` or ``hidden`` (channels of a transformer's token), ``heads`` (attention heads, a divisor of these
  channels), ``mlp_dim`` (hidden width of its perceptrons), ``dropout`` (a rate).
- ``feature_encoder``: kind of MedMAP's `FeatureEncoder` before all else, ``shared``, ``separate`` or None.
- ``image``: ``(B, M, ...)`` with NaN in missing modalities. ``present``: bool ``(B, M)``; a modality is used if it has
  no NaN and is present. None allows all.
"""

from typing import Any

from common.names import find

_MODULES = {
    "build": ("BACKBONES", "NETWORKS", "build_network", "require_classes"),
    "cotraining": ("ACN", "SMUNet"),
    "ensemble": ("Ensemble", "replicated"),
    "fusion": ("Decoded", "FusionOutput"),
    "m2ftrans": ("M2FTrans",),
    "m3ae": ("M3AE",),
    "mmformer": ("MMFormer",),
    "residual_unet": ("ResidualUNet", "SegmentationOutput"),
    "rfnet": ("RFNet",),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    return find(__name__, name, _MODULES)
