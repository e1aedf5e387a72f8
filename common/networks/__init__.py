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

from common.networks.build import BACKBONES, NETWORKS, build_network, require_classes
from common.networks.cotraining import ACN, SMUNet
from common.networks.ensemble import Ensemble, replicated
from common.networks.fusion import Decoded, FusionOutput
from common.networks.m2ftrans import M2FTrans
from common.networks.m3ae import M3AE
from common.networks.mmformer import MMFormer
from common.networks.residual_unet import ResidualUNet, SegmentationOutput
from common.networks.rfnet import RFNet

__all__ = [
    "ACN",
    "BACKBONES",
    "M3AE",
    "NETWORKS",
    "Decoded",
    "Ensemble",
    "FusionOutput",
    "M2FTrans",
    "MMFormer",
    "RFNet",
    "ResidualUNet",
    "SMUNet",
    "SegmentationOutput",
    "build_network",
    "replicated",
    "require_classes",
]
