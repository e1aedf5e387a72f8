from collections.abc import Sequence


def import_fusion(
    backbone: str, checkpoint: str, output: str, width: int = 8, crop: Sequence[int] = (80, 80, 80), classes: int = 4
) -> None:
    """Convert a checkpoint by the authors of RFNet, mmFormer, M2FTrans, PASSION or GSS into weights for our network.

    Args:
        backbone: RFNet, mmFormer or M2FTrans.
        checkpoint: the authors' file; it is read with weights_only=True.
        output: the file to write, for ckpt_path or init_from.
        width: width of the network: 8 in PASSION's releases, 16 in the releases of RFNet, GSS and M2FTrans.
        crop: training crop in voxels: [128,128,128] in mmFormer's own release.
        classes: number of classes of its head, including the background: 5 for BraTS 2015.
    """
    from common.networks.published.importing import convert_fusion

    convert_fusion(backbone, checkpoint, output, width, crop, classes)
