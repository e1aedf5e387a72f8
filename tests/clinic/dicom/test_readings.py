"""What descriptions and names of files tell: right, refused, or left to the image; never wrong, and never silently."""

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from readings import DESCRIPTIONS, FILES, each

from common.cohorts.names import split_name
from mmb.clinic.dicom.image_files import recognise_files
from mmb.clinic.dicom.sequences import contrast_words, recognise_study
from mmb.clinic.evidence import Grade, HeaderEvidence
from mmb.clinic.words import Contrast, contrast_said, plain

T1 = {"ScanningSequence": "GR", "RepetitionTime": 8.2, "EchoTime": 3.2, "InversionTime": 450}
PARAMETERS = {
    "t2": {"ScanningSequence": "SE", "RepetitionTime": 5200, "EchoTime": 98},
    "flair": {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500},
}


def verdict(description: str, parameters: dict) -> str:
    """Return what a header is read as: a sequence, "open" or "none"."""
    header = Dataset()
    header.update({"SeriesDescription": description, "SpecificCharacterSet": "ISO_IR 192", **parameters})
    (says,) = recognise_study([header])
    return outcome(says, contrast_words(header))


def outcome(says: HeaderEvidence, said: Contrast | None) -> str:
    is_open = says.contrast_unknown and says.grade < Grade.SURE and said is not None
    return "none" if says.modality is None else "open" if is_open and says.modality in ("t1", "t1c") else says.modality


def read_as(name: str) -> str:
    path = Path(f"{name}.nii.gz")
    role = split_name(path.name).role
    if role is not None:
        return "none" if role == "label" else role
    (file,) = recognise_files([path])
    return outcome(file.says, contrast_said(plain(file.described)))


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
