def bundle(name: str) -> None:
    """Print the folder of a bundle, with its configs, for `python -m monai.bundle run`.

    Args:
        name: m3ae, mag_ms, medmap, passion or gss.
    """
    from common.io.bundle import bundle_root

    print(bundle_root(name))
