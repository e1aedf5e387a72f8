import os


def ship(run: str, bundle: str, name: str, data_source: str) -> None:
    """For maintainers: make a training's weights those of a bundle, with calibration and metadata.

    The weights are stored in half precision, except small tensors.

    Args:
        run: output_dir of a training that has been evaluated.
        bundle: folder of the bundle.
        name: model, for the default weights of inference, or phantom.
        data_source: short description of the training data.
    """
    from tools.maintenance.shipping import ship as ship_weights

    target = ship_weights(run, bundle, name, data_source)
    print(f"{target}: {os.path.getsize(target) / 1e6:.1f} MB")
