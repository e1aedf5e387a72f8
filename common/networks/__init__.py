"""One file per architecture."""

from common.networks.backbones import BACKBONES, build_backbone, require_classes
from common.networks.blocks import Decoded, FusionOutput
from common.networks.m2ftrans import M2FTrans
from common.networks.m3ae import M3AE
from common.networks.mmformer import MMFormer
from common.networks.residual_unet import ResidualUNet, SegmentationOutput
from common.networks.rfnet import RFNet

__all__ = [
    "BACKBONES",
    "M3AE",
    "Decoded",
    "FusionOutput",
    "M2FTrans",
    "MMFormer",
    "RFNet",
    "ResidualUNet",
    "SegmentationOutput",
    "build_backbone",
    "require_classes",
]
