"""Headers as hospitals, scanners and anonymisers leave them: none of them prevents the segmentation.

Each gives a label map, a summary and a SEG that highdicom can read; faulty attributes are named.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_studies import MPRAGE, Scan, edit_series, read_back, read_series, write_study
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from mmb.clinic.report.segmentation import write_seg

Change = Callable[[Dataset], None]
CLASSES = {"NCR": 1, "ED": 2, "ET": 4}
CODE = {"CodeValue": "1", "CodingSchemeDesignator": "99X", "CodeMeaning": "A code"}


def put(keyword: str, value: object, vr: str | None = None) -> Change:
    """Set an attribute to any value with any value representation."""

    def change(header: Dataset) -> None:
        tag = Tag(keyword)
        representation = vr or pydicom.datadict.dictionary_VR(tag)
        if representation == "DS" and isinstance(value, bytes):  # no number; written unchanged
            header[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
        else:
            header[tag] = DataElement(tag, representation, value, validation_mode=IGNORE)

    return change


def drop(*keywords: str) -> Change:
    def change(header: Dataset) -> None:
        for keyword in keywords:
            if keyword in header:
                delattr(header, keyword)

    return change


def item(**values: object) -> Sequence:
    dataset = Dataset()
    for keyword, value in values.items():
        dataset[keyword] = DataElement(Tag(keyword), pydicom.datadict.dictionary_VR(keyword), value, None, IGNORE)
    return Sequence([dataset])


TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
LONG = "x" * 80

# What is wrong; how it is made; the attributes of type 2 that are left empty, and the others that are left out.
HEADERS: dict[str, tuple[Change | tuple[Change, ...], str, str]] = {
    "sex 0000": (put("PatientSex", "0000"), "PatientSex", ""),
    "two sexes": (put("PatientSex", ["M", "F"]), "PatientSex", ""),
    "birth date that there is not": (put("PatientBirthDate", "19710231"), "PatientBirthDate", ""),
    "study date as a range": (put("StudyDate", "20200101-20210101"), "StudyDate", ""),
    "time in words": (put("StudyTime", "ten"), "StudyTime", ""),
    "age in German": (put("PatientAge", "045J"), "", "PatientAge"),
    "weight with a comma": (put("PatientWeight", b"72,5"), "", "PatientWeight"),
    "identifier too long": (put("PatientID", LONG), "PatientID", ""),
    "study identifier of several values": (put("StudyID", ["1", "2"], "SH"), "StudyID", ""),
    "empty study identifier": (put("StudyID", ""), "", ""),
    "nothing of type 2": (drop(*TYPE_2), "", ""),
    "Latin-1 without a character set": (
        (drop("SpecificCharacterSet"), put("PatientName", b"M\xfcller^J\xf6rg")), "PatientName", ""),
    "UTF-8 of an unknown character set": (
        (put("SpecificCharacterSet", "UTF-8"), put("PatientName", "Łukasz^Ż".encode())), "PatientName", ""),
    "Japanese name": (
        (put("SpecificCharacterSet", ["", "ISO 2022 IR 87"]), put("PatientName", "Yamada^Tarou=山田^太郎")),
        "", ""),
    "private garbage": (
        lambda header: header.add(DataElement(0x00091001, "UN", b"\xff\xfe\x00garbage\x80")), "", ""),
    "wrong value representations": (
        (put("PatientAge", 45, "US"), put("StudyDescription", b"\x00\x01", "OB")), "",
        "StudyDescription, PatientAge"),
    "odd everywhere": (
        (
            put("PatientIdentityRemoved", "TRUE"), put("DeidentificationMethodCodeSequence", item(**CODE | {
                "CodeMeaning": LONG})), put("SeriesNumber", "-5"), put("SpacingBetweenSlices", b"thick "),
            put("SliceThickness", b"16 mm "), put("ImageType", LONG), put("AcquisitionDate", "yesterday"),
            put("InstitutionName", "line\nbreak"), put("LossyImageCompressionRatio", b"ten "),
            put("StudyDescription", "bell\a")), "",
        "StudyDescription, PatientIdentityRemoved, DeidentificationMethodCodeSequence"),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory, phantom_subject) -> Path:
    """Return a T1 of seven thick slices."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, phantom_subject, [Scan(2, "t1", "t1_mprage", MPRAGE, spacing=(6, 5, 16), slices=7)])
    return folder


def changed(study: Path, folder: Path, *changes: Change) -> Path:
    shutil.copytree(study, folder)
    for change in changes:
        edit_series(folder, 2, change)
    return folder


def expected(empty: str, left_out: str) -> str | None:
    said = [
        f"{names} {'are not valid DICOM' if ',' in names else 'is not valid DICOM'}; {what} the SEG."
        for names, what in ((empty, "left empty in"), (left_out, "left out of"))
        if names
    ]
    return " ".join(said) or None


@pytest.mark.filterwarnings("ignore")  # of pydicom, at what is written here
@pytest.mark.parametrize("name", HEADERS)
def test_odd_headers_give_a_segmentation(name, study, tmp_path, capfd):
    change, empty, left_out = HEADERS[name]
    folder = changed(study, tmp_path / "study", *(change if isinstance(change, tuple) else (change,)))
    capfd.readouterr()
    (series,) = read_series(folder)
    label = np.zeros(series.shape, np.uint8)
    label[3:6, 4:8, 2:4], label[4, 5, 2:4] = 2, 4
    written = write_seg(tmp_path / "seg.dcm", label, series, CLASSES, "m3ae 0.1.0")
    assert written == (["ED", "ET"], expected(empty, left_out))
    assert capfd.readouterr() == ("", "")  # no message quotes a value

    np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series), np.array([0, 0, 1, 0, 2])[label])
    seg, source = hd.seg.segread(tmp_path / "seg.dcm"), pydicom.dcmread(series.files[0])
    for keyword in TYPE_2:
        right = keyword in source and keyword not in empty
        assert seg[keyword].value == (source[keyword].value if right else seg[keyword].empty_value), keyword
    assert not [keyword for keyword in left_out.split(", ") if keyword in seg]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[keyword].value == source[keyword].value


def test_what_is_right_is_taken_over(study, tmp_path):
    right = {"PatientAge": "045Y", "PatientWeight": "72.5", "PatientSex": "F", "StudyDescription": "Schädel"}
    changes = [put("SpecificCharacterSet", "ISO_IR 100"), *(put(*pair) for pair in right.items())]
    changes.append(put("DeidentificationMethodCodeSequence", item(**CODE)))
    (series,) = read_series(changed(study, tmp_path / "study", *changes))
    label = np.zeros(series.shape, np.uint8)
    label[3, 3, 3] = 2
    _, lacks = write_seg(tmp_path / "seg.dcm", label, series, CLASSES, "m3ae 0.1.0")
    assert lacks is None
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert {keyword: str(seg[keyword].value) for keyword in right} == right
    assert seg.DeidentificationMethodCodeSequence[0].CodeMeaning == "A code"
