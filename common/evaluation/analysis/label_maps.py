"""Measurement of label maps that other programs wrote."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from tqdm import tqdm

from common.cohorts.cohort import Cohort
from common.cohorts.scan import find_cases
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.overlap import Reference
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.io.files import walk
from common.io.geometry import grid_difference
from common.io.images import read_volume
from common.modalities import ALIASES, resolve_subset, subset_name, subset_names
from common.text import shortened

SUFFIX = re.compile(r"(\.nii(\.gz)?|\.mha|\.nrrd)$")
LABEL_WORD = re.compile(r"[-_](seg|pred|label)$")


def evaluate_label_maps(
    name: str,
    folder: str | Path,
    reference_dir: str | Path,
    cohort: Cohort,
    conventions: Conventions,
    allow_missing: bool = False,
    cases: Collection[str] | None = None,
) -> tuple[Evaluation, list[str]]:
    """Measure the label maps in a folder against references; return the evaluation, and remarks for the report.

    Predictions lie in one folder per modality subset, named after it (``t1c+flair``, ``T1ce_FLAIR``, ``all``), or, if
    all modalities were used, directly in the folder. A file is named after its case, optionally followed by ``_seg`` or
    similar: ``<case>.nii.gz``, ``<case>_seg.nii.gz``, ``<case>/<case>_seg.nii.gz``. The references may be in the
    cohort's folder as downloaded, together with the images. Raises FileNotFoundError if a folder does not exist or has
    no label map; ValueError if a file is no label map in the cohort's values or on another grid, or a case is missing
    on one side or occurs twice.

    Args:
        name: name of the method.
        folder: folder of the predictions.
        reference_dir: folder of the references.
        cohort: cohort that defines modalities, regions and the values of all label maps.
        allow_missing: whether to leave out cases that only one side has, which the remarks list, instead of refusing.
        cases: cases that both sides should have, e.g. the test split of a cohort's folder; None: all references.
    """
    references = _references(Path(reference_dir), cohort)
    predictions = _by_subset(Path(folder), cohort.modalities)
    remarks = _cases_left_out(name, predictions, references, cases, allow_missing)
    rows = []
    predicted = set().union(*predictions.values())
    compared = [case for case in references if case in predicted and (cases is None or case in cases)]
    for case in tqdm(compared, desc=name, unit="case"):
        truth, label = _read(references[case], cohort)
        reference = Reference(label, cohort.labels, voxel_sizes(truth.affine.numpy()), conventions)
        for subset, files in predictions.items():
            if case in files:
                values = reference.measure(_on_grid_of(truth, files[case], references[case], cohort))
                rows += [(case, subset, *key, value) for key, value in values.items()]
    evaluation = Evaluation(
        name=name,
        cohort=cohort.name,
        modalities=cohort.modalities,
        regions=tuple(cohort.labels.regions),
        conventions=conventions,
        results=pd.DataFrame(rows, columns=COLUMNS),
    )
    return evaluation, remarks


def _references(folder: Path, cohort: Cohort) -> dict[str, Path]:
    """Return case -> file of its reference."""
    files = _label_files(folder)
    try:  # in a cohort's folder, cases are named as in our own evaluations, whatever the label files are called
        labelled = {item["case"]: Path(item["label"]) for item in find_cases(folder, cohort) if "label" in item}
    except (FileNotFoundError, ValueError):  # there are no images
        labelled = {}
    return labelled or _by_case(files)


def _by_subset(folder: Path, modalities: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return subset name -> case -> file."""
    files, found = _label_files(folder), {}
    for child in sorted(child for child in folder.iterdir() if child.is_dir()):
        subset = _subset_of(child, modalities)
        if subset in found:
            raise ValueError(f"{found[subset]} and {child}: two folders for the modalities {subset}; keep one of them.")
        if subset:
            found[subset] = child
    if not found:
        return {subset_name(modalities): _by_case(files)}
    if stray := [path for path in files if not set(path.parents) & set(found.values())]:
        raise ValueError(
            f"{stray[0]}: not in a folder named after a subset of {', '.join(modalities)}, as "
            f"{next(iter(found.values())).name} is. Name its folder so, or move it out of {folder}."
        )
    return {name: _by_case(_label_files(found[name])) for name in subset_names(modalities) if name in found}


def _subset_of(folder: Path, modalities: Sequence[str]) -> str | None:
    if folder.name.lower() == "all":
        return subset_name(modalities)
    words = [word for word in re.split(r"[-+_, ]+", folder.name.lower()) if word]
    if not words or not set(words) <= set(ALIASES):
        return None
    try:
        return subset_name(resolve_subset(words, modalities))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _label_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of label maps.")
    files = [path for path in walk(folder) if SUFFIX.search(path.name)]
    if not files:
        raise FileNotFoundError(f"{folder}: no label map in it; expected NIfTI, MHA or NRRD files.")
    labelled = [path for path in files if LABEL_WORD.search(_stem(path))]
    return labelled or files


def _by_case(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        case = LABEL_WORD.sub("", _stem(path))
        if case in found:
            raise ValueError(f"Case {case} occurs twice, as {found[case]} and {path}; keep one of them.")
        found[case] = path
    return found


def _stem(path: Path) -> str:
    return SUFFIX.sub("", path.name)


def _cases_left_out(
    name: str,
    predictions: Mapping[str, Mapping[str, Path]],
    references: Mapping[str, Path],
    cases: Collection[str] | None,
    allow_missing: bool,
) -> list[str]:
    """Return descriptions of the cases that only one side has, subset by subset; refuse them if not allowed."""
    found: dict[str, list[str]] = {}
    for subset, files in predictions.items():
        wanted = {*references, *files} if cases is None else set(cases)
        sides = {
            "cases without a prediction": sorted(wanted - set(files)),
            "cases without a reference": sorted(wanted - set(references)),
            "cases that are not among those to compare": sorted(set(files) - wanted),
        }
        if any(sides.values()) and not allow_missing:
            said = "; ".join(f"{what}: {', '.join(those)}" for what, those in sides.items() if those)
            raise ValueError(f"{name}, {subset}: {said}. Complete them, or leave them out with --allow-missing.")
        if not wanted & set(files) & set(references):
            raise ValueError(
                f"{name}, {subset}: no prediction has the name of a reference to compare with; found "
                f"{shortened(sorted(files), 3)}, expected {shortened(sorted(wanted & set(references) or wanted), 3)}."
            )
        said = ", ".join(f"{what} ({shortened(those)})" for what, those in sides.items() if those)
        if said:
            found.setdefault(said, []).append(subset)
    return [f"{name}: left out of {', '.join(names)} are {said}." for said, names in found.items()]


def _read(path: Path, cohort: Cohort) -> tuple[MetaTensor, np.ndarray]:
    """Return a label map with its grid, and its values (X, Y, Z) after `LabelSet.read`."""
    volume = read_volume(path)
    if volume.ndim != 3:
        raise ValueError(f"{path}: shape {tuple(volume.shape)}; expected a label map (X, Y, Z).")
    found = volume.numpy()
    with np.errstate(invalid="ignore"):  # NaN and too large values are found below
        label = found.astype(np.int16)
    wrong = found[found != label]
    if len(wrong):
        raise ValueError(f"{path}: holds {wrong[0]:g}; expected a label map with the cohort's integer values.")
    return volume, cohort.labels.read(torch.from_numpy(label), str(path)).numpy()


def _on_grid_of(truth: MetaTensor, path: Path, reference_path: Path, cohort: Cohort) -> np.ndarray:
    volume, label = _read(path, cohort)
    if difference := grid_difference(volume, truth):
        raise ValueError(
            f"{path}: on another grid than its reference {reference_path} ({difference}). Label maps are not "
            "resampled: write the prediction on the grid of the reference."
        )
    return label
