"""Patients: which cases belong to the same person, so that no patient is in two parts of a split."""

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIME_POINT = r"(?:timepoint|time|ses|session|week|visit|tp|fu|followup|exam|scan|day|month)[-_ ]?\d[\w-]*"
"""Pattern of folders and endings of names that stand for a time point, e.g. ``Timepoint_2``, ``ses-01``, ``FU003d``."""
_PATIENTS = re.compile(
    "|".join(
        (
            r"(BraTS-\w+-\d+)-\d+",
            r"((?:[HL]GG_)?brats_\w+_pat\d+)_\d+",
            r"((?:UPENN-GBM|UCSD-PTGBM|RHUH)-\d+)[_-]\d+",
            r"(TCGA-\w\w-\w{4})_[\d.]+",
            r"(sub-[a-z0-9]+)_.*",  # BIDS
            rf"(.+?)[_-]{TIME_POINT}(?:_.*)?",
        )
    ),
    re.IGNORECASE,
)

SAME = {"BraTS-SSA-00121": "BraTS-SSA-00115"}
"""Patient -> an earlier name of the same patient, found by comparing images."""


def patient(case: str) -> str:
    """Return the patient of a case: its name without the time point.

    Time points are recognised in the names of the data sets that have them (BraTS 2015 and since 2023, UCSF-PDGM,
    UPENN-GBM, UCSD-PTGBM, MU-Glioma-Post, LUMIERE, TCGA), in those of BIDS (``sub-01_ses-02``) and in words such as
    ``_Timepoint_2``, ``_week-010`` and ``_visit1``. ``BraTS-SSA-00121`` is the same patient as ``BraTS-SSA-00115``.
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
