"""Segmentation of a patient's study with a bundle's inference.json, on the grid of one of its series."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes

from clinic.study.alignment import AlignedStudy, align, turn_upright
from clinic.study.appearance import contradiction_warnings, reassign_by_image
from clinic.study.grid import resample_label_to, volume_of
from clinic.study.inference import Inference, Segmentation
from clinic.study.looking import judge_images
from clinic.study.page import StudySummary, UsedModality, pictures, write_summary
from clinic.study.quality import brain_mask, brain_note, gains, intervals, result_warnings, upright_note, volumes
from clinic.study.reading import Study, choose_reference, read_folder
from clinic.study.skull import MODES, Brain, find_brain
from common.cohorts.cohort import Cohort
from common.evaluation.analysis.reliability import VOLUMES
from common.evaluation.metrics.case import expected_dice
from common.io import require_writable
from common.io.atomic import written_whole
from common.io.facts import unseen
from common.io.files import is_dicom
from common.io.settings import check_choice
from common.modalities import canonical, display_name, display_subset, resolve_subset, subset_name
from common.transforms.decision import DECISIONS

NO_SEG = "No DICOM SEG was written"  # beginning of the note on a series that no DICOM SEG can reference
RESULTS = {"label map": "label.nii.gz", "DICOM SEG": "seg.dcm", "summary": "summary.html"}


@dataclass(frozen=True)
class Prediction:
    """The results for a study.

    Attributes:
        label: label map on the reference's grid, in the cohort's values.
        reference: modality on whose grid the result lies.
        explanations: a line for everything found in the study.
        files: kind of result -> path.
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
    skull_strip: str = "auto",
    upright: bool = False,
    decision: str | None = None,
    explain: Callable[[list[str]], None] | None = None,
) -> Prediction:
    """Segment a patient's study: DICOM series or NIfTI files of any non-empty subset of the modalities.

    Series are recognised, resampled to one grid of 1 mm over the reference's field of view, and passed to the bundle's
    inference.json; the result is resampled to the reference's own grid. ``output_dir`` gets ``label.nii.gz``,
    ``seg.dcm`` (for DICOM, unless nothing was found or no SEG can reference the series) and ``summary.html``. Raises
    ValueError if the study or an option cannot be used; nothing is written then.

    The arguments are the options of the verb ``predict``, which `tools.predict` describes. Intervals and expected gains
    come from an evaluation's ``intervals.csv`` and ``advice.csv``, if these lie beside the weights as
    ``<weights>_intervals.csv`` and ``<weights>_advice.csv``. ``explain`` is called with a line for everything found in
    the study, before later steps can fail.
    """
    check_options(study, output_dir, skull_strip, decision)
    with TemporaryDirectory() as folder:
        inference = Inference(bundle, recipe, ckpt_path, device, Path(folder), decision)
        return segment(study, output_dir, inference, series, modalities, reference, skull_strip, upright, explain)


def segment(
    study: str | Path,
    output_dir: str | Path,
    inference: Inference,
    series: Mapping[str, Any] | None = None,
    modalities: Sequence[str] | None = None,
    reference: str | None = None,
    skull_strip: str = "auto",
    upright: bool = False,
    explain: Callable[[list[str]], None] | None = None,
) -> Prediction:
    """Segment a study as `predict` does, with a bundle that is loaded already."""
    found = read_folder(study, inference.cohort, modalities, series, inference.device)
    if explain:
        explain(found.explanations)
    prepared = _prepare(found, reference, skull_strip, inference)
    found, renamed = reassign_by_image(
        found,
        prepared.judged,
        inference.cohort,
        _allowed(inference.cohort, modalities, series),
        [prepared.reference] if reference else [],
    )
    if renamed:  # the reference may change, and messages contain the names of the sequences
        prepared = _prepare(found, reference and renamed.get(prepared.reference, reference), skull_strip, inference)
    chosen, why, aligned, brain, judged = prepared
    can_refer, seg_note = _can_refer(found, chosen)
    contradictions = [*contradiction_warnings(found, judged)]
    if upright:
        if found.skulls and brain is None:
            raise ValueError(
                "--upright needs the brain alone, but --skull_strip no keeps the head; leave out one of the two."
            )
        aligned, mask = turn_upright(aligned, chosen, brain and brain.mask)
        brain = brain and replace(brain, mask=mask)
    segmentation = inference.run(aligned.cut_out(brain and brain.mask).images)
    label = _on_grid_of(found.images[chosen], segmentation.label, aligned.images[chosen].affine, inference.cohort)
    grid_note = f"The result lies on the grid of the {display_name(chosen)} ({found.sources[chosen]}), {why}."
    notes = [grid_note, *([seg_note] if seg_note else []), *found.notes]
    summary = _summarise(label, segmentation, found, aligned, brain, inference, contradictions, notes)
    files = _write(Path(output_dir), label, summary, found, chosen if can_refer else None, inference)
    return Prediction(label, chosen, summary, found.explanations, files)


class _Prepared(NamedTuple):
    """A study on one grid: the reference, why it was chosen, the brain if extracted, the result of `judge_images`."""

    reference: str
    why: str
    aligned: AlignedStudy
    brain: Brain | None
    judged: dict[str, torch.Tensor]


def _prepare(study: Study, reference: str | None, skull_strip: str, inference: Inference) -> _Prepared:
    """Align a study on one grid, extract the brain if needed, and judge the content of the images."""
    chosen, why = choose_reference(study, reference)
    aligned = align(study.images, study.frames, chosen)
    heads = {"auto": study.skulls, "yes": list(study.images), "no": []}[skull_strip]
    brain = find_brain(aligned, heads, inference.cohort.brain_ml, inference.device) if heads else None
    hidden = study.skulls and brain is None  # the content of a brain within a head cannot be judged
    return _Prepared(chosen, why, aligned, brain, {} if hidden else judge_images(aligned, brain, inference.cohort))


def _allowed(cohort: Cohort, modalities: Sequence[str] | None, series: Mapping[str, Any] | None) -> list[str]:
    """Return the modalities that may be used: those asked for, without those left out by hand."""
    left_out = {canonical(str(name)) for name, number in (series or {}).items() if number is None}
    return [name for name in resolve_subset(modalities, cohort.modalities) if name not in left_out]


def check_options(study: str | Path, output_dir: str | Path, skull_strip: str, decision: str | None) -> None:
    """Refuse unknown options, and an output folder that belongs to a study or cannot be written."""
    check_choice("--skull_strip", skull_strip, MODES)
    if decision is not None:
        check_choice("--decision", decision, DECISIONS)
    output = Path(output_dir).resolve()
    if Path(study).resolve() in (output, *output.parents):
        raise ValueError(f"--output_dir {output_dir} lies in the study's folder; expected a folder outside it.")
    for path in (*output.glob("*"), *output.glob("*/*")):
        if path.name not in RESULTS.values() and path.is_file() and is_dicom(path) and not _is_seg(path):
            raise ValueError(f"--output_dir {output_dir} holds DICOM files of a study; expected a folder for results.")
    require_writable(output_dir)


def _is_seg(path: Path) -> bool:
    """Return whether a DICOM file is a segmentation, such as an archived one; False without the packages for DICOM."""
    try:
        from clinic.dicom.headers import texts_of_file
    except ImportError:
        return False
    return texts_of_file(path, "Modality") == ["SEG"]


def _can_refer(study: Study, reference: str) -> tuple[bool, str | None]:
    """Return whether a DICOM SEG can reference the series, and a note on that, or None."""
    if not study.series:
        return False, None
    from clinic import dicom  # imported here, since NIfTI does not need its packages

    try:
        return True, dicom.require_referable(study.series[reference])
    except ValueError as error:  # the label map can be written nevertheless
        return False, f"{NO_SEG}: {error}"


def _on_grid_of(target: nib.Nifti1Image, label: np.ndarray, affine: np.ndarray, cohort: Cohort) -> nib.Nifti1Image:
    """Return a label map with the given affine, resampled to the grid of an image."""
    voxels = resample_label_to(label, affine, target.affine, target.shape, cohort.labels.values.values())
    image = nib.Nifti1Image(voxels, target.affine)
    image.header["descrip"] = "research only, not for clinical use"
    image.header.set_xyzt_units("mm")
    return image


def _summarise(
    label: nib.Nifti1Image,
    segmentation: Segmentation,
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    inference: Inference,
    contradictions: Sequence[str],
    notes: Sequence[str],
) -> StudySummary:
    """Return the contents of the page; ``label`` lies on the reference's grid, which the first of ``notes`` names."""
    labels, subset = inference.cohort.labels, subset_name(study.images)
    spacing = voxel_sizes(next(iter(aligned.images.values())).affine)
    if VOLUMES[inference.decision] == "volume":
        measured = volumes(label, labels)
        volume_note = ""
    else:
        volume_note = "Volumes are sums of probabilities; where the network is unsure, outlines hold more."
        sums = segmentation.probabilities.sum(axis=(1, 2, 3), dtype=np.float64) * spacing.prod() / 1000
        measured = dict(zip(labels.regions, sums.tolist(), strict=True))
    sure = [
        expected_dice(p, mask, float(p.sum(dtype=np.float64)))
        for p, mask in zip(segmentation.probabilities, segmentation.masks, strict=True)
    ]
    return StudySummary(
        title=f"Segmentation from {display_subset(subset)}",
        bundle=inference.method,
        version=inference.metadata["version"],
        weights=inference.weights_name,
        trained_on=inference.trained_on,
        used=[
            UsedModality(name, study.sources[name], study.reasons[name], study.confidences[name])
            for name in study.images
        ],
        missing=[name for name in inference.cohort.modalities if name not in study.images],
        volumes=measured,
        volume_note=volume_note,
        expected_dice=dict(zip(labels.regions, sure, strict=True)),
        intervals=intervals(
            inference.intervals, subset, measured, volume_of(brain_mask(aligned, brain), spacing), inference.decision
        ),
        gains=gains(inference.advice, subset),
        pictures=pictures(
            {name: np.asarray(image.dataobj) for name, image in aligned.images.items()},
            segmentation.masks,
            spacing,
            brain and brain.mask,
        ),
        brain_ml=brain and brain.millilitres,
        warnings=[
            *contradictions,
            *inference.warnings,
            *filter(None, [unseen(list(study.images), inference.seen)]),
            *result_warnings(study, aligned, brain, segmentation, inference.cohort, inference.spacing),
        ],
        notes=[
            *notes,
            *([brain_note(study, brain)] if brain else []),
            *dict.fromkeys(registration.text + "." for registration in aligned.registered.values()),
            *([upright_note(aligned.upright)] if aligned.upright else []),
        ],
    )


def _write(
    folder: Path,
    label: nib.Nifti1Image,
    summary: StudySummary,
    study: Study,
    referred: str | None,
    inference: Inference,
) -> dict[str, Path]:
    """Write the results, with a SEG if there is a series to refer to, and remove those of an earlier run."""
    voxels, files = np.asarray(label.dataobj), {what: folder / name for what, name in RESULTS.items()}
    with written_whole(folder, earlier=files.values(), last=RESULTS["summary"]) as temporary:
        made = {what: temporary / name for what, name in RESULTS.items()}
        nib.save(label, made["label map"])
        write_summary(summary, made["summary"])
        if referred and voxels.any():
            from clinic import dicom

            values, made_by = inference.cohort.labels.values, (inference.software, inference.weights_name)
            dicom.write_seg(made["DICOM SEG"], voxels, study.series[referred], values, *made_by)
    return {what: file for what, file in files.items() if file.exists()}
