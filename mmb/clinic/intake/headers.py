"""Tolerant access to DICOM attributes: values may be invalid, and libraries must not quote them."""

import unicodedata
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from mmb.errors import EACH, StudyError

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURS = (
    "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT",
    "HSV", "ARGB", "CMYK", "XYB",
)  # fmt: skip
"""Colour models that PhotometricInterpretation can name."""
MISSING = "copy the study again from where it came from"  # what to do when files are damaged or missing
ONE_UID = (
    "give all images of a {} the same one, as the scanner did (a program that removes identities has to replace equal "
    "UIDs by equal ones)"
)
ONLY_A_PART = "so it is only a part; export the scanner's own images"  # what other classes of images in a series mean


def numbers(header: Dataset, name: str, count: int = 1) -> np.ndarray | None:
    """Return the ``(count,)`` numbers of an attribute, or None.

    None means that it is missing, does not hold exactly ``count`` finite numbers, or has a wrong value representation,
    so that its bytes would be read as other numbers.
    """
    try:
        element = header[name]
        values = np.array(element.value, float).reshape(-1)
        expected = dictionary_VR(name).split(" or ")
    except Exception:  # pydicom converts values on access and raises many types
        return None
    usable = element.VR in expected and len(values) == count and np.isfinite(values).all()
    return values if usable else None


def number(header: Dataset, name: str) -> float | None:
    """Return the single number of an attribute; None if it is missing or anything else."""
    values = numbers(header, name)
    return None if values is None else float(values[0])


def private_number(header: Dataset, tag: tuple[int, int]) -> float | None:
    """Return the single number of a private attribute, by its group and element; None if it is anything else."""
    try:
        return float(header[tag].value)
    except Exception:  # as above
        return None


def required_number(header: Dataset, name: str) -> float:
    """Return the single number of an attribute; StudyError if it is missing or anything else."""
    if (value := number(header, name)) is None:
        raise StudyError(f"its header has no {name}; {MISSING}")
    return value


def texts(header: Dataset, name: str) -> list[str]:
    """Return the values of an attribute as texts; empty if it is missing, cannot be decoded, or is not text."""
    try:
        content = header.get(name)
        values = content if isinstance(content, MultiValue) else [content]
        return [str(value) for value in values if value is not None and not isinstance(value, bytes | Sequence)]
    except Exception:  # an unknown VR, another character set, ...
        return []


def text(header: Dataset, name: str) -> str:
    """Return an attribute as one text; empty if it has none."""
    return "\\".join(texts(header, name))


def items(header: Dataset, name: str | BaseTag) -> list[Dataset]:
    """Return the items of a sequence; empty if it is missing or not a sequence."""
    try:
        content = header[name].value
    except Exception:  # as above
        return []
    return list(content) if isinstance(content, Sequence) else []


def has_value(header: Dataset, name: str) -> bool:
    """Return whether an attribute has a value, even one that cannot be decoded."""
    return name in header and header.get_item(name).value not in (None, "", b"")


def patient(header: Dataset) -> tuple[str, str, str]:
    """Return identifier, name and date of birth of the patient; empty if missing."""
    name = " ".join(text(header, "PatientName").replace("^", " ").split()).casefold()
    born = text(header, "PatientBirthDate").replace(".", "")  # 1970.01.01, as ACR-NEMA wrote dates
    return text(header, "PatientID").strip(), unicodedata.normalize("NFC", name), born


def require_one_patient(folder: str | Path, patients: Collection[tuple[str, str, str]]) -> None:
    """Refuse two patients, which differ in identifier, name or date of birth; missing values are ignored."""
    counts = [len({value for value in values if value}) for values in zip(*set(patients), strict=True)]
    if max(counts) > 1:
        what = [name for name, count in zip(("ID", "name", "date of birth"), counts, strict=True) if count > 1]
        images = f"images of {max(counts)} patients (by {', '.join(what)})"
        raise StudyError.of(folder, f"{images}; give the folder of one.", code="several_patients", command=EACH)


def colour(header: Dataset) -> str | None:
    """Return the colour model of an image; None if it is greyscale or the header does not say."""
    model = text(header, "PhotometricInterpretation")
    if not model or model in GREY:
        return None
    return model if model in COLOURS else "of no known kind"


def rescale(header: Dataset) -> tuple[float, float]:
    """Return RescaleSlope and RescaleIntercept; 1 and 0 where they are missing or not numbers."""
    slope, intercept = (number(header, name) for name in ("RescaleSlope", "RescaleIntercept"))
    return 1.0 if slope is None else slope, intercept or 0.0


def unlike_grey(header: Dataset) -> str | None:
    """Return why images with such a header have no usable grey values, e.g. "are in colour"; None if they have."""
    if model := colour(header):
        return f"are in colour (PhotometricInterpretation {model}; expected {' or '.join(GREY)})"
    if not has_value(header, "PhotometricInterpretation"):
        return f"lack PhotometricInterpretation; expected {' or '.join(GREY)}"
    allocated, stored = number(header, "BitsAllocated"), number(header, "BitsStored")
    expected: dict[str, Collection[float]] = {
        "SamplesPerPixel": (1,),
        "BitsAllocated": (8, 16, 32),
        "BitsStored": range(1, int(allocated or 0) + 1),
        "HighBit": (stored - 1,) if stored else (),
        "PixelRepresentation": (0, 1),
    }
    for name, values in expected.items():
        value = number(header, name)
        if value not in values and (name != "HighBit" or has_value(header, name)):
            either = " or ".join(f"{value:g}" for value in values) or "one that fits the others"
            wanted = f"{values[0]} to {values[-1]}" if isinstance(values, range) and values else either
            what = f"lack {name}, or have no number in it" if value is None else f"have {name} {value:g}"
            return f"{what}; expected {wanted}"
    for name in ("RescaleSlope", "RescaleIntercept"):
        if has_value(header, name) and number(header, name) is None:
            return f"have a {name} that is not a number"
    slope = rescale(header)[0]
    return f"have RescaleSlope {slope:g}; expected more than 0" if slope <= 0 else None


def copy_attributes(header: Dataset, into: Dataset) -> None:
    """Copy attributes into another dataset without decoding them; skip those that pydicom cannot copy."""
    for tag in header.keys():  # noqa: SIM118  iterating over the dataset would convert values
        with suppress(Exception):
            into[tag] = header.get_item(tag)


def flatten_frame(dataset: Dataset, frame: int) -> Dataset:
    """Return a frame of a multi-frame image in the form of a single-frame image."""
    flat, groups = Dataset(), []
    copy_attributes(dataset, flat)
    for name, index in {"SharedFunctionalGroupsSequence": 0, "PerFrameFunctionalGroupsSequence": frame}.items():
        groups += items(dataset, name)[index : index + 1]
        flat.pop(name, None)
    for group in groups:
        for tag in group.keys():  # noqa: SIM118  iterating over the dataset converts values
            if not tag.is_private:
                copy_attributes((items(group, tag) or [Dataset()])[0], flat)
    for ours, theirs in {"EchoTime": "EffectiveEchoTime", "InversionTime": "InversionTimes"}.items():
        if theirs in flat:
            flat.add_new(ours, dictionary_VR(ours), number(flat, theirs))
    for ours, theirs in {"ImageType": "FrameType", "SequenceName": "PulseSequenceName"}.items():
        if theirs in flat:
            flat.add_new(ours, dictionary_VR(ours), texts(flat, theirs))
    sequence = {"GRADIENT": ["GR"], "SPIN": ["SE"], "BOTH": ["GR", "SE"]}.get(text(flat, "EchoPulseSequence"), [])
    sequence += ["IR"] * (text(flat, "InversionRecovery") == "YES")
    sequence += ["EP"] * (text(flat, "EchoPlanarPulseSequence") == "YES")
    if sequence:
        flat.add_new("ScanningSequence", "CS", sequence)
    agents = items(flat, "ContrastBolusAgentSequence")
    if agents and "ContrastBolusAgent" not in flat:
        flat.ContrastBolusAgent = text(agents[0], "CodeMeaning") or "contrast agent"
    return flat
