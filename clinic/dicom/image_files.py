"""Recognition of image files whose names do not end in a modality, by the JSON beside them or the words in their names.

dcm2niix writes the contents of headers beside each image, as JSON with BIDS names; 3D Slicer and users write a
description into the name. Both are evaluated like a DICOM header, by `clinic.dicom.recognise`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Image
from pydicom.dataset import Dataset

from clinic.dicom.headers import quiet
from clinic.dicom.selection import Candidate, Look, Selection, choose_among, recognise_all
from clinic.dicom.sequences import Verdict
from common.cohorts.scan import SUFFIXES
from common.io.images import read_image
from common.modalities import display_name

TEXTS = (
    "SeriesDescription", "ProtocolName", "ScanningSequence", "SequenceName", "ImageType", "MRAcquisitionType",
    "ContrastBolusAgent",
)  # fmt: skip
SECONDS = ("EchoTime", "RepetitionTime", "InversionTime")
IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID")
"""Keys by which dcm2niix, unless told to leave them out, identifies the patient."""
NO_IMAGE = re.compile(r"(?<![a-z])(masks?|seg|segm\w*|labels?|roi|prob\w*|warp\w*)(?![a-z])", re.IGNORECASE)
"""Words in names of files that lie beside images but are not images."""


@dataclass(eq=False)
class FileCandidate(Candidate):
    """An image file as a candidate.

    Attributes:
        path: path of the file.
        by: source of the evidence: its JSON, the words of its name, or both.
        identity: values of `IDENTITY` in its JSON.
    """

    path: Path = field(kw_only=True)
    by: str = field(kw_only=True, default="")
    identity: tuple[str, ...] = field(kw_only=True, default=("",) * len(IDENTITY))

    @property
    def frame(self) -> str:
        """The same name for all files."""
        return "NIfTI"

    @cached_property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine of the volume, with the axis along which its voxels are longest as the last."""
        image = self.read()
        edges = np.linalg.norm(image.affine[:3, :3], axis=0).round(2)
        last = max(range(3), key=lambda axis: (edges[axis], axis))
        axes = [axis for axis in range(3) if axis != last] + [last]
        return [image.shape[axis] for axis in axes], image.affine[:, [*axes, 3]]

    def read(self) -> Nifti1Image:
        """Read the volume; ValueError if it is not a single one."""
        return read_image(self.path)[0]


def recognise_files(paths: Sequence[Path]) -> list[FileCandidate]:
    """Recognise files of one patient by their JSON; the words of a name replace a missing description."""
    found = [_described(path) for path in paths]
    recognise_all(found)
    for file in found:
        verdict = file.verdict
        if no_image := NO_IMAGE.search(_stem(file.path)):
            verdict = Verdict(None, 0.0, f"'{no_image[1].lower()}' in its name")
        file.verdict = Verdict(verdict.modality, verdict.confidence, f"by {file.by}: {verdict.reason}")
    return found


def _described(path: Path) -> FileCandidate:
    stem = _stem(path)
    words = re.sub(r"^sub-[A-Za-z0-9]+", "", stem)  # the BIDS prefix does not mean subtraction
    fields = _read_json(path.with_name(f"{stem}.json"))
    described = any(isinstance(fields.get(name), str) and fields[name].strip() for name in TEXTS[:2])
    header = _header(fields if described else {**fields, "SeriesDescription": words})
    by = "its JSON" if described else "its JSON and its name" if fields else "the words of its name"
    identity = tuple(str(fields.get(name, "")) for name in IDENTITY)
    return FileCandidate(str(path), "image file", header, path=path, by=by, identity=identity)


def contradiction(path: Path, modality: str) -> str | None:
    """Return a warning if the JSON of a file contradicts the modality that the file is named after, else None."""
    (file,) = recognise_files([path])
    if not file.by.startswith("its JSON") or file.verdict.modality in (None, modality):
        return None
    return (
        f"its name says {display_name(modality)}, its JSON {display_name(file.verdict.modality)} "
        f"({file.verdict.reason.partition(': ')[2]}). Look at the pictures, and correct the name."
    )


def choose_files(
    files: Sequence[FileCandidate], named: Mapping[str, str], left_out: Collection[str], look: Look | None
) -> Selection:
    """Choose a file for each modality; see `choose_among`.

    ``files`` are one patient's files whose names do not end in a modality. ``named`` are the paths of the others, by
    the modality in their name; these take precedence.
    """
    others = [
        FileCandidate(path, "image file", Dataset(), None, Verdict(name, 1.0, ""), True, path=Path(path))
        for name, path in named.items()
    ]

    def option(names: Sequence[str], value: str = "") -> str:
        return f"move the wrong files away, or name the right ones {' and '.join(f'x_{name}.nii.gz' for name in names)}"

    selection = choose_among([*files, *others], left_out, option, look)
    _refuse_several_patients({name: one for name, one in selection.chosen.items() if not one.fixed})
    lines = selection.explanations[: len(files)]
    for one in [*files, *others]:  # refusals have whole paths, of which the server removes its own part
        lines = [line.replace(one.name, one.path.name) for line in lines]
    return replace(selection, explanations=lines)


def _refuse_several_patients(chosen: Mapping[str, FileCandidate]) -> None:
    """Refuse files whose JSON names several patients or studies, and files from folders of several subjects."""
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
    if re.fullmatch(r"[0-9:.]{8,}", when := str(fields.get("AcquisitionTime", ""))):
        header.AcquisitionDateTime = when.replace(":", "")  # orders the files of one study
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


def _stem(path: Path) -> str:
    suffix = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]
