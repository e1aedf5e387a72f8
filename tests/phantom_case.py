"""Cases of the phantom as image files, with heads around them, and a label map small enough to count by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from common.cohorts.phantom.simulation import SPACING, simulate
from common.io.bundle import bundle_root
from common.io.checkpoints import read_weights, write_checkpoint
from common.io.facts import read_facts
from common.modalities import LabelSet, tumour_labels

LPS = np.diag([-SPACING, -SPACING, SPACING, 1.0])
"""The affine of the phantom's images, with BraTS's axes."""
SEED = 1000 * 2023 + 29
"""Seed of a test case."""
HEAD = (slice(16, 64), slice(8, 72), slice(0, 52))
"""The head alone: half the voxels, so that segmenting takes about half the time."""


def write_case(
    folder: Path, prefix: str, seed: int = SEED, box: tuple[slice, ...] = (slice(None),) * 3
) -> nib.Nifti1Image:
    """Write the volumes of a case with BraTS's names, and its label map; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    images, label = simulate(seed)
    for name, voxels in (images | {"seg": label}).items():
        image = nib.Nifti1Image(voxels, LPS).slicer[box]
        nib.save(image, folder / f"{prefix}_{'t1ce' if name == 't1c' else name}.nii.gz")
    return image


LABELS = tumour_labels(NCR=1, ED=2, ET=4)


def lesion() -> np.ndarray:
    """Return a tumour of 6 x 6 x 6 voxels; its core of 4 x 4 x 4 enhances around 2 x 2 x 2 of necrosis."""
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:10, 5:11, 6:12], label[5:9, 6:10, 7:11], label[6:8, 7:9, 8:10] = 2, 4, 1
    return label


def regions(label: np.ndarray, labels: LabelSet = LABELS) -> np.ndarray:
    """Return the regions of a label map, bool (R, X, Y, Z)."""
    return labels.to_regions(torch.from_numpy(label)[None]).bool().numpy()


LAYERS = {"csf": 3, "bone": 10, "scalp": 18}
"""Tissue -> mm from the brain to where it ends."""
SIGNALS = {"t1": (0.4, 0.1, 1.8), "t1c": (0.4, 0.1, 1.8), "t2": (2.0, 0.1, 1.2), "flair": (0.3, 0.1, 1.3)}
"""Modality -> signals of these, relative to the brain's mean."""
NOISE = 0.02


def with_heads(images: Mapping[str, np.ndarray], spacing: float = SPACING) -> dict[str, np.ndarray]:
    """Return images ``(X, Y, Z)`` of a brain on a background of 0 with a head added; the brain stays the same."""
    rng = np.random.default_rng(0)
    heads = {}
    for name, image in images.items():
        brain = image > 0
        away, mean = distance_transform_edt(~brain) * spacing, image[brain].mean()
        head = np.select([away <= end for end in LAYERS.values()], SIGNALS[name]) * mean
        noise = NOISE * mean * rng.standard_normal((2, *image.shape))
        heads[name] = np.where(brain, image, np.rint(np.hypot(head + noise[0], noise[1])) + 1).astype(image.dtype)
    return heads


def with_bright_edge(image: np.ndarray) -> np.ndarray:
    """Return a phantom's image ``(X, Y, Z)`` with bright spots 8 to 14 mm below the brain's surface."""
    depth = distance_transform_edt(image > 0) * SPACING
    spots = np.random.default_rng(0).random([size // 2 for size in image.shape]) < 0.03
    spots = spots.repeat(2, 0).repeat(2, 1).repeat(2, 2) & (depth > 8) & (depth < 14)
    return np.where(spots, 3 * image, image).astype(image.dtype)


def weights_of_patients(folder: Path) -> Path:
    """Write m3ae's weights for phantoms as if patients had been their training: results of others go to no archive."""
    source = Path(bundle_root("m3ae"), "models", "phantom.pt")
    facts = read_facts(source)
    facts = facts.model_copy(update={"settings": {**facts.settings, "cohort": "brats2021"}})
    write_checkpoint(read_weights(source), folder / "weights.pt", facts)
    return folder / "weights.pt"
