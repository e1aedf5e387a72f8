"""Cases of the phantom as image files."""

from pathlib import Path

import nibabel as nib
import numpy as np

from common.cohorts.phantom.simulation import SPACING, simulate

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
