def import_m3ae(checkpoint: str, output: str) -> None:
    """Convert a checkpoint by M3AE's authors (a plain state dict) into weights for this bundle.

    Args:
        checkpoint: the authors' file; it is read with weights_only=True.
        output: the file to write, for ckpt_path.
    """
    from common.networks.published.importing import convert_m3ae

    convert_m3ae(checkpoint, output)
