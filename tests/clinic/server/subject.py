"""A test case of the phantom, cropped to its head: half the voxels, so that segmenting takes about half the time."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from common.cohorts.phantom.simulation import SPACING, simulate

HEAD = (slice(16, 64), slice(8, 72), slice(0, 52))


def write_subject(folder: Path, case: str) -> nib.Nifti1Image:
    """Write the volumes of a case with BraTS's names, and its label map; return the latter."""
    affine = np.diag([-SPACING, -SPACING, SPACING, 1.0])
    folder.mkdir(parents=True, exist_ok=True)
    images, label = simulate(1000 * 2023 + 29)
    for name, voxels in (images | {"seg": label}).items():
        cut = nib.Nifti1Image(voxels, affine).slicer[HEAD]
        nib.save(cut, folder / f"{case}_{'t1ce' if name == 't1c' else name}.nii.gz")
    return cut
