"""Selection of the source attributes that a SEG copies, since hospitals write values that DICOM does not allow.

Invalid attributes are left out one by one and never corrected: a guessed name or date could be another patient's.
"""

from __future__ import annotations

from unicodedata import category

from pydicom.charset import python_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, DT, TM, validate_value

from clinic.dicom.headers import texts

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of patient and study that a SEG must have; empty if the source lacks them."""
PATIENT_AND_STUDY = (0x0010, 0x0012, 0x0032, 0x0038)
"""Groups whose attributes a SEG copies from its source: patient, clinical trial, request, visit."""
STUDY = {
    *TYPE_2, "StudyDescription", "ReferencedStudySequence", "ReferencedPatientSequence", "ProcedureCodeSequence",
    "ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
}  # fmt: skip
"""Attributes of other groups that a SEG copies from its source."""
IDENTITY_AND_GEOMETRY = {
    tag_for_keyword(name) for name in (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
        "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    )
}  # fmt: skip
"""Attributes that are never changed; they were checked when the series was read, and a SEG must repeat them exactly."""
ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
MOMENTS = {"DA": DA, "TM": TM, "DT": DT}
TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
PARAGRAPHS = {"LT", "ST", "UT"}
"""Value representations that may contain line breaks."""
ASCII = {"", "ISO_IR 6", "ISO 2022 IR 6"}


def clean(image: Dataset) -> str | None:
    """Remove invalid attributes from an image, in place, and add empty ones for those of `TYPE_2` that it lacks.

    A value is invalid if it does not fit its value representation, is too long, has characters outside the declared
    character set, or is not in an enumeration; a sequence is invalid if it contains such a value. Returns a sentence
    with the names, never the values, of attributes that the SEG lacks therefore; None if all are valid.
    """
    alphabet = set(texts(image, "SpecificCharacterSet")) or {""}
    ascii_only = alphabet <= ASCII or not alphabet <= python_encoding.keys()
    empty, left_out = [], []
    for tag in sorted(image.keys()):  # keys, since iterating over the dataset would convert values
        if tag in IDENTITY_AND_GEOMETRY or (not tag.is_private and _is_right(image, tag, ascii_only)):
            continue
        del image[tag]
        name = keyword_for_tag(tag)
        if name in TYPE_2:
            empty.append(name)
        elif name and (name in STUDY or tag.group in PATIENT_AND_STUDY):
            left_out.append(name)
    for name in TYPE_2:
        if name not in image:
            setattr(image, name, "")
    sentences = [
        f"{', '.join(names)} {'is not valid DICOM' if len(names) == 1 else 'are not valid DICOM'}; {what}"
        for names, what in ((empty, "left empty in the SEG"), (left_out, "left out of the SEG"))
        if names
    ]
    return ". ".join(sentences) + "." if sentences else None


def _is_right(dataset: Dataset, tag: BaseTag, ascii_only: bool) -> bool:
    """Return whether the value of an attribute is valid."""
    try:
        _check(dataset[tag], ascii_only)
    except Exception:  # pydicom converts values on access and raises many types
        return False
    return True


def _check(element: DataElement, ascii_only: bool) -> None:
    if element.VR not in dictionary_VR(element.tag).split(" or "):
        raise ValueError("another value representation")
    if element.VR == "SQ":
        for item in element.value:
            for nested in item:
                if not nested.tag.is_private:
                    _check(nested, ascii_only)
        return
    if element.VM > 1 and dictionary_VM(element.tag) == "1":
        raise ValueError("several values")
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    for value in values:
        if value is None or element.VR not in TEXTS:
            continue
        text = str(value)  # numbers as they are written in the file
        validate_value(element.VR, text, RAISE)
        if text and element.VR in MOMENTS:
            MOMENTS[element.VR](text)
        if text and text not in ENUMERATED.get(element.keyword, {text}):
            raise ValueError("none of the enumeration")
        if "\N{REPLACEMENT CHARACTER}" in text or (ascii_only and not text.isascii()):
            raise ValueError("characters beyond the declared character set")
        if element.VR not in PARAGRAPHS and any(category(character) == "Cc" for character in text):
            raise ValueError("control characters")
