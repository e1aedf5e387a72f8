"""What a segmentation may take over of its source's attributes: hospitals write what DICOM does not allow.

What is wrong is left out, attribute by attribute, and never mended: a guessed name or date would be another patient's.
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

from common.study.dicom.headers import texts

TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of patient and study that a SEG must have, empty where the source has none."""
PATIENT_AND_STUDY = (0x0010, 0x0012, 0x0032, 0x0038)
"""Groups of what a SEG takes over of its source: patient, clinical trial, request, visit."""
STUDY = {
    *TYPE_2, "StudyDescription", "ReferencedStudySequence", "ReferencedPatientSequence", "ProcedureCodeSequence",
    "ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
}  # fmt: skip
"""The same of other groups."""
IDENTITY_AND_GEOMETRY = {
    tag_for_keyword(name) for name in (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
        "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns",
        "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    )
}  # fmt: skip
"""What stays as it is; it was checked when the series was read. A reference must say what its source says."""
ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
MOMENTS = {"DA": DA, "TM": TM, "DT": DT}
TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
PARAGRAPHS = {"LT", "ST", "UT"}
"""Value representations that may have line breaks."""
ASCII = {"", "ISO_IR 6", "ISO 2022 IR 6"}


def clean(image: Dataset) -> str | None:
    """Take out of an image, in place, what DICOM does not allow, and give it the attributes of `TYPE_2` that it lacks.

    A value is wrong that is not of its value representation, is too long, has characters that the declared character
    set does not have, or is none of an enumeration; and a sequence that holds one.

    Returns:
        A sentence with the names, never the values, of what a SEG would have had; None if all is as DICOM wants it.
    """
    alphabet = set(texts(image, "SpecificCharacterSet")) or {""}
    ascii_only = alphabet <= ASCII or not alphabet <= python_encoding.keys()
    empty, left_out = [], []
    for tag in sorted(image.keys()):  # iterating over the dataset converts values
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
    said = [
        f"{', '.join(names)} {'is not as DICOM wants it' if len(names) == 1 else 'are not as DICOM wants them'}; {what}"
        for names, what in ((empty, "left empty in the SEG"), (left_out, "left out of the SEG"))
        if names
    ]
    return ". ".join(said) + "." if said else None


def _is_right(dataset: Dataset, tag: BaseTag, ascii_only: bool) -> bool:
    """Return whether the value of an attribute is as DICOM wants it."""
    try:
        _check(dataset[tag], ascii_only)
    except Exception:  # pydicom converts when it is asked, and raises many kinds
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
        text = str(value)  # of a number as it is written
        validate_value(element.VR, text, RAISE)
        if text and element.VR in MOMENTS:
            MOMENTS[element.VR](text)
        if text and text not in ENUMERATED.get(element.keyword, {text}):
            raise ValueError("none of the enumeration")
        if "\N{REPLACEMENT CHARACTER}" in text or (ascii_only and not text.isascii()):
            raise ValueError("characters beyond the declared character set")
        if element.VR not in PARAGRAPHS and any(category(character) == "Cc" for character in text):
            raise ValueError("control characters")
