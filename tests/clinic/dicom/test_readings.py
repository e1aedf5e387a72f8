"""What descriptions and names of files tell: right, refused, or left to the image; never wrong, and never silently."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from readings import DESCRIPTIONS, FILES, each

from clinic.choice import OPEN
from clinic.dicom.candidates import HeaderCandidate, recognise_all
from clinic.dicom.image_files import recognise_files
from clinic.dicom.sequences import contrast_words
from common.cohorts.names import OPEN_T1, split_name

T1 = {"ScanningSequence": "GR", "RepetitionTime": 8.2, "EchoTime": 3.2, "InversionTime": 450}
PARAMETERS = {
    "t2": {"ScanningSequence": "SE", "RepetitionTime": 5200, "EchoTime": 98},
    "flair": {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500},
}


def verdict(description: str, parameters: dict) -> str:
    """Return what a header is read as: a sequence, "open" or "none"."""
    header = Dataset()
    header.update({"SeriesDescription": description, "SpecificCharacterSet": "ISO_IR 192", **parameters})
    candidate = HeaderCandidate("series 1", "series 1", header=header)
    recognise_all([candidate])
    modality, said = candidate.by_header.modality, contrast_words(header)
    is_open = candidate.is_open and candidate.by_header.confidence < OPEN and said is not None
    return "none" if modality is None else "open" if is_open and modality in ("t1", "t1c") else modality


def read_as(name: str) -> str:
    role = split_name(f"{name}.nii.gz").role
    return {None: "none", "label": "none", OPEN_T1: "open"}.get(role, role)


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_descriptions(kind):
    for expected, text in each({kind: DESCRIPTIONS[kind]}):
        assert verdict(text, PARAMETERS.get(kind, T1)) == expected, text
        assert verdict(text, {}) == expected, text


@pytest.mark.parametrize("kind", FILES)
def test_names_of_files(kind):
    for expected, name in each({kind: FILES[kind]}):
        assert read_as(name) == expected, name


def test_an_agent_that_the_header_names_does_not_make_an_unknown_word_sure():
    for _, text in each({"open": DESCRIPTIONS["open"]}):
        assert verdict(text, T1 | {"ContrastBolusAgent": "Gadovist"}) in ("open", "t1c"), text
    header = T1 | {"ContrastBolusAgent": "Gadovist"}
    assert verdict("T1 loppuun KM", header) == verdict("T1 -KM", header) == "open"


def test_check_and_predict_read_a_name_alike():
    """Names of files, and every description as a name."""
    texts = [text.replace("/", "_") for _, text in [*each(FILES), *each(DESCRIPTIONS)]]
    for name in texts:
        by_check = read_as(name)
        (file,) = recognise_files([Path(f"{name}.nii.gz")])
        by_predict = file.by_header.modality or "none"
        if by_check == "open":
            assert (by_predict in ("t1", "t1c"), file.is_open) == (True, True), name
        else:
            assert by_predict == by_check, (name, file.by_header.reason)
