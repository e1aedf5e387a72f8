from pathlib import Path


def train_content(dataset_dir: str, output: str) -> None:
    """For maintainers: train the network that checks what images show, and print its accuracy.

    Args:
        dataset_dir: folder of open_glioma, as downloaded.
        output: the file to write, e.g. common/cohorts/data/sequence_check.pt.
    """
    import pandas as pd

    from common.cohorts.sequence_check import CLASSES
    from common.io import require_writable
    from common.modalities import GLIOMA
    from tools.maintenance.sequence_check import train_network

    require_writable(Path(output).parent)
    counts = pd.DataFrame(train_network(dataset_dir, output).numpy(), GLIOMA, CLASSES)
    print(f"{output}: classes found by cross-validation over patients (columns) for images of each sequence (rows):")
    print(counts.to_string())
