"""Three studies of the phantom become what they became: choices, volumes, and what SEG and SR hold.

tests/clinic/frozen.py writes tests/golden/studies.json, which a change that is meant replaces.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from clinic.frozen import record
from dicom_studies import STUDY, write_study
from phantom_case import HEAD, weights_of_patients, write_case

from mmb.clinic.batch import segment_each
from mmb.clinic.options import Options

SERIES = {"four": (1, 2, 3, 4, 6), "two": (3, 4), "one": (4,)}
"""Of `dicom_studies.STUDY`, by SeriesNumber: 1 localizer, 2 T1, 3 T2, 4 FLAIR, 6 T1c."""
GOLDEN = Path(__file__).parents[2] / "golden" / "studies.json"
FREE = ("PatientID", "AccessionNumber", "SeriesDescription", "ProtocolName", "StudyDescription", "StationName")
NUMBERS = ("volumes", "classes", "label", "seg", "sr", "answer", "texts")
"""What may differ a little between processors, or quotes such a number."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A folder with the studies, and with their results in ``out``."""
    folder = tmp_path_factory.mktemp("frozen")
    write_case(folder / "subject", "case", box=HEAD)
    for name, numbers in SERIES.items():
        scans = [replace(scan, moved=None) for scan in STUDY if scan.number in numbers]
        write_study(folder / "studies" / name, folder / "subject", scans, seed=name)
    options = Options(recipe="phantom", ckpt_path=str(weights_of_patients(folder)), label="bed 7")
    outcomes = [each for each, _ in segment_each(folder / "studies", folder / "out", options)]
    assert not [each.failure for each in outcomes if each.failure]
    return folder


@pytest.mark.slow  # three studies, half a minute
def test_studies_become_what_they_became(results):
    made = {name: record(results / "out" / name) for name in sorted(SERIES)}
    before, now = json.loads(GOLDEN.read_text()), json.loads(json.dumps(made))
    for name, each in now.items():
        assert {k: v for k, v in each.items() if k not in NUMBERS} == {
            k: v for k, v in before[name].items() if k not in NUMBERS
        }
        for key in ("volumes", "classes"):
            assert each[key] == pytest.approx(before[name][key], rel=0.02, abs=0.1)
        assert each["seg"]["segments"] == before[name]["seg"]["segments"]
        assert [what for what, _ in each["sr"]] == [what for what, _ in before[name]["sr"]]


@pytest.mark.slow  # the studies of the test before
def test_a_summary_for_programs_can_be_sent(results):
    """It has no name, number, date, identifier, free text of headers or path, and not the user's own label."""
    headers = [pydicom.dcmread(path) for path in (results / "studies").rglob("*.dcm")]
    private = {
        str(each.value) for header in headers for each in header.iterall() if each.VR in ("PN", "DA", "TM", "UI")
    }
    private |= {str(header.get(name, "")) for header in headers for name in FREE}
    private = {text for text in private if len(text) > 3} - {"localizer"}  # a known word, which reasons quote
    private |= {"bed 7", str(results), results.name}
    assert len(private) > 100
    table = (results / "out" / "studies.csv").read_text()
    assert table.count("bed 7") == len(SERIES)
    for name in SERIES:
        told = (results / "out" / name / "summary.json").read_text()
        # a time, such as 100000, may be among the digits of a volume
        bounds = {text: (r"(?<!\d)", r"(?!\d)") if text.isdecimal() else ("", "") for text in private}
        assert not [text for text, (a, b) in bounds.items() if re.search(a + re.escape(text) + b, told, re.IGNORECASE)]
        assert not re.search(r"\b(19|20)\d{2}-?\d\d-?\d\d\b", told)
