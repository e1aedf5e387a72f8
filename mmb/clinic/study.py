"""Segmentation of a patient's study by a bundle or a trained nnU-Net, on the grid of one of its series."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.cohorts.cohort import Cohort
from common.io.atomic import written_whole
from common.io.files import require_writable
from common.modalities import ALIASES, canonical, display_name, resolve_subset
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import resample_label_to
from mmb.clinic.head.skull import Brain, agreed, brain_mask
from mmb.clinic.intake.folder import Source, StudyFiles
from mmb.clinic.options import Options
from mmb.clinic.recognise.reading import Study, align_and_assign, read_files, read_folder
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.document import write_document
from mmb.clinic.report.page import write_summary
from mmb.clinic.report.result import Asked, StudySummary, summarise
from mmb.errors import StudyError
from mmb.predictors.bundle import load_predictor
from mmb.predictors.protocol import Predictor, Segmentation

RESULTS = {
    "label map": "label.nii.gz",
    "DICOM SEG": "seg.dcm",
    "DICOM SR": "report.dcm",
    "summary": "summary.html",
    "JSON": "summary.json",
}
IMAGES = "images"
"""Subfolder of the images that are kept on request."""
BRAIN_MASK, PROBABILITY = "brain_mask", "probability_{}"


@dataclass(frozen=True)
class Prediction:
    """The results for a study.

    Attributes:
        label: label map on the reference's grid, in the cohort's values.
        reference: modality on whose grid the result lies.
        explanations: a line for everything found in the study.
        files: kind of result -> path.
        no_seg: why no DICOM SEG can reference the series; empty if one can, or if there is none.
    """

    label: nib.Nifti1Image
    reference: str
    summary: StudySummary
    explanations: list[str]
    files: dict[str, Path]
    no_seg: str = ""


def predict(
    study: Source, output_dir: str | Path, options: Options, explain: Callable[[list[str]], None] | None = None
) -> Prediction:
    """Segment a patient's study: DICOM series or NIfTI files of any non-empty subset of the modalities.

    Series are recognised, resampled to one grid of 1 mm over the reference's field of view, and passed to the bundle's
    inference.json or to nnU-Net; the result is resampled to the reference's own grid. ``output_dir`` gets the files of
    `RESULTS` (``seg.dcm`` and ``report.dcm`` for DICOM, unless nothing was found or no SEG can reference the series),
    all or none. Raises ValueError if the study or an option cannot be used; nothing is written then.

    ``study`` is a folder, or the image file of each modality. ``explain`` is called before the network runs, with a
    line for everything found in the study and what it is used as; if the images cannot be aligned, with what headers
    say.
    """
    check_output(study, output_dir)
    return segment(study, output_dir, load_predictor(*options.network, options.decision), options, explain)


def segment(
    study: Source,
    output_dir: str | Path,
    inference: Predictor,
    options: Options,
    explain: Callable[[list[str]], None] | None = None,
) -> Prediction:
    """Segment a study as `predict` does, with a predictor that is loaded already."""
    cohort, device, modalities, strip = inference.cohort, inference.device, options.modalities, options.skull_strip
    if inference.subsets and len(inference.subsets) == 1:
        needed, wanted = inference.subsets[0], resolve_subset(modalities, cohort.modalities)
        modalities = needed if {*needed} <= {*wanted} else wanted
    if unknown := [name for name in cohort.modalities if name not in ALIASES]:
        raise StudyError(
            f"{inference.weights_name}: predict does not recognise the sequences {', '.join(unknown)} of {cohort.name} "
            "in a study. Prepare the images, and use the bundle's inference.json, or mmb.predictors.python.Bundle."
        )
    if isinstance(study, Mapping):
        read = read_files(study, cohort, modalities, device, strip)
    else:
        read = read_folder(study, cohort, modalities, options.series, device, strip)
    try:
        read, chosen, why = align_and_assign(read, options.reference, device, strip)
    finally:  # only now it is known what is used as what; if this fails, the headers' reading tells which images failed
        if explain:
            explain(read.explanations)
    inference = inference.using([*read.images])
    aligned, brain = _prepared(read, chosen, strip, cohort)
    seg_note, no_seg = _referred(read.series.get(chosen))
    segmentation = inference.run(aligned.cut_out(brain and brain.mask).images)
    target, affine, values = read.images[chosen], aligned.images[chosen].affine, cohort.labels.values.values()
    voxels = resample_label_to(segmentation.label, affine, target.affine, target.shape, values)
    label = _in_mm(voxels, target.affine)
    label.header["descrip"] = "research only, not for clinical use"
    grid_note = f"The result lies on the grid of the {display_name(chosen)} ({read.sources[chosen]}), {why}."
    notes = [Remark("grid", Gravity.NOTE, grid_note, (chosen,))]
    notes += [Remark("seg_reference", Gravity.NOTE, seg_note)] if seg_note else []
    notes += [Remark("no_seg", Gravity.NOTE, no_seg)] if no_seg else []
    summary = summarise(label, segmentation, read, aligned, brain, inference, notes)
    asked, now = _asked(options, study, chosen, inference), datetime.now().astimezone().isoformat(timespec="seconds")
    summary = replace(summary, label=options.label, created=now, asked=asked)
    kept = _images(aligned, brain, segmentation, cohort) if options.keep_images else {}
    files = _write(Path(output_dir), label, summary, read, None if no_seg else chosen, inference, kept)
    return Prediction(label, chosen, summary, read.explanations, files, no_seg)


def _asked(options: Options, study: Source, reference: str, inference: Predictor) -> Asked:
    """Return what was asked for; a reference that was named by its SeriesInstanceUID is its modality."""
    series = {canonical(str(name)): None if key is None else str(key) for name, key in (options.series or {}).items()}
    return Asked(
        recipe=options.recipe and Path(options.recipe).name,
        device=str(inference.device),
        decision=inference.decision,
        series=series,
        files=[*map(canonical, study)] if isinstance(study, Mapping) else [],
        modalities=resolve_subset(options.modalities, inference.cohort.modalities),
        reference=None if options.reference is None else reference,
        skull_strip=options.skull_strip,
    )


def _prepared(study: Study, reference: str, skull_strip: str, cohort: Cohort) -> tuple[AlignedStudy, Brain | None]:
    """Return the images that are used, by their modalities and on the reference's grid, and the brain in them.

    The images were aligned before it was decided which of them are used, so the brain is that on which those agree.
    """
    if study.evidence is None:
        raise ValueError("The images were not looked at; expected a study that `align_and_assign` returns.")
    evidence, brain, names = study.evidence, None, {each.candidate.name: name for name, each in study.used.items()}
    aligned = evidence.aligned.renamed(names)
    masks = evidence.masks and evidence.masks.renamed(names)
    if masks and masks.heads and skull_strip != "no":
        brain = agreed(aligned, masks, cohort.brain_ml)
    if study.used[reference].candidate.name != evidence.reference:
        aligned, mask = aligned.on_grid_of(reference, study.images[reference].affine, brain and brain.mask)
        brain = None if brain is None or mask is None else replace(brain, mask=mask)
    return aligned, brain


def _referred(series: Any) -> tuple[str | None, str]:
    """Return a note on how a DICOM SEG references a series, or None; and why none can, or an empty text."""
    if series is None:
        return None, ""
    from mmb.clinic.report.segmentation import require_referable  # imported here: NIfTI does not need its packages

    try:
        return require_referable(series), ""
    except ValueError as error:  # the label map can be written nevertheless
        return None, f"No DICOM SEG was written: {error}"


def check_output(study: Source, output_dir: str | Path) -> None:
    """Refuse an output folder that lies in the study's or cannot be written."""
    output, place = Path(output_dir).resolve(), study.folder if isinstance(study, StudyFiles) else study
    if not isinstance(place, Mapping) and Path(place).resolve() in (output, *output.parents):
        what = "it lies in the study's folder; expected a folder outside it."
        raise StudyError.of(f"--output_dir {output_dir}", what, "The output folder")
    require_writable(output_dir)


def _write(
    folder: Path,
    label: nib.Nifti1Image,
    summary: StudySummary,
    study: Study,
    referred: str | None,
    inference: Predictor,
    kept: Mapping[str, nib.Nifti1Image],
) -> dict[str, Path]:
    """Write the results, with a SEG if there is a series to refer to, and remove those of an earlier run."""
    voxels, files = np.asarray(label.dataobj), {what: folder / name for what, name in RESULTS.items()}
    cohort = inference.cohort
    images = (*cohort.modalities, BRAIN_MASK, *map(PROBABILITY.format, cohort.labels.regions))
    earlier = [*files.values(), *(folder / IMAGES / f"{name}.nii.gz" for name in images)]
    with written_whole(folder, earlier, last=RESULTS["summary"]) as temporary:
        made = {what: temporary / name for what, name in RESULTS.items()}
        nib.save(label, made["label map"])
        write_summary(summary, made["summary"])
        write_document(summary, made["JSON"])
        for name, image in kept.items():
            (temporary / IMAGES).mkdir(exist_ok=True)
            nib.save(image, temporary / IMAGES / f"{name}.nii.gz")
        if referred in study.series and voxels.any():
            from mmb.clinic.report.segmentation import write_seg
            from mmb.clinic.report.structured_report import write_report

            series, made_by = study.series[referred], (inference.software, inference.weights_name)
            segments = write_seg(made["DICOM SEG"], voxels, series, cohort.labels.values, *made_by)
            volumes = {name: summary.classes[name] for name in segments}
            joined = {row.heading: (cohort.labels.regions[row.region], row.volume) for row in summary.rows()}
            joined = {name: each for name, each in joined.items() if len(each[0]) > 1}
            write_report(made["DICOM SR"], made["DICOM SEG"], volumes, joined, series, *made_by)
    files |= {"images": folder / IMAGES} if kept else {}
    return {what: file for what, file in files.items() if file.exists()}


def _images(
    aligned: AlignedStudy, brain: Brain | None, segmentation: Segmentation, cohort: Cohort
) -> dict[str, nib.Nifti1Image]:
    """Return what the network saw and said, on its grid; each name is that of the file to write."""
    affine = next(iter(aligned.images.values())).affine
    voxels = {name: np.asarray(image.dataobj, np.float32) for name, image in aligned.images.items()}
    voxels[BRAIN_MASK] = brain_mask(aligned, brain).astype(np.uint8)
    for region, p in zip(cohort.labels.regions, segmentation.probabilities, strict=True):
        voxels[PROBABILITY.format(region)] = p.astype(np.float32).round(3)  # else 15 MB each
    return {name: _in_mm(each, affine) for name, each in voxels.items()}


def _in_mm(voxels: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    return image
