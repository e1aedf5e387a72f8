def bundle(name: str) -> None:
    """Print the folder of a bundle, with its configs, for `python -m monai.bundle run`.

    Args:
        name: of a bundle, such as m3ae; a wrong one is answered with all names.
    """
    from common.io.bundle import bundle_root

    print(bundle_root(name))
