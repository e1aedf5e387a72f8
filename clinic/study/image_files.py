"""Recognition of the modality of image files whose names do not end in one, by their JSON or the words in the name.

dcm2niix writes the contents of headers beside each image, as JSON with BIDS names; 3D Slicer and users write a
description into the name. Both are evaluated like a DICOM header, by `clinic.dicom.recognise`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from clinic.dicom.headers import quiet
from clinic.dicom.selection import SURE, SecondT1, TieError, as_t1c, best_of, if_enough, second_t1
from clinic.dicom.sequences import Verdict, recognise
from common.cohorts.scan import SUFFIXES
from common.modalities import GLIOMA, display_name

TEXTS = ("SeriesDescription", "ProtocolName", "ScanningSequence", "SequenceName", "ImageType", "ContrastBolusAgent")
SECONDS = ("EchoTime", "RepetitionTime", "InversionTime")
IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID")
"""Keys by which dcm2niix, unless told to leave them out, identifies the patient."""
SECOND_T1 = (
    "A second file seems to be the T1 and is not used; it may be after contrast agent. If so: end its name in _t1c."
)
NO_IMAGE = re.compile(r"(?<![a-z])(masks?|seg|segm\w*|labels?|roi|prob\w*|warp\w*)(?![a-z])", re.IGNORECASE)
"""Words in names of files that lie beside images but are not images."""


@dataclass(frozen=True)
class ImageFile:
    """An image file, and the modality that it was recognised as: a `clinic.dicom.selection.Candidate`.

    Attributes:
        path: path of the file.
        verdict: the modality, the confidence and the reason.
        by: source of the evidence: its JSON, the words of its name, or both.
        is_3d: whether its JSON says that it was acquired in 3D.
        identity: values of `IDENTITY` in its JSON.
    """

    path: Path
    verdict: Verdict
    by: str
    is_3d: bool
    identity: tuple[str, ...]

    @property
    def rank(self) -> tuple[Any, ...]:
        """Criteria by which one of several files for a modality is preferred."""
        return self.verdict.confidence >= SURE, self.is_3d, self.verdict.confidence


def recognise_file(path: Path) -> ImageFile:
    """Recognise the modality of a file by its JSON; the words of its name replace a missing description."""
    stem = _stem(path)
    words = re.sub(r"^sub-[A-Za-z0-9]+", "", stem)  # the BIDS prefix does not mean subtraction
    fields = _read_json(path.with_name(f"{stem}.json"))
    described = any(isinstance(fields.get(name), str) and fields[name].strip() for name in TEXTS[:2])
    verdict = if_enough(recognise(_header(fields if described else {**fields, "SeriesDescription": words})))
    by = "its JSON" if described else "its JSON and its name" if fields else "the words of its name"
    if no_image := NO_IMAGE.search(stem):
        verdict = Verdict(None, 0.0, f"'{no_image[1].lower()}' in its name")
    identity = tuple(str(fields.get(name, "")) for name in IDENTITY)
    return ImageFile(path, verdict, by, fields.get("MRAcquisitionType") == "3D", identity)


def contradiction(path: Path, modality: str) -> str | None:
    """Return a warning if the JSON of a file contradicts the modality that the file is named after, else None."""
    file = recognise_file(path)
    if not file.by.startswith("its JSON") or file.verdict.modality in (None, modality):
        return None
    return (
        f"its name says {display_name(modality)}, its JSON {display_name(file.verdict.modality)} "
        f"({file.verdict.reason}). Look at the pictures, and correct the name."
    )


def choose_files(
    files: Sequence[ImageFile], named: Collection[str]
) -> tuple[dict[str, ImageFile], list[str], SecondT1 | None]:
    """Choose a file for each modality, preferring higher confidence, then 3D.

    If two seem to be the T1, and there is no T1c, the second one is used as T1c. Returns modality -> file; a line for
    each file: what it is used as and why, or why it is left out; and whether T1 and T1c may be exchanged, because
    nothing tells which is which. ``files`` are one patient's whose names do not end in a modality; ``named`` are the
    modalities of the others, which take precedence.
    """
    candidates, uncertain = list(files), None
    t1 = [file for file in files if file.verdict.modality == "t1"]
    if len(t1) == 2 and "t1" not in named and "t1c" not in {*named, *(file.verdict.modality for file in files)}:
        second, tied = second_t1(t1)
        uncertain = SecondT1(tied, _alike(*t1) if tied else SECOND_T1)
        candidates[files.index(second)] = replace(second, verdict=as_t1c(second.verdict))
    try:
        best = {name: best_of(candidates, name) for name in GLIOMA if name not in named}
    except TieError as tie:
        raise ValueError(_alike(*tie.equal[:2])) from None
    chosen = {name: file for name, file in best.items() if file}
    _refuse_several_patients(chosen)
    return chosen, [_explanation(file, chosen) for file in files], uncertain


def _alike(one: ImageFile, other: ImageFile) -> str:
    name = str(one.verdict.modality)
    return (
        f"{one.path} and {other.path}: two files that seem to be the {display_name(name)} and cannot be told apart "
        f"({one.by}: {one.verdict.reason}; {other.by}: {other.verdict.reason}). Move one away, or name the right one "
        f"{name}{_suffix(one.path)}."
    )


def _explanation(file: ImageFile, chosen: Mapping[str, ImageFile]) -> str:
    name, path = file.verdict.modality, file.path.name
    if name is None:
        return f"{path}: left out, by {file.by}: {file.verdict.reason}."
    line = f"{path}: {display_name(name)}, by {file.by}: confidence {file.verdict.confidence:.2f}"
    line += f" ({file.verdict.reason})"
    if name not in chosen:
        return f"{line}; not taken, since another file is named so."
    if name == "t1" and "t1c" in chosen and chosen["t1c"].path == file.path:
        return f"{line}, or T1c; taken."
    return f"{line}; {'taken' if chosen[name] is file else 'not taken, since another is surer or 3D'}."


def _refuse_several_patients(chosen: Mapping[str, ImageFile]) -> None:
    """Refuse files whose JSON names several patients or studies, and folders that each look like a subject's."""
    for number, what in enumerate(IDENTITY):
        if len({file.identity[number] for file in chosen.values()} - {""}) > 1:
            raise ValueError(f"The files' JSON differ in {what}; give a folder with one study of one patient.")
    folders: dict[Path, list[str]] = defaultdict(list)
    for name, file in chosen.items():
        folders[file.path.parent].append(name)
    if len(folders) > 1 and max(map(len, folders.values())) > 1:
        raise ValueError(
            f"The sequences lie in {len(folders)} folders, one of which has several, as if they were of several "
            "subjects; give the folder of one subject, with its files in it or a folder for each."
        )


def _read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file; empty if it does not exist or is not a JSON object."""
    try:
        fields = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


@quiet()
def _header(fields: Mapping[str, Any]) -> Dataset:
    """Return a DICOM header, with times in ms, from values with BIDS names and in BIDS units (seconds)."""
    header = Dataset()
    fields = {"ContrastBolusAgent": fields.get("ContrastBolusIngredient"), **fields}
    for name in TEXTS:
        values = fields.get(name)
        values = values if isinstance(values, list) else [values]
        if found := [value for value in values if isinstance(value, str) and value.isprintable()]:
            setattr(header, name, found if name in ("ImageType", "ScanningSequence") else found[0])
    times = {name: fields.get(name) for name in SECONDS}
    times = {name: value for name, value in times.items() if type(value) in (int, float) and 0 < value < 1e6}
    unit = 1 if times.get("EchoTime", 0) > 1 else 1000  # some programs write ms nevertheless
    for name, value in times.items():
        setattr(header, name, f"{value * unit:.6g}")
    return header


def _suffix(path: Path) -> str:
    return next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path))]
