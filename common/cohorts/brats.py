"""The cohorts of the BraTS family, 2015 to 2023 and later, and Task01 of the Medical Segmentation Decathlon."""

from __future__ import annotations

from dataclasses import replace

from common.cohorts.cohort import Cohort
from common.modalities import GLIOMA, tumour_labels

COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        Cohort("brats2015", GLIOMA, tumour_labels(NCR=1, ED=2, NET=3, ET=4)),
        Cohort("brats2018", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4)),
        Cohort("brats2019", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4)),
        Cohort("brats2020", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4)),
        Cohort("brats2021", GLIOMA, tumour_labels(NCR=1, ED=2, ET=4)),
        # 2023 and later, GLI and SSA. SSA is stored as RAS, the others as LPS; reorientation makes them alike.
        Cohort("brats2023", GLIOMA, tumour_labels(NCR=1, ED=2, ET=3)),
        # 18 cases of BraTS 2021, where ET is 4, and 32 of BraTS-Africa (2023, SSA), where it is 3; both are CC BY 4.0
        Cohort("open_glioma", GLIOMA, replace(tumour_labels(NCR=1, ED=2, ET=3), synonyms={4: 3})),
        Cohort("msd_task01", GLIOMA, tumour_labels(ED=1, NCR=2, ET=3)),
    )
}

MSD_CHANNELS = {"flair": 0, "t1": 1, "t1c": 2, "t2": 3}
"""Modality -> channel of an MSD Task01 image."""
