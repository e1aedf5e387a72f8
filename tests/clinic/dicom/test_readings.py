"""What descriptions and names of files tell: right, refused, or left to the image; never wrong, and never silently."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from readings import DESCRIPTIONS, FILES, each

from common.cohorts.names import split_name
from mmb.clinic.choice import OPEN
from mmb.clinic.dicom.candidates import HeaderCandidate, recognise_all
from mmb.clinic.dicom.image_files import recognise_files
from mmb.clinic.dicom.sequences import contrast_words

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
    return outcome(candidate)


def outcome(candidate: HeaderCandidate) -> str:
    modality, said = candidate.by_header.modality, contrast_words(candidate.header)
    is_open = candidate.is_open and candidate.by_header.confidence < OPEN and said is not None
    return "none" if modality is None else "open" if is_open and modality in ("t1", "t1c") else modality


def read_as(name: str) -> str:
    path = Path(f"{name}.nii.gz")
    role = split_name(path.name).role
    return outcome(*recognise_files([path])) if role is None else "none" if role == "label" else role


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
