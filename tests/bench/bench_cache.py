"""Measure how much faster a training patch is read from the cache than from .nii.gz, for one case of BraTS's size.

Run: python tests/bench/bench_cache.py [--subject_dir DIR] [--crop 80]. Without a folder, a phantom of 240 x 240 x 155
voxels is generated.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import fire
import nibabel as nib
import numpy as np
from monai.transforms import Compose, CropForegroundd, LoadImaged, Orientationd, RandSpatialCropd, SpatialPadd

from common.cohorts import get_cohort
from common.cohorts.brats import find_cases
from common.cohorts.phantom.simulation import simulate
from common.transforms import CachedDataset, LoadSubjectd, ScaleBrainIntensityd


def _draw(folder: Path) -> None:
    images, label = simulate(1, shape=(240, 240, 155), spacing=1.0)
    for name, voxels in (images | {"seg": label}).items():
        nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])), folder / f"case_{name}.nii.gz")


def _seconds(what: Callable[[], object], times: int) -> float:
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        what()
        spent.append(time.perf_counter() - start)
    return median(spent)


def main(subject_dir: str | None = None, crop: int = 80, cohort: str = "phantom") -> None:
    """Print seconds per patch, their ratio, and the size of the cache."""
    with tempfile.TemporaryDirectory() as temporary:
        if subject_dir is None:
            _draw(Path(temporary))
        (item,) = find_cases(subject_dir or temporary, get_cohort(cohort))
        keys = ["image", "label"]
        transform = Compose(
            [
                LoadSubjectd(cohort),
                Orientationd(keys, "RAS"),
                ScaleBrainIntensityd("image"),
                CropForegroundd(keys, "image", margin=1, allow_smaller=True, start_coord_key=None, end_coord_key=None),
                SpatialPadd(keys, [crop] * 3),
                RandSpatialCropd(keys, [crop] * 3, random_size=False),
            ]
        )
        cached = CachedDataset([item], transform, f"{temporary}/cache")
        cached[0]  # fill it
        decode = Compose([LoadImaged(str(n)) for n in range(4)])
        files = {str(n): path for n, path in enumerate(item["image"])}

        def patch() -> None:
            {key: value.clone() for key, value in cached[0].items() if key in keys}  # as collation does

        decoding, whole, patching = _seconds(lambda: decode(files), 5), _seconds(lambda: transform(item), 3), 0.0
        patching = _seconds(patch, 50)
        size = sum(path.stat().st_size for path in Path(temporary, "cache").rglob("*.npy")) / 1e6
        print(f"decoding four .nii.gz      {1000 * decoding:8.1f} ms   {decoding / patching:6.0f} x")
        print(f"the uncached transforms    {1000 * whole:8.1f} ms   {whole / patching:6.0f} x")
        print(f"a {crop}^3 patch from the cache {1000 * patching:6.1f} ms        1 x;  {size:.1f} MB on disk")


if __name__ == "__main__":
    fire.Fire(main)
