def import_cotraining(network: str, full: str, output: str, *missing: str, width: int = 16) -> None:
    """Convert checkpoints by the authors of ACN or SMU-Net, one for each path, into weights for our network.

    Args:
        network: ACN or SMU-Net.
        full: the authors' file of the path for all modalities; it is read with weights_only=True.
        output: the file to write, for ckpt_path; set the subsets with the key dedicated.
        missing: one or more SUBSET=FILE, the authors' files of the paths for incomplete subsets, e.g. t1c=mono.pth.
        width: width of the paths.
    """
    from common.networks.published.importing import convert_cotraining

    convert_cotraining(network, full, output, missing, width)
