"""Recognition of the sequence in image files without a modality in their names, by their JSON or the words in the name.

dcm2niix writes the contents of headers beside each image, as JSON with BIDS names; 3D Slicer and users write a
description into the name. Both are evaluated like a DICOM header, by `common.study.dicom.recognise`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from common.cohorts.brats import SUFFIXES
from common.modalities import display_name
from common.study.dicom.headers import quiet
from common.study.dicom.selection import ENOUGH, SURE
from common.study.dicom.sequences import Undecided, Verdict, recognise

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
    """An image file, and the sequence that it was recognised as.

    Attributes:
        path: path of the file.
        verdict: the sequence, the confidence and the reason.
        by: source of the evidence: its JSON, the words of its name, or both.
        is_3d: whether its JSON says that it was acquired in 3D.
        identity: values of `IDENTITY` in its JSON.
    """

    path: Path
    verdict: Verdict
    by: str
    is_3d: bool
    identity: tuple[str, ...]


def recognise_file(path: Path) -> ImageFile:
    """Recognise the sequence of a file by its JSON; the words of its name replace a missing description."""
    stem = _stem(path)
    words = re.sub(r"^sub-[A-Za-z0-9]+", "", stem)  # the BIDS prefix does not mean subtraction
    said = _read_json(path.with_name(f"{stem}.json"))
    described = any(isinstance(said.get(name), str) and said[name].strip() for name in TEXTS[:2])
    verdict = recognise(_header(said if described else {**said, "SeriesDescription": words}))
    by = "its JSON" if described else "its JSON and its name" if said else "the words of its name"
    if no_image := NO_IMAGE.search(stem):
        verdict = Verdict(None, 0.0, f"'{no_image[1].lower()}' in its name")
    elif verdict.modality and verdict.confidence < ENOUGH:
        perhaps = f"perhaps {display_name(verdict.modality)}, confidence {verdict.confidence:.2f} only"
        verdict = Verdict(None, 0.0, f"{perhaps} ({verdict.reason})")
    identity = tuple(str(said.get(name, "")) for name in IDENTITY)
    return ImageFile(path, verdict, by, said.get("MRAcquisitionType") == "3D", identity)


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
) -> tuple[dict[str, ImageFile], list[str], Undecided | None]:
    """Choose a file for each sequence, preferring higher confidence, then 3D.

    If two seem to be the T1, and there is no T1c, the second one is used as T1c.

    Args:
        files: files of one patient whose names do not end in a modality.
        named: modalities of other files, which are named after them and take precedence.

    Returns:
        Modality -> file; a line for each file: what it is used as and why, or why it is left out; and whether T1 and
        T1c may be exchanged, because nothing tells which is which.

    Raises:
        ValueError: if two candidates are equally good, or the files are of several patients.
    """
    candidates: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        if file.verdict.modality:
            candidates[file.verdict.modality].append(file)
    chosen, undecided = {}, None
    for name, several in candidates.items():
        if name in named:
            continue
        best, *others = sorted(several, key=_rank, reverse=True)
        equal = [file for file in others if _rank(file) == _rank(best)]
        if name == "t1" and len(others) == 1 and "t1c" not in {*named, *candidates}:
            chosen["t1c"] = replace(others[0], verdict=replace(others[0].verdict, modality="t1c"))
            undecided = Undecided(bool(equal), _alike(best, others[0]) if equal else SECOND_T1)
        elif equal:
            raise ValueError(_alike(best, equal[0]))
        chosen[name] = best
    _refuse_several_patients(chosen)
    return chosen, [_explanation(file, chosen) for file in files], undecided


def _alike(one: ImageFile, other: ImageFile) -> str:
    name = str(one.verdict.modality)
    return (
        f"{one.path} and {other.path}: two files that seem to be the {display_name(name)} and cannot be told apart "
        f"({one.by}: {one.verdict.reason}; {other.by}: {other.verdict.reason}). Move one away, or name the right one "
        f"{name}{_suffix(one.path)}."
    )


def _rank(file: ImageFile) -> tuple:
    return file.verdict.confidence >= SURE, file.is_3d, file.verdict.confidence


def _explanation(file: ImageFile, chosen: Mapping[str, ImageFile]) -> str:
    name, path = file.verdict.modality, file.path.name
    if name is None:
        return f"{path}: left out, by {file.by}: {file.verdict.reason}."
    said = f"{display_name(name)}, by {file.by}: confidence {file.verdict.confidence:.2f} ({file.verdict.reason})"
    if name not in chosen:
        return f"{path}: {said}; not taken, since another file is named so."
    if name == "t1" and "t1c" in chosen and chosen["t1c"].path == file.path:
        return f"{path}: {said}, or T1c; taken."
    return f"{path}: {said}; {'taken' if chosen[name] is file else 'not taken, since another is surer or 3D'}."


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
        said = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


@quiet()
def _header(said: Mapping[str, Any]) -> Dataset:
    """Return a DICOM header, with times in ms, from values with BIDS names and in BIDS units (seconds)."""
    header = Dataset()
    said = {"ContrastBolusAgent": said.get("ContrastBolusIngredient"), **said}
    for name in TEXTS:
        values = said.get(name)
        values = values if isinstance(values, list) else [values]
        if found := [value for value in values if isinstance(value, str) and value.isprintable()]:
            setattr(header, name, found if name in ("ImageType", "ScanningSequence") else found[0])
    times = {name: said.get(name) for name in SECONDS}
    times = {name: value for name, value in times.items() if type(value) in (int, float) and 0 < value < 1e6}
    unit = 1 if times.get("EchoTime", 0) > 1 else 1000  # some programs write ms nevertheless
    for name, value in times.items():
        setattr(header, name, f"{value * unit:.6g}")
    return header


def _suffix(path: Path) -> str:
    return next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path))]
