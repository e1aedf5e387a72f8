"""Three studies of the phantom become what they became: choices, volumes, and what SEG and SR hold.

tests/clinic/frozen.py writes tests/golden/studies.json, which a change that is meant replaces.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clinic.frozen import record
from dicom_studies import STUDY, write_study
from phantom_case import HEAD, write_case

from mmb.clinic.batch import segment_each
from mmb.clinic.options import Options

SERIES = {"four": (1, 2, 3, 4, 6), "two": (3, 4), "one": (4,)}
"""Of `dicom_studies.STUDY`, by SeriesNumber: 1 localizer, 2 T1, 3 T2, 4 FLAIR, 6 T1c."""
GOLDEN = Path(__file__).parents[2] / "golden" / "studies.json"
NUMBERS = ("volumes", "classes", "label", "seg", "sr", "answer", "warnings", "notes")
"""What may differ a little between processors, or quotes such a number."""


def segmented(folder: Path) -> dict[str, dict[str, Any]]:
    write_case(folder / "subject", "case", box=HEAD)
    for name, numbers in SERIES.items():
        scans = [replace(scan, moved=None) for scan in STUDY if scan.number in numbers]
        write_study(folder / "studies" / name, folder / "subject", scans, seed=name)
    outcomes = [each for each, _ in segment_each(folder / "studies", folder / "out", Options(recipe="phantom"))]
    assert not [each.failure for each in outcomes if each.failure]
    return {name: record(folder / "out" / name) for name in sorted(SERIES)}


@pytest.mark.slow  # three studies, half a minute
def test_studies_become_what_they_became(tmp_path):
    before, now = json.loads(GOLDEN.read_text()), json.loads(json.dumps(segmented(tmp_path)))
    for name, each in now.items():
        assert {k: v for k, v in each.items() if k not in NUMBERS} == {
            k: v for k, v in before[name].items() if k not in NUMBERS
        }
        for key in ("volumes", "classes"):
            assert each[key] == pytest.approx(before[name][key], rel=0.02, abs=0.1)
        for key in ("warnings", "notes"):
            assert len(each[key]) == len(before[name][key])
        assert each["seg"]["segments"] == before[name]["seg"]["segments"]
        assert [what for what, _ in each["sr"]] == [what for what, _ in before[name]["sr"]]
