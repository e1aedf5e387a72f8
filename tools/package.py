def package(bundle: str, output_dir: str) -> None:
    """Make a zip of a bundle that needs no other files of the repository, and list it in the index beside it.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder to write: NAME_vVERSION.zip, and index.json of all packages there.
    """
    from common.io import file_digest, require_writable
    from tools.packages.index import write_index
    from tools.packages.package import make_package

    made = make_package(bundle, require_writable(output_dir))
    index = write_index(made.parent)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB, listed in {index}")
    print(f"{file_digest(index)} is the index's SHA-256; publish it elsewhere, too, for users to pass as --sha256")
