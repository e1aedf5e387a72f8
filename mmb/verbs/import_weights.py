from collections.abc import Sequence


def import_weights(
    checkpoint: str,
    output: str,
    *missing: str,
    method: str | None = None,
    crop: Sequence[int] | None = None,
) -> None:
    """Convert a checkpoint by the authors of a method into weights for our network.

    The code of PASSION and GSS trains RFNet, mmFormer and M2FTrans; the weights of ACN and SMU-Net come in a file for
    each path, and CHECKPOINT is that for all modalities.

    Args:
        checkpoint: the authors' file; it is read with weights_only=True.
        output: the file to write, for ckpt_path or init_from.
        missing: of ACN and SMU-Net one or more SUBSET=FILE, the paths for incomplete subsets, e.g. t1c=mono.pth; their
            bundle has to be told these subsets by the key dedicated.
        method: M3AE, RFNet, mmFormer, M2FTrans, ACN or SMU-Net; by default the one whose keys the file has.
        crop: training crop in voxels of RFNet, mmFormer and M2FTrans; by default [80,80,80] for RFNet, as in its
            releases, and a cube of the size that the file tells for the other two.
    """
    from mmb.authors.authors_weights import convert

    convert(checkpoint, output, missing, method, crop)
