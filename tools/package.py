def package(bundle: str, output_dir: str) -> None:
    """Make a zip of a bundle that needs no other files of the repository; print its SHA-256 and how to download it.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder in which to write NAME_vVERSION.zip.
    """
    from common.io import file_digest, require_writable
    from tools.packages.package import make_package

    made = make_package(bundle, require_writable(output_dir))
    name, digest = made.name, file_digest(made)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    print("Publish the SHA-256 elsewhere than the file. With the file at URL, users download and unpack it into DIR by")
    print(f"  curl -fO URL/{name} && echo '{digest}  {name}' | sha256sum -c && unzip {name} -d DIR")
    print("or, without that check, by")
    print(f"  python -m monai.bundle download --name {name.partition('_v')[0]} --url URL/{name} --bundle_dir DIR")
