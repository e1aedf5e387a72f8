"""Patients: which cases belong to the same person, so that no patient is in two parts of a split."""

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FEW_TIMES = 10
"""Largest number of cases that are taken for one patient's without names or folders that say so clearly."""
_MONTH_DAY = r"(?:0[1-9]|1[0-2])[-._]?(?:0[1-9]|[12]\d|3[01])"
_DAY_MONTH = r"(?:(?:0[1-9]|[12]\d|3[01])[-._](?:0[1-9]|1[0-2])|(?:0[1-9]|1[0-2])[-._](?:0[1-9]|[12]\d|3[01]))"
TIME_POINT = (
    r"(?:(?:timepoint|time|ses|session|week|visit|tp|fu|followup|exam|scan|day|month)[-_ ]?\d[\w-]*|mr[-_ ]?\d\d?"
    r"|(?:pre|post)[-_ ]?(?:op|treatment|surgery)\w*|baseline|follow[-_ ]?up[-_ ]?\w*|recurrence\w*"
    rf"|(?:19|20)\d\d[-._]?{_MONTH_DAY}(?:[-_T]\d\d[-.:]?\d\d\S*)?|{_DAY_MONTH}[-._](?:19|20)\d\d)"
)
"""Pattern of folders and endings of names that stand for a time point: ``Timepoint_2``, ``ses-01``, ``FU003d``,
``preop``, ``baseline``, or a date such as ``2001-05-23`` and ``23.05.2001``."""
_PATIENTS = re.compile(
    "|".join(
        (
            r"(BraTS-[A-Z-]+-\d+)-\d+",
            r"(BraTSReg_\d+)_\d+_\d+",
            r"((?:[HL]GG_)?brats_\w+_pat\d+)_\d+",
            r"((?:UPENN-GBM|UCSD-PTGBM|RHUH)-\d+)[_-]\d+",
            r"(TCGA-\w\w-\w{4})_[\d.]+",
            r"(?:.*_)?(sub-[a-z0-9]+)_.*",  # BIDS
            r"(\d{5,})[A-Z]",  # UCSF-BMSR
            rf"(.+?)[_. -](?:{TIME_POINT}(?:_.*)?|pre|post)",
        )
    ),
    re.IGNORECASE,
)

SAME = {"BraTS-SSA-00121": "BraTS-SSA-00115"}
"""Patient -> an earlier name of the same patient, found by comparing images."""


def patient(case: str) -> str:
    """Return the patient of a case: its name without the time point.

    Time points are recognised in the names of the data sets that have them (BraTS 2015 and since 2023, UCSF-PDGM,
    UPENN-GBM, UCSD-PTGBM, MU-Glioma-Post, LUMIERE, TCGA), in those of BIDS (``sub-01_ses-02``), in words such as
    ``_Timepoint_2``, ``_week-010``, ``_visit1`` and ``_preop``, and as dates. ``BraTS-SSA-00121`` is the same patient
    as ``BraTS-SSA-00115``.
    """
    match = _PATIENTS.fullmatch(case)
    name = next(filter(None, match.groups())) if match else case
    return SAME.get(name, name)


def patient_of(item: Mapping[str, Any]) -> str:
    """Return the patient of a datalist item: its key ``patient``, or else that of its name."""
    return item.get("patient") or patient(item["case"])


def read_patients(path: str | os.PathLike) -> dict[str, str]:
    """Return case -> patient from a CSV file with the columns ``case`` and ``patient``.

    Raises FileNotFoundError if it does not exist; ValueError if a column or a name is missing, or a case is listed
    twice.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a CSV file with the columns case and patient.")
    found: dict[str, str] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"case", "patient"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: columns {rows.fieldnames}; expected case and patient.")
        for row in rows:
            case, name = row["case"], row["patient"]
            if not case or not name:
                raise ValueError(f"{path}, line {rows.line_num}: expected the names of a case and of its patient.")
            if case in found:
                raise ValueError(f"{path}, line {rows.line_num}: case {case} is listed twice; list each case once.")
            found[case] = name
    return found
