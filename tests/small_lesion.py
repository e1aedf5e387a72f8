"""A label map small enough to count its voxels by hand."""

import numpy as np
import torch

from common.modalities import LabelSet, tumour_labels

LABELS = tumour_labels(NCR=1, ED=2, ET=4)


def lesion() -> np.ndarray:
    """Return a tumour of 6 x 6 x 6 voxels; its core of 4 x 4 x 4 enhances around 2 x 2 x 2 of necrosis."""
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:10, 5:11, 6:12], label[5:9, 6:10, 7:11], label[6:8, 7:9, 8:10] = 2, 4, 1
    return label


def regions(label: np.ndarray, labels: LabelSet = LABELS) -> np.ndarray:
    """Return the regions of a label map, bool (R, X, Y, Z)."""
    return labels.to_regions(torch.from_numpy(label)[None]).bool().numpy()
