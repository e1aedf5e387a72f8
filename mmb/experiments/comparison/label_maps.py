"""Measurement of label maps that other programs wrote."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from tqdm import tqdm

from common.cohorts.cohort import Cohort
from common.cohorts.nnunet import described, label_values
from common.cohorts.registry import cohort_of
from common.cohorts.scan import find_cases
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.overlap import Reference
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.io.files import unread, walk
from common.io.geometry import grid_difference
from common.io.images import label_map, read_volume
from common.modalities import subset_name, subset_names
from common.text import shortened
from mmb.experiments.comparison.class_order import ClassOrder, other_axes

logger = logging.getLogger(__name__)
SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


def evaluate_label_maps(
    name: str, folder: str | Path, reference_dir: str | Path, cohort: Cohort, conventions: Conventions
) -> Evaluation:
    """Measure a method's label maps in a folder against references.

    Predictions are files ``<subset>/<case>.nii.gz`` (or ``.nii``, ``.mha``, ``.nrrd``) in folders named after the
    modalities used, as in results (``t1c+flair``), or ``<case>.nii.gz`` without such folders if all were used.
    References are the cohort's folder as downloaded, or files ``<case>.nii.gz``; those without a prediction do not
    count, and tables say so. The cohort defines modalities, regions and the values of all label maps, unless nnU-Net's
    ``dataset.json`` lies in their folder, which names the classes. If other meanings of a method's values, or other
    axes, fit the references better, a warning is logged (`ClassOrder`, `other_axes`).
    """
    references = _references(Path(reference_dir), cohort)
    predictions = _by_subset(Path(folder), cohort.modalities)
    predicted = set().union(*predictions.values())
    if foreign := sorted(predicted - set(references)):
        raise ValueError(
            f"{name}: cases without a reference: {shortened(foreign)}; expected label maps named after references, "
            f"such as {shortened(references, 3)}."
        )
    if lacking := sorted(references.keys() - predicted):
        logger.warning(f"{name}: no label map of {len(lacking)} of {len(references)} cases: {shortened(lacking)}.")
    rows, order, axes = [], ClassOrder(cohort.labels), list[str]()
    sources = {subset: _source(files, cohort) for subset, files in predictions.items()}
    for case in tqdm([case for case in references if case in predicted], desc=name, unit="case"):
        path, source = references[case]
        truth, label = _read(path, source, cohort)
        reference = Reference(label, cohort.labels, voxel_sizes(truth.affine.numpy()), conventions)
        for subset, files in predictions.items():
            if case in files:
                prediction = _on_grid_of(truth, files[case], path, sources[subset], cohort)
                order.add(prediction, label)
                axes.append(other_axes(prediction, label))
                values = reference.measure(prediction)
                rows += [(case, subset, *key, value) for key, value in values.items()]
    if doubt := order.doubt():
        logger.warning(f"{name}: {doubt}")
    if len(turned := [*filter(None, axes)]) * 2 > len(axes):
        what = f"fit their references with other axes (- is mirrored): {shortened(dict.fromkeys(turned), 3)}"
        logger.warning(f"{name}: {len(turned)} of {len(axes)} label maps {what}. Write them as the references' are.")
    return Evaluation(
        name=name,
        cohort=cohort.name,
        modalities=cohort.modalities,
        regions=tuple(cohort.labels.regions),
        conventions=conventions,
        results=pd.DataFrame(rows, columns=COLUMNS),
        facts={"references": len(references)},
    )


def _references(folder: Path, cohort: Cohort) -> dict[str, tuple[Path, Cohort]]:
    """Return case -> file of its reference, and the cohort whose values it has."""
    try:
        items = find_cases(folder, cohort)
    except (FileNotFoundError, ValueError):  # there are no images
        items = []
    labelled = {i["case"]: (Path(i["label"]), cohort_of(i, cohort)) for i in items if "label" in i}
    if labelled:
        return labelled
    files = _by_case(folder)
    return {case: (path, _source(files, cohort)) for case, path in files.items()}


def _source(files: Mapping[str, Path], cohort: Cohort) -> Cohort:
    """Return the cohort whose values label maps of one folder have, as nnU-Net's description of them says."""
    told = described(next(iter(files.values())).parent)
    return cohort_of({"label_values": label_values(told, cohort)}, cohort) if told else cohort


def _by_subset(folder: Path, modalities: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return subset name -> case -> file, smaller subsets first."""
    folders = {name: folder / name for name in subset_names(modalities) if (folder / name).is_dir()}
    if not folders:
        return {subset_name(modalities): _by_case(folder)}
    others = [path for path in sorted(folder.glob("[!.]*")) if path not in folders.values()]
    if others := [path for path in others if path.is_dir() or path.name.lower().endswith(SUFFIXES)]:
        raise ValueError(
            f"{others[0]}: not named after a subset of {', '.join(modalities)}, as {next(iter(folders))} is. Name its "
            f"folder so, or move it out of {folder}."
        )
    return {name: _by_case(path) for name, path in folders.items()}


def _by_case(folder: Path) -> dict[str, Path]:
    """Return case -> file of a folder of label maps, which are named after their cases."""
    files: dict[str, Path] = {}
    for path in sorted(path for path in folder.glob("[!.]*") if path.name.lower().endswith(SUFFIXES)):
        case = re.sub(r"(\.nii)?\.\w+$", "", path.name, flags=re.IGNORECASE)
        if case in files:
            raise ValueError(f"Case {case} occurs twice, as {files[case]} and {path}; keep one of them.")
        files[case] = path
    if not files:
        below = walk(folder)
        nested = [path for path in below if path.name.lower().endswith(SUFFIXES)]
        found = f"The first of {len(nested)} below it is {nested[0]}; move them up. " if nested else ""
        found += "".join(f"{remark[0].upper()}{remark[1:]}. " for remark in unread(below)[0])
        raise FileNotFoundError(
            f"{folder}: no label map in it; expected <subset>/<case>.nii.gz or <case>.nii.gz. {found}".strip()
        )
    return files


def _read(path: Path, source: Cohort, cohort: Cohort) -> tuple[MetaTensor, np.ndarray]:
    """Return a label map in the source's values with its grid, and its values (X, Y, Z) in those of the cohort."""
    volume = label_map(read_volume(path), path)
    values = volume.numpy()
    with np.errstate(invalid="ignore"):  # NaN and too large values are refused below
        label = values.astype(np.int16)
    if len(wrong := values[values != label]):
        raise ValueError(
            f"{path}: holds {wrong[0]:g}; expected a label map with the cohort's whole numbers. If it was "
            "resampled, do so by nearest neighbour; if it holds probabilities, write the labels."
        )
    read = source.labels.read(torch.from_numpy(label), str(path))
    return volume, (read if source is cohort else cohort.labels.adopt(read, source.labels)).numpy()


def _on_grid_of(truth: MetaTensor, path: Path, reference_path: Path, source: Cohort, cohort: Cohort) -> np.ndarray:
    volume, label = _read(path, source, cohort)
    if difference := grid_difference(volume, truth):
        raise ValueError(
            f"{path}: on another grid than its reference {reference_path} ({difference}). Label maps are not "
            "resampled: write the prediction on the grid of the reference."
        )
    return label
