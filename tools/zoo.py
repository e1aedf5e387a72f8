def zoo(bundle: str, output_dir: str, url: str | None = None) -> None:
    """Make the folder of a bundle for a pull request to MONAI's model zoo.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder to write, e.g. a clone of the zoo: models/glioma_mri_segmentation_NAME.
        url: where the bundle's folder is published; files above 1 MB are then listed in large_files.yml, not copied.
    """
    from common.io import require_writable
    from tools.packages.zoo import make_zoo_folder

    print(make_zoo_folder(bundle, require_writable(output_dir), url))
