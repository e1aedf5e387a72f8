from collections.abc import Sequence


def ensemble(output: str, *weights: str, mirror_axes: Sequence[int] = ()) -> None:
    """Put the weights of several networks into one file, whose result is the mean of their logits.

    The file is used as any other: by predict, the server, evaluations, and a bundle's package.

    Args:
        output: the file to write, for ckpt_path.
        weights: two or more files of one architecture, trained for the same sequences, classes and voxel size.
        mirror_axes: axes along which inference with this file also flips each window, e.g. [0] for left and right.
    """
    from mmb.experiments.ensembles import write_ensemble

    write_ensemble(weights, output, mirror_axes)
