"""All cohorts by name, and what the name of a case tells: whose case it is, and of which cohorts."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from common.cohorts import brats, open_data
from common.cohorts.brats import PHANTOM
from common.cohorts.cohort import Cohort
from common.cohorts.described import is_description, own_cohort
from common.cohorts.iseg import ISEG
from common.cohorts.myops import MYOPS
from common.cohorts.names import without_suffix
from common.modalities import LabelSet

COHORTS: dict[str, Cohort] = {
    **{PHANTOM.name: PHANTOM, **brats.COHORTS, **open_data.COHORTS},
    **{MYOPS.name: MYOPS, ISEG.name: ISEG},
}
SAME = {"BraTS-SSA-00121": "BraTS-SSA-00115"}
"""Patient -> an earlier name of the same patient, found by comparing images."""
NNUNET_IGNORED = "ignore"
"""Name of the voxels that are not labelled, in nnU-Net and in ``label_values``."""
_MONTH_DAY = r"(?:0[1-9]|1[0-2])[-._]?(?:0[1-9]|[12]\d|3[01])"
_DAY_MONTH = r"(?:(?:0[1-9]|[12]\d|3[01])[-._](?:0[1-9]|1[0-2])|(?:0[1-9]|1[0-2])[-._](?:0[1-9]|[12]\d|3[01]))"
_DATE = rf"(?:19|20)\d\d[-._]?{_MONTH_DAY}"
_DATES = re.compile(rf"(?<!\d)(?:{_DATE}|{_DAY_MONTH}[-._](?:19|20)\d\d)(?=\d{{6}}(?!\d)|(?!\d))")  # a time may follow
TIME_POINT = (
    r"(?:(?:timepoint|time|ses|session|week|visit|tp|fu|followup|exam|scan|day|month)[-_ ]?\d[\w-]*|mr[-_ ]?\d\d?"
    r"|(?:pre|post)[-_ ]?(?:op|treatment|surgery)\w*|baseline|follow[-_ ]?up[-_ ]?\w*|recurrence\w*"
    rf"|{_DATE}(?:[-_T]\d\d[-.:]?\d\d\S*)?|{_DAY_MONTH}[-._](?:19|20)\d\d)"
)
_OWN_NAMES = re.compile(
    rf"(?:.*_)?(?P<patient>sub-[a-z0-9]+)_.*|(?P<before>.+?)[_. -](?:{TIME_POINT}(?:_.*)?|pre|post)", re.IGNORECASE
)
"""Names of no publisher that tell the patient: of BIDS (``sub-01_ses-02``), or with a time point at their end
(``own_visit1``, ``own_preop``, ``own_2001-05-23``)."""


def get_cohort(name: str) -> Cohort:
    """Return a cohort by name, or that of a data set of one's own by its JSON file, or the text of this file.

    Examples:
        >>> from common.cohorts import get_cohort
        >>> cohort = get_cohort("brats2021")
        >>> cohort.modalities  # the order of the channels
        ('t1', 't1c', 't2', 'flair')
        >>> cohort.labels.values, list(cohort.labels.regions)
        ({'NCR': 1, 'ED': 2, 'ET': 4}, ['WT', 'TC', 'ET'])
    """
    if name in COHORTS:
        return COHORTS[name]
    if not is_description(name):
        raise ValueError(
            f"Unknown cohort {name!r}; expected one of {', '.join(COHORTS)}, or a JSON file that describes a data set "
            "(key `cohort`)."
        )
    own = own_cohort(name)
    if own.name in COHORTS:
        raise ValueError(f"{name}: name: {own.name} is the name of another data set; choose one of your own.")
    return own


def cohort_of(item: Mapping[str, Any], cohort: Cohort) -> Cohort:
    """Return the cohort whose values a case's label has: its key ``source`` in a datalist of several, or ``cohort``.

    The key ``label_values`` (class -> value, as nnU-Net's ``dataset.json`` says) goes before both.
    """
    own = get_cohort(item["source"]) if item.get("source") else cohort
    if not (values := item.get("label_values")):
        return own
    ignored = {name: value for name, value in values.items() if name == NNUNET_IGNORED}
    labels = LabelSet({name: value for name, value in values.items() if name not in ignored}, {}, ignored=ignored)
    return replace(own, labels=labels)


def owners(case: str, image: str | None = None) -> list[Cohort]:
    """Return the cohorts whose publishers give such a name to a case, or to an image; several may share cases."""
    return [
        cohort
        for cohort in COHORTS.values()
        if (cohort.case_name and cohort.case_name.fullmatch(case))
        or (image and cohort.case_name and cohort.file_patterns[0].search(without_suffix(image)))
    ]


def patient(case: str) -> str:
    """Return the patient of a case, whom its name tells (`Cohort.case_names`), or else the name itself.

    Of names of no publisher, those of BIDS are understood, and those that end with a time point: words such as
    ``_Timepoint_2``, ``_visit1`` and ``_preop``, or dates. ``BraTS-SSA-00121`` is the same patient as
    ``BraTS-SSA-00115``.
    """
    matches = (cohort.case_name.fullmatch(case) for cohort in COHORTS.values() if cohort.case_name)
    match = next(filter(None, matches), None) or _OWN_NAMES.fullmatch(case)
    names = match.groupdict() if match else {}
    name = names.get("patient") or names.get("before") or case
    return SAME.get(name, name)


def dates(text: str) -> list[date]:
    """Return the dates in a name, or in a date that a program wrote; day before month if both orders are possible."""
    found = []
    for match in _DATES.finditer(text):
        digits = "".join(filter(str.isdigit, match[0]))
        for order in ("%Y%m%d", "%d%m%Y", "%m%d%Y"):
            with suppress(ValueError):
                found.append(datetime.strptime(digits, order).date())
                break
    return found


def patient_of(item: Mapping[str, Any]) -> str:
    """Return the patient of a datalist item: its key ``patient``, or else that of its name."""
    return item.get("patient") or patient(item["case"])


def names_of(cohorts: Iterable[Cohort]) -> str:
    """Return the names of some cohorts, as text."""
    return " or ".join(dict.fromkeys(cohort.name for cohort in cohorts))
