"""Network architectures, one file each."""

from common.networks.build import BACKBONES, NETWORKS, build_network, require_classes
from common.networks.cotraining import ACN, SMUNet
from common.networks.fusion import Decoded, FusionOutput
from common.networks.m2ftrans import M2FTrans
from common.networks.m3ae import M3AE
from common.networks.mmformer import MMFormer
from common.networks.parts import modality_parts
from common.networks.residual_unet import ResidualUNet, SegmentationOutput
from common.networks.rfnet import RFNet

__all__ = [
    "ACN",
    "BACKBONES",
    "M3AE",
    "NETWORKS",
    "Decoded",
    "FusionOutput",
    "M2FTrans",
    "MMFormer",
    "RFNet",
    "ResidualUNet",
    "SMUNet",
    "SegmentationOutput",
    "build_network",
    "modality_parts",
    "require_classes",
]
