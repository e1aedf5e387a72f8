"""The verb ``check``."""

from __future__ import annotations

import sys


def check(cohort: str, dataset_dir: str) -> None:
    """Print a table of the cases in a data folder, then their problems; exit with 1 if there are any.

    It also counts the cases without a label and the image files that are ignored; neither is a problem.

    Args:
        cohort: phantom, brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later),
            open_glioma, msd_task01, iseg2017 or myops2020.
        dataset_dir: the folder as downloaded, or the folder of one subject.
    """
    from common.cohorts.check import print_check

    if not print_check(cohort, dataset_dir):
        sys.exit(1)
