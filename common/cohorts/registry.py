"""All cohorts by name."""

from collections.abc import Mapping
from typing import Any

from common.cohorts import brats, open_data
from common.cohorts.cohort import Cohort
from common.cohorts.iseg import ISEG
from common.cohorts.myops import MYOPS
from common.cohorts.phantom.simulation import LABELS
from common.modalities import GLIOMA, tumour_labels

PHANTOM = Cohort("phantom", GLIOMA, tumour_labels(**LABELS))
"""The synthetic cohort (`common.cohorts.phantom`)."""
COHORTS: dict[str, Cohort] = {
    **{PHANTOM.name: PHANTOM, **brats.COHORTS, **open_data.COHORTS},
    **{MYOPS.name: MYOPS, ISEG.name: ISEG},
}


def get_cohort(name: str) -> Cohort:
    """Return a cohort by name."""
    if name not in COHORTS:
        raise ValueError(f"Unknown cohort {name!r}; expected one of {', '.join(COHORTS)} (key `cohort`).")
    return COHORTS[name]


def cohort_of(item: Mapping[str, Any], cohort: Cohort) -> Cohort:
    """Return the cohort whose values a case's label has: its key ``source`` in a datalist of several, or ``cohort``."""
    return get_cohort(item["source"]) if item.get("source") else cohort
