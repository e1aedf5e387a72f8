"""From a patient's study to a segmentation on the grid of one of its series, by a bundle's inference.json."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from nibabel.affines import voxel_sizes

from common.cohorts.check import coarse, tilted
from common.cohorts.cohort import Cohort
from common.evaluation.analysis.reliability import volume_intervals
from common.evaluation.metrics.results import COLUMNS
from common.io import require_writable
from common.modalities import canonical, display_name, display_subset, subset_name
from common.study.grid import AlignedStudy, finest, resample_label_to, to_one_grid
from common.study.inference import Inference
from common.study.reading import Study, read_folder, with_skull
from common.study.summary import StudySummary, UsedModality, pictures, quality_warnings, volumes, write_summary

if TYPE_CHECKING:
    from common.study.dicom import Series

RESULTS = {"label map": "label.nii.gz", "DICOM SEG": "seg.dcm", "summary": "summary.html"}
LEAST_COVERED = 0.95
"""A series that shows less than this share of the reference's foreground is warned about."""
LITTLE_INFORMATION = 1.03
"""A registered series of less normalised mutual information is warned about: on the phantom, sequences of one subject
have 1.04 and more, those of two subjects about 1.01."""


@dataclass(frozen=True)
class Prediction:
    """What was made of a study.

    Attributes:
        label: label map on the reference's grid, in the cohort's values.
        reference: modality on whose grid the result lies.
        summary: what the page says.
        explanations: a line for everything found in the study.
        files: what they are -> where they lie.
    """

    label: nib.Nifti1Image
    reference: str
    summary: StudySummary
    explanations: list[str]
    files: dict[str, Path]


def predict(
    study: str | Path,
    output_dir: str | Path,
    bundle: str,
    series: Mapping[str, Any] | None = None,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    recipe: str | None = None,
    ckpt_path: str | None = None,
    device: str | None = None,
    skull_strip: bool = False,
) -> Prediction:
    """Segment a patient's study: DICOM series or NIfTI files of any non-empty subset of the modalities.

    Series are recognised, brought onto one grid of 1 mm over the reference's field of view, and given to the bundle's
    inference.json; the result is brought back onto the reference's own grid. Into ``output_dir`` go ``label.nii.gz``,
    ``seg.dcm`` (for DICOM, unless nothing was found) and ``summary.html``.

    Args:
        study: folder of one patient's files; see `read_folder`.
        output_dir: where the results go.
        bundle: name of a bundle, or its folder.
        series: modality -> SeriesNumber, for what is not recognised, or wrongly.
        modalities: use these only.
        reference: modality, or SeriesInstanceUID of the series used for it, on whose grid the result is wanted; by
            default T1c, else the finest.
        recipe: that the weights were trained with: a name in the bundle's ``configs/recipes``, or a file.
        ckpt_path: weights other than the bundle's own. Intervals and expected gains are those of an evaluation's
            ``intervals.csv`` and ``advice.csv`` if they lie beside the weights as ``<weights>_intervals.csv`` and
            ``<weights>_advice.csv``.
        device: e.g. ``cpu`` or ``cuda:1``; by default a GPU if there is one.
        skull_strip: strip the skull where there is one.

    Raises:
        OSError: a folder or file is not there or cannot be written.
        ValueError: the study, or what is asked for, cannot be used; nothing is written then.
        ImportError: a package for DICOM, registration or skull stripping is needed and not installed.
    """
    if Path(study).resolve() in (Path(output_dir).resolve(), *Path(output_dir).resolve().parents):
        raise ValueError(f"--output_dir {output_dir} lies in the study's folder; expected one elsewhere.")
    require_writable(output_dir)
    with tempfile.TemporaryDirectory() as folder:
        inference = Inference(bundle, recipe, ckpt_path, device, Path(folder))
        cohort = inference.cohort
        found = read_folder(study, cohort, modalities, series)
        chosen, why = choose_reference(found, reference)
        if found.series:
            _require_referable(found.series[chosen])  # before the long part
        aligned = to_one_grid(found.images, found.frames, chosen)
        skulls = with_skull(found, cohort)
        if skulls and skull_strip:
            aligned = _stripped(aligned, chosen, inference.device, Path(folder))
        label, probabilities = inference.run(aligned.images)
    grid = aligned.images[chosen]
    target = found.images[chosen]
    on_target = resample_label_to(label, grid.affine, target.affine, target.shape, cohort.labels.values.values())
    spacing = voxel_sizes(target.affine)
    measured = volumes(on_target, cohort.labels, spacing)
    subset = subset_name(found.images)
    warnings = [
        *inference.warnings,
        *_preparation(found, aligned, skulls, skull_strip, inference.spacing),
        *quality_warnings(label, probabilities, found.images, cohort.labels, voxel_sizes(grid.affine)),
        *found.warnings,
    ]
    summary = StudySummary(
        title=f"Segmentation from {display_subset(subset)}",
        bundle=inference.metadata["name"],
        version=inference.metadata["version"],
        trained_on=inference.trained_on,
        used=[
            UsedModality(name, found.sources[name], found.reasons[name], found.confidences[name])
            for name in found.images
        ],
        missing=[name for name in cohort.modalities if name not in found.images],
        volumes=measured,
        intervals=_intervals(inference.beside("intervals.csv"), subset, measured),
        gains=_gains(inference.beside("advice.csv"), subset),
        pictures=pictures(
            {name: np.asarray(image.dataobj) for name, image in aligned.images.items()},
            label,
            cohort.labels,
            voxel_sizes(grid.affine),
        ),
        warnings=warnings,
        notes=[
            f"The result lies on the grid of the {display_name(chosen)} ({found.sources[chosen]}), {why}.",
            *(registration.text + "." for registration in aligned.registered.values()),
        ],
    )
    result = nib.Nifti1Image(on_target, target.affine)
    result.header["descrip"] = "research only, not for clinical use"
    result.header.set_xyzt_units("mm")
    files = _write(Path(output_dir), result, summary, found, chosen, cohort, inference.software)
    return Prediction(result, chosen, summary, found.explanations, files)


def choose_reference(study: Study, asked: str | None = None) -> tuple[str, str]:
    """Return the modality on whose grid the result will lie, and why.

    Args:
        study: what is used.
        asked: a modality or the SeriesInstanceUID of a series; None: T1c if it is there, else the finest.

    Raises:
        ValueError: it is not among what is used.
    """
    if asked is not None:
        by_uid = {series.uid: name for name, series in study.series.items()}
        is_uid = asked.replace(".", "").isdecimal()
        name = by_uid.get(asked, "") if is_uid else canonical(asked)
        if name not in study.images:
            used = ", ".join(f"{display_name(name)} ({study.sources[name]})" for name in study.images)
            what = "this series is" if is_uid else f"{asked}:"  # a UID belongs into no message
            raise ValueError(f"--reference {what} not among what is used, {used}.")
        return name, "as asked for"
    if "t1c" in study.images:
        return "t1c", "as T1c is there"
    return finest(study.images), "the finest there is"


def _require_referable(series: Series) -> None:
    from common.study import dicom  # NIfTI needs none of its packages

    dicom.require_referable(series)


def _preparation(
    study: Study, aligned: AlignedStudy, skulls: Sequence[str], stripped: bool, trained: Sequence[float]
) -> Iterator[str]:
    """Yield what the images lack that the training data has."""
    if skulls:
        named = ", ".join(f"{display_name(name)} ({study.sources[name]})" for name in skulls)
        if stripped:
            yield f"{named}: not skull-stripped; the brain was cut out by HD-BET, look at the pictures."
        else:
            yield (
                f"{named}: not skull-stripped, and the network knows only brains with 0 around them: do not trust the "
                "result. Strip the skull first, or give --skull_strip."
            )
    for name, registration in aligned.registered.items():
        if registration.quality < LITTLE_INFORMATION:
            yield (
                f"{display_name(name)} ({study.sources[name]}) tells little about the reference after registration; "
                "look at the pictures whether it is of the same head, and in its place."
            )
    for name, share in aligned.covered.items():
        if share < LEAST_COVERED:
            yield (
                f"{display_name(name)} ({study.sources[name]}) shows only {share:.0%} of what the reference shows; the "
                "rest is empty in it."
            )
    for name, image in study.images.items():
        if said := coarse(image.affine, trained):
            yield f"{display_name(name)} ({study.sources[name]}): {said}."
    if said := tilted(next(iter(aligned.images.values())).affine):
        yield f"The reference: {said}."


def _stripped(aligned: AlignedStudy, reference: str, device: torch.device, folder: Path) -> AlignedStudy:
    """Return the volumes with 0 outside the brain, which HD-BET finds in the reference."""
    try:
        from brainles_preprocessing.brain_extraction import HDBetExtractor
    except ImportError as error:
        raise ModuleNotFoundError(
            "--skull_strip needs brainles-preprocessing, which is not installed: "
            "pip install 'missing-modality-bundles[skull_strip]'."
        ) from error
    whole, cut, mask = (folder / f"{name}.nii.gz" for name in ("whole", "cut", "mask"))
    nib.save(aligned.images[reference], whole)
    on_gpu = device.type == "cuda"
    HDBetExtractor().extract(
        whole,
        cut,
        mask,
        mode="accurate" if on_gpu else "fast",
        device=device.index or 0 if on_gpu else "cpu",
        do_tta=on_gpu,
    )
    brain = np.asarray(nib.load(mask).dataobj) > 0
    images = {
        name: nib.Nifti1Image(np.where(brain, image.dataobj, np.float32(0)), image.affine)
        for name, image in aligned.images.items()
    }
    return AlignedStudy(images, aligned.registered, aligned.covered)


def _intervals(
    table: pd.DataFrame | None, subset: str, measured: Mapping[str, float]
) -> dict[str, tuple[float, float, float]]:
    """Return the interval of each region's volume and its coverage, as far as calibration reached."""
    if table is None:
        return {}
    rows = [("case", subset, region, "volume", volume) for region, volume in measured.items()]
    bounds = volume_intervals(table, pd.DataFrame(rows, columns=COLUMNS))
    coverage = float(table["coverage"].iloc[0])
    return {row.region: (row.low, row.high, coverage) for row in bounds.itertuples() if np.isfinite(row.high)}


def _gains(table: pd.DataFrame | None, subset: str) -> dict[str, dict[str, float]]:
    """Return missing modality -> region -> Dice that it is expected to add."""
    gains: dict[str, dict[str, float]] = {}
    if table is not None:
        for row in table[table["modalities"] == subset].itertuples():
            gains.setdefault(row.modality, {})[row.region] = row.average
    return gains


def _write(
    folder: Path,
    label: nib.Nifti1Image,
    summary: StudySummary,
    study: Study,
    reference: str,
    cohort: Cohort,
    software: str,
) -> dict[str, Path]:
    """Write the results; a segmentation of an earlier run does not stay. Return what they are -> where."""
    voxels = np.asarray(label.dataobj)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        made = {what: Path(temporary, name) for what, name in RESULTS.items()}
        nib.save(label, made["label map"])
        write_summary(summary, made["summary"])
        if study.series and voxels.any():
            from common.study import dicom

            dicom.write_seg(made["DICOM SEG"], voxels, study.series[reference], cohort.labels.values, software)
        files = {what: folder / name for what, name in RESULTS.items()}
        for what, file in files.items():  # all are made by now
            if made[what].exists():
                made[what].replace(file)
            else:
                file.unlink(missing_ok=True)
    return {what: file for what, file in files.items() if file.exists()}
