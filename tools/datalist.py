"""The verb ``datalist``."""

from __future__ import annotations


def datalist(cohort: str, dataset_dir: str, output: str, split: str | None = None, seed: int = 0) -> None:
    """Write a datalist JSON for a cohort's folder.

    Args:
        cohort: phantom, brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later),
            open_glioma, msd_task01, iseg2017 or myops2020.
        dataset_dir: the folder as downloaded.
        output: the JSON file to write; its paths are relative to dataset_dir.
        split: a published split, namely robustseg (brats2015), fold1 to fold3 (brats2018), fixed (brats2020,
            brats2021), imfuse (brats2023), mag_ms (msd_task01, iseg2017), fixed50, fixed or fold0 to fold4
            (open_glioma); cv1of5 etc. for cross-validation; full (train on all cases); all_test; or seeded, the
            default.
        seed: seed of a split that is drawn at random.
    """
    from common.cohorts import get_cohort
    from common.cohorts.datalist import PARTS, make_datalist, write_datalist

    made = make_datalist(get_cohort(cohort), dataset_dir, split, seed)
    write_datalist(made, output)
    print(f"{output}: " + ", ".join(f"{len(made[part])} {part}" for part in PARTS))
