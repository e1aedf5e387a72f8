"""Measurement of label maps that other programs wrote."""

import re
from collections.abc import Collection, Mapping, Sequence
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
from common.io.geometry import grid_difference
from common.io.images import read_volume
from common.modalities import ALIASES, resolve_subset, subset_name, subset_names
from common.text import shortened

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


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

    Predictions are files ``<subset>/<case>.nii.gz`` (or ``.nii``, ``.mha``, ``.nrrd``) in folders named after the
    modalities used (``t1c+flair``, ``T1ce_FLAIR``, ``all``), or ``<case>.nii.gz`` without such folders if all were
    used. References are the cohort's folder as downloaded, or files ``<case>.nii.gz``. Raises FileNotFoundError if a
    folder does not exist or has no label map; ValueError if a file is no label map in the cohort's values or on another
    grid, or a case is missing on one side.

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
    remarks = _left_out(name, predictions, references, cases, allow_missing)
    rows, predicted = [], set().union(*predictions.values())
    compared = [case for case in references if case in predicted and (cases is None or case in cases)]
    for case in tqdm(compared, desc=name, unit="case"):
        truth, label = _read(references[case], cohort)
        reference = Reference(label, cohort.labels, voxel_sizes(truth.affine.numpy()), conventions)
        for subset, files in predictions.items():
            if case in files:
                prediction = _on_grid_of(truth, files[case], references[case], cohort)
                values = reference.measure(prediction)
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
    try:
        items = find_cases(folder, cohort)
    except (FileNotFoundError, ValueError):  # there are no images
        items = []
    return {item["case"]: Path(item["label"]) for item in items if "label" in item} or _by_case(folder)


def _by_subset(folder: Path, modalities: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return subset name -> case -> file, smaller subsets first."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected label maps.")
    folders: dict[str, Path] = {}
    others: list[Path] = []
    for path in sorted(folder.glob("[!.]*")):
        if subset := _subset_of(path, modalities) if path.is_dir() else None:
            if subset in folders:
                raise ValueError(f"{folders[subset]} and {path}: two folders for the modalities {subset}; keep one.")
            folders[subset] = path
        elif path.is_dir() or path.name.endswith(SUFFIXES):
            others.append(path)
    if not folders:
        return {subset_name(modalities): _by_case(folder)}
    if others:
        raise ValueError(
            f"{others[0]}: not named after a subset of {', '.join(modalities)}, as {next(iter(folders.values())).name} "
            f"is. Name its folder so, or move it out of {folder}."
        )
    return {name: _by_case(folders[name]) for name in subset_names(modalities) if name in folders}


def _subset_of(folder: Path, modalities: Sequence[str]) -> str | None:
    """Return the subset that a folder is named after, in any spelling of the modalities; None for another name."""
    if folder.name.lower() == "all":
        return subset_name(modalities)
    words = [word for word in re.split(r"[-+_, ]+", folder.name.lower()) if word]
    if not words or not set(words) <= set(ALIASES):
        return None
    try:
        return subset_name(resolve_subset(words, modalities))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _by_case(folder: Path) -> dict[str, Path]:
    """Return case -> file of a folder of label maps, which are named after their cases."""
    files: dict[str, Path] = {}
    for path in sorted(path for suffix in SUFFIXES for path in folder.glob(f"[!.]*{suffix}")):
        case = re.sub(r"(\.nii)?\.\w+$", "", path.name)
        if case in files:
            raise ValueError(f"Case {case} occurs twice, as {files[case]} and {path}; keep one of them.")
        files[case] = path
    if not files:
        raise FileNotFoundError(f"{folder}: no label map in it; expected files <case>.nii.gz.")
    return files


def _left_out(
    name: str,
    predictions: Mapping[str, Mapping[str, Path]],
    references: Mapping[str, Path],
    cases: Collection[str] | None,
    allow_missing: bool,
) -> list[str]:
    """Return descriptions of the cases that only one side has, subset by subset; refuse them if not allowed."""
    remarks = []
    for subset, files in predictions.items():
        wanted = {*references, *files} if cases is None else set(cases)
        sides = {
            "without a prediction": sorted(wanted - set(files)),
            "without a reference": sorted(wanted - set(references)),
            "not among those to compare": sorted(set(files) - wanted),
        }
        words = "; ".join(f"{what}: {shortened(lacking, 10)}" for what, lacking in sides.items() if lacking)
        if words and not allow_missing:
            raise ValueError(f"{name}, {subset}: cases {words}. Complete them, or leave them out with --allow-missing.")
        if not wanted & set(files) & set(references):
            raise ValueError(
                f"{name}, {subset}: no prediction has the name of a reference to compare with; found "
                f"{shortened(sorted(files), 3)}, expected {shortened(sorted(wanted & set(references) or wanted), 3)}."
            )
        remarks += [f"{name}: left out of {subset} are cases {words}."] if words else []
    return remarks


def _read(path: Path, cohort: Cohort) -> tuple[MetaTensor, np.ndarray]:
    """Return a label map with its grid, and its values (X, Y, Z) after `LabelSet.read`."""
    volume = read_volume(path)
    if volume.ndim != 3:
        raise ValueError(f"{path}: shape {tuple(volume.shape)}; expected a label map (X, Y, Z).")
    values = volume.numpy()
    with np.errstate(invalid="ignore"):  # NaN and too large values are refused below
        label = values.astype(np.int16)
    wrong = values[values != label]
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
