"""DICOM SEG objects on the grid of a series, written and read with highdicom.

Codes, from DICOM PS3.16 (category from CID 7150, types from CID 7159, their modifiers NCI Thesaurus):

| class | type | modifier |
|---|---|---|
| ED | SCT 79654002 Edema | |
| NCR | SCT 6574001 Necrosis | |
| ET | SCT 108369006 Neoplasm | NCIt C113842 Enhancing Lesion |
| NET | SCT 108369006 Neoplasm | NCIt C81175 Non-Enhancing Lesion |
| CC | SCT 367643001 Cyst | |
| RC | 99MMB resection_cavity, for which CID 7159 has no code | |

All have the category SCT 49755003 Morphologically Abnormal Structure and the region SCT 12738006 Brain. SNOMED CT has
no code for the enhancing part of a tumour, hence the modifier.

A SEG copies attributes of patient and study from its source. Hospitals also write values that DICOM does not allow;
each attribute with such a value is left out, never corrected, since a guessed name or date could be another patient's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unicodedata import category

import highdicom as hd
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.charset import python_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import DA, DT, TM, DSfloat, validate_value

from common.evaluation.report.slices import OUTLINES
from common.io.files import replacing
from common.modalities import display_name
from mmb.clinic.intake.headers import texts
from mmb.clinic.intake.series import Series
from mmb.clinic.report.result import StudySummary
from mmb.clinic.report.verdicts import UNRELIABLE
from mmb.errors import StudyError

DESCRIPTION = "tumour, research only, not for clinical use"
SCHEME = "99MMB"
"""Coding scheme of our own, for what no standard has a code for."""
CLASSES: dict[str, tuple[str, Code, Code | None]] = {
    "NCR": ("Necrotic core", codes.SCT.Necrosis, None),
    "ED": ("Oedema", codes.SCT.Edema, None),
    "NET": ("Non-enhancing tumour", codes.SCT.Neoplasm, codes.NCIt.NonEnhancingLesion),
    "ET": ("Enhancing tumour", codes.SCT.Neoplasm, codes.NCIt.EnhancingLesion),
    "CC": ("Cysts", codes.SCT.Cyst, None),
    "RC": ("Resection cavity", Code("resection_cavity", SCHEME, "Resection cavity"), None),
}
"""Class -> segment label, type, and modifier of the type."""
COLOURS = dict(zip(("ED", "NCR", "ET", "RC", "NET"), OUTLINES, strict=True)) | {"CC": OUTLINES[3]}
"""Class -> colour; on the page it is that of the smallest region around the class."""
DOUBT = f" ({UNRELIABLE})"
"""End of the label of a segment that is not reliable, since viewers show labels."""
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
PARAGRAPHS = {"LT", "ST", "UT"}  # value representations that may contain line breaks
ASCII = {"", "ISO_IR 6", "ISO 2022 IR 6"}


def write_seg(
    path: str | Path,
    label: np.ndarray,
    reference: Series,
    classes: Mapping[str, int],
    software: str,
    weights: str | None = None,
    summary: StudySummary | None = None,
) -> tuple[list[str], str | None]:
    """Write a label map as a binary DICOM SEG, with a segment for each class that occurs.

    Returns these classes in order; and a sentence on the attributes of patient and study that the SEG lacks because
    they are invalid, or None. Raises StudyError if no SEG can refer to the series.

    Label and code of a segment depend only on its class; segments are numbered from 1 in the order of `classes`, as
    DICOM requires. Frames without any voxel are left out.

    Args:
        path: file to write; an existing file is replaced atomically.
        label: integer label map ``(columns, rows, slices)`` on the grid of `reference`; an empty one is refused.
        reference: the series that was segmented, whose valid attributes of patient and study are copied.
        classes: class name (ED, NCR, NET, ET) -> value in `label`; 0 is background.
        software: name and version of the program that made it, e.g. ``m3ae 0.1.0``.
        weights: name and SHA-256 of the weights, for the attribute Algorithm Parameters; None without a network.
        summary: what is to be said of a network's result, in the descriptions and labels; None for a person's.
    """
    occurring = [name for name, value in classes.items() if (label == value).any()]
    _check(label, reference, classes, occurring)
    if not occurring:
        raise StudyError(f"{reference.name}: the segmentation is empty. No DICOM SEG was written: it cannot be empty.")
    segments = np.zeros(label.shape, np.uint8)
    for segment, name in enumerate(occurring, start=1):
        segments[label == classes[name]] = segment
    with explained(reference):
        segmentation = _segmentation(segments, reference, occurring, software, weights, summary)
        with replacing(path) as temporary:
            segmentation.save_as(temporary)
        return occurring, _clean(pydicom.dcmread(reference.files[0], stop_before_pixels=True))


def _segmentation(
    segments: np.ndarray,
    reference: Series,
    classes: Sequence[str],
    software: str,
    weights: str | None,
    summary: StudySummary | None,
) -> Segmentation:
    """Return the SEG; `segments` holds each voxel's segment number, from 1 in the order of `classes`."""
    name, _, version = software.rpartition(" ")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=name or software,
        version=version,
        family=codes.DCM.ArtificialIntelligence,
        parameters={"weights": weights} if weights else None,
    )
    sources, positions = _sources(reference)
    return Segmentation(
        source_images=sources,
        pixel_array=segments.T,  # slices, rows, columns
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, c, algorithm, summary) for n, c in enumerate(classes, start=1)],
        plane_positions=positions,
        series_instance_uid=hd.UID(),
        series_number=1000 + min(max(reference.number, 0), 2**30),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="missing-modality-bundles",
        manufacturer_model_name=name or software,
        software_versions=version,
        device_serial_number="0",
        content_label="BRAIN_TUMOUR",
        content_description="Research only, not for clinical use",
        series_description=series_description(summary, DESCRIPTION),
        specific_character_set="ISO_IR 192",  # UTF-8, since highdicom does not support all character sets of sources
    )


def series_description(summary: StudySummary | None, what: str) -> str:
    """Return what a list of series shows, the sequences first, as far as 64 characters reach."""
    used = f"{'+'.join(display_name(each.modality) for each in summary.used)}: " if summary else ""
    return f"{used}{what}"[:64]


@contextmanager
def explained(reference: Series, by: str = "SEG") -> Iterator[None]:
    """Name the series in errors, without the libraries' messages, which quote values of attributes."""
    try:
        yield
    except (OSError, StudyError):  # about the file that is written, or said already
        raise
    except Exception as error:
        raise StudyError(
            f"{reference.name} cannot be referenced by a DICOM {by}: highdicom fails with {type(error).__name__}."
        ) from None


def _check_source(series: Series) -> None:
    several = series.multiframe and len(series.files) > 1
    reasons = {
        "it has no frame of reference": not series.frame_of_reference,
        "its images have different frames of reference": "FrameOfReferenceUID" in series.differ,
        "it consists of several multi-frame files, and a SEG can refer to one of them only": several,
    }
    if why := series.problem or next((reason for reason, holds in reasons.items() if holds), None):
        raise StudyError(f"{series.name} cannot be referenced by a DICOM SEG: {why}.")


def _check(label: np.ndarray, reference: Series, classes: Mapping[str, int], occurring: Sequence[str]) -> None:
    if unknown := [name for name in occurring if name not in CLASSES]:
        raise StudyError(f"class {unknown[0]} has no code; expected some of {', '.join(CLASSES)}.")
    _check_source(reference)
    if label.shape != reference.shape or not np.issubdtype(label.dtype, np.integer):
        raise ValueError(
            f"{reference.name}: a label map of shape {label.shape} and type {label.dtype}; expected integers of shape "
            f"{reference.shape}, the grid of the series."
        )
    if foreign := sorted({*np.unique(label).tolist()} - {0, *classes.values()}):
        raise ValueError(f"{reference.name}: label values {foreign} have no class; expected 0 and {dict(classes)}.")


def _describe(
    number: int,
    name: str,
    algorithm: hd.AlgorithmIdentificationSequence,
    summary: StudySummary | None,
) -> SegmentDescription:
    label, kind, modifier = CLASSES[name]
    verdict = summary and summary.class_verdicts.get(name)
    description = SegmentDescription(
        segment_number=number,
        segment_label=label + (DOUBT if verdict and verdict.word == UNRELIABLE else ""),
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[codes.SCT.Brain],
        display_color=hd.color.CIELabColor.from_rgb(*bytes.fromhex(COLOURS[name][1:])),
    )
    if summary:
        given = {**({label: verdict} if verdict else {}), **summary.verdicts}  # its own comes first
        said = "; ".join(f"{what}: {each.text}" for what, each in given.items())
        description.SegmentDescription = f"{said}. Research only, not for clinical use."
    if modifier:
        concept = hd.sr.CodedConcept.from_code(modifier)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept]
    return description


def _sources(reference: Series) -> tuple[list[Dataset], list[hd.PlanePositionSequence] | None]:
    """Return the images to reference, without pixels, and the positions of slices that are frames of one image."""
    images: list[Dataset] = [pydicom.dcmread(path, stop_before_pixels=True) for path in reference.files]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        if not all(UID(image[name].value).is_valid for image in images):
            raise StudyError(f"{reference.name} cannot be referenced by a DICOM SEG: its {name} is not a valid one.")
    _clean(images[0])
    if not reference.multiframe:
        for image in images:  # highdicom compares their orientations digit by digit
            image.ImageOrientationPatient = images[0].ImageOrientationPatient
        _state_distance(images[0], reference.spacing[2])
        return images, None
    frames = [images[0].PerFrameFunctionalGroupsSequence[frame] for frame in reference.frames]
    # highdicom expects these among the shared attributes, where scanners do not always write them.
    shared = images[0].SharedFunctionalGroupsSequence[0]
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name in frames[0]:
            setattr(shared, name, frames[0][name].value)
    _state_distance(shared.PixelMeasuresSequence[0], reference.spacing[2])
    return images, [
        hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in frames
    ]


def _state_distance(image: Dataset, millimetres: float) -> None:
    """State that slices are as thick as they are apart: readers compute volumes and grids of a SEG from either."""
    image.SliceThickness = image.SpacingBetweenSlices = DSfloat(millimetres, auto_format=True)


def _clean(image: Dataset) -> str | None:
    """Remove invalid attributes from an image, in place, and add empty ones for those of `TYPE_2` that it lacks.

    Returns a sentence with the names, never the values, of attributes that the SEG will therefore lack; None if all are
    valid (`_check_element`).
    """
    alphabet = set(texts(image, "SpecificCharacterSet")) or {""}
    ascii_only = alphabet <= ASCII or not alphabet <= python_encoding.keys()
    empty, left_out = [], []
    for tag in sorted(image.keys()):  # keys, since iterating over the dataset would convert values
        if tag in IDENTITY_AND_GEOMETRY:
            continue
        with suppress(Exception):  # pydicom converts values on access and raises many types
            if not tag.is_private:
                _check_element(image[tag], ascii_only)
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
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not valid DICOM; {what} the SEG."
        for names, what in ((empty, "left empty in"), (left_out, "left out of"))
        if names
    ]
    return " ".join(sentences) or None


def _check_element(element: DataElement, ascii_only: bool) -> None:
    if element.VR not in dictionary_VR(element.tag).split(" or "):
        raise ValueError("another value representation")
    if element.VR == "SQ":
        for item in element.value:
            for nested in item:
                if not nested.tag.is_private:
                    _check_element(nested, ascii_only)
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
