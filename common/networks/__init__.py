"""One file per architecture."""

from common.networks.m3ae import M3AE
from common.networks.residual_unet import ResidualUNet, SegmentationOutput

__all__ = ["M3AE", "ResidualUNet", "SegmentationOutput"]
