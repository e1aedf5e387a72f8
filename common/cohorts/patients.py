"""Patients: which cases belong to the same person, so that no patient is in two parts of a split."""

from __future__ import annotations

import re


def patient(case: str) -> str:
    """Return the patient of a case: its name without the time point, which BraTS 2015 and 2023+ have.

    ``BraTS-SSA-00121`` is the same patient as ``BraTS-SSA-00115``.
    """
    match = re.fullmatch(r"(BraTS-\w+-\d+)-\d+|((?:[HL]GG_)?brats_\w+_pat\d+)_\d+", case, re.IGNORECASE)
    name = (match[1] or match[2]) if match else case
    return "BraTS-SSA-00115" if name == "BraTS-SSA-00121" else name
