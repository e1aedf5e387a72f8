"""Segmentation of a patient's study by a bundle or a trained nnU-Net, on the grid of one of its series."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np

from common.cohorts.cohort import Cohort
from common.io.atomic import written_whole
from common.io.files import replacing, require_writable
from common.modalities import ALIASES, LabelSet, canonical, display_name, resolve_subset
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import resample_label_to
from mmb.clinic.head.skull import Brain, brain_mask
from mmb.clinic.intake.folder import Source, StudyFiles
from mmb.clinic.intake.series import Series
from mmb.clinic.options import Options
from mmb.clinic.recognise.reading import Study, read_files, read_folder
from mmb.clinic.remark import Gravity, Remark, by_gravity
from mmb.clinic.report.document import write_document
from mmb.clinic.report.page import write_summary
from mmb.clinic.report.result import Asked, Refusal, StudySummary, summarise
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
    """The results for a study."""

    label: nib.Nifti1Image  # on the reference's grid, in the cohort's values
    reference: str  # modality on whose grid the result lies
    summary: StudySummary
    explanations: list[str]  # a line for everything found in the study
    used: dict[str, str]  # modality -> `Candidate.key` of its series or file
    files: dict[str, Path]  # kind of result -> path


def predict(
    study: Source, output_dir: str | Path, options: Options, explain: Callable[[list[str]], None] | None = None
) -> Prediction:
    """Segment a patient's study: DICOM series or NIfTI files of any non-empty subset of the modalities.

    Series are recognised, resampled to one grid of 1 mm over the reference's field of view, and passed to the bundle's
    inference.json or to nnU-Net; the result is resampled to the reference's own grid. ``output_dir`` gets the files of
    `RESULTS` (``seg.dcm`` and ``report.dcm`` for DICOM, unless nothing was drawn, the result is not to be used, or no
    SEG can reference the series), all or none. Raises StudyError if the study cannot be used; unless an earlier result
    lies there, ``summary.json`` then says why (`Refusal`). Raises ValueError for other options that cannot be used.

    ``study`` is a folder, or the image file of each modality. ``explain`` is called before the network runs, with a
    line for everything found in the study and what it is used as.
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
    cohort = inference.cohort
    try:
        read = _read(study, inference, options)
        inference = inference.using([*read.images])
    except StudyError as error:
        _write_refusal(error, study, Path(output_dir), inference, options)
        raise
    if explain:
        explain(read.explanations)
    aligned, brain, chosen = read.aligned, read.brain, read.reference
    segmentation = inference.run(aligned.cut_out(brain and brain.mask).images)
    target, affine, values = read.images[chosen], aligned.images[chosen].affine, cohort.labels.values
    voxels = resample_label_to(segmentation.label, affine, target.affine, target.shape, values.values())
    label = _in_mm(voxels, target.affine)
    label.header["descrip"] = "research only, not for clinical use"
    kept = _images(aligned, brain, segmentation, cohort) if options.keep_images else {}
    series = read.series.get(chosen)
    grid = f"The result lies on the grid of the {display_name(chosen)} ({read.sources[chosen]}), {read.why}."
    notes = [Remark("grid", Gravity.NOTE, grid, (chosen,))]
    with _folder(Path(output_dir), cohort) as made:
        nib.save(label, made["label map"])
        summary = summarise(label, segmentation, read, aligned, brain, inference, notes)
        asked, now = _asked(options, study, chosen, inference), datetime.now().astimezone()
        summary = replace(summary, label=options.label, created=now.isoformat(timespec="seconds"), asked=asked)
        if series and voxels.any():
            remarks = _write_dicom(made, np.asarray(label.dataobj), series, summary, cohort.labels, inference)
            summary = replace(summary, remarks=by_gravity([*summary.remarks, *remarks]))
        write_summary(summary, made["summary"])
        write_document(summary, made["JSON"])
        for name, image in kept.items():
            made["images"].mkdir(exist_ok=True)
            nib.save(image, made["images"] / f"{name}.nii.gz")
    files = {what: Path(output_dir, path.name) for what, path in made.items()}
    files = {what: file for what, file in files.items() if file.exists() and (kept or what != "images")}
    used = {name: each.candidate.key for name, each in read.used.items()}
    return Prediction(label, chosen, summary, read.explanations, used, files)


def _read(study: Source, inference: Predictor, options: Options) -> Study:
    """Read a study's images and assign them to the modalities that the network can use."""
    cohort, device, modalities, strip = inference.cohort, inference.device, options.modalities, options.skull_strip
    reference = options.reference
    if inference.subsets and len(inference.subsets) == 1:
        needed, wanted = inference.subsets[0], resolve_subset(modalities, cohort.modalities)
        modalities = needed if {*needed} <= {*wanted} else wanted
    if unknown := [name for name in cohort.modalities if name not in ALIASES]:
        raise StudyError(
            f"{inference.weights_name}: predict does not recognise the sequences {', '.join(unknown)} of {cohort.name} "
            "in a study. Prepare the images, and use the bundle's inference.json, or mmb.predictors.python.Bundle.",
            code="unknown_sequences",
        )
    if isinstance(study, Mapping):
        if options.site:
            raise StudyError.of(
                "--site", "the sequence of each of these image files is given; leave it out.", "site", code="option"
            )
        return read_files(study, cohort, modalities, reference, device, strip)
    return read_folder(study, cohort, modalities, options.series, reference, device, strip, options.site)


def _write_refusal(error: StudyError, study: Source, output_dir: Path, inference: Predictor, options: Options) -> None:
    """Write why a study is refused where its result would be; an earlier result stays whole."""
    if error.code == "option" or (output_dir / RESULTS["label map"]).exists():
        return
    made_by, asked = (
        (inference.method, inference.version, inference.weights_name),
        _asked(options, study, None, inference),
    )
    why = Refusal(error.code, error.public, error.about, error.found, asked, *made_by)
    output_dir.mkdir(parents=True, exist_ok=True)
    with replacing(output_dir / RESULTS["JSON"]) as path:
        write_document(why, path)


def _write_dicom(
    made: Mapping[str, Path],
    label: np.ndarray,
    series: Series,
    summary: StudySummary,
    labels: LabelSet,
    inference: Predictor,
) -> Iterator[Remark]:
    """Write SEG and SR, unless the result is not to be used; yield what they lack, or why they are not there."""
    from mmb.clinic.report.segmentation import write_seg  # imported here: NIfTI does not need its packages
    from mmb.clinic.report.structured_report import write_report

    made_by = inference.software, inference.weights_name
    try:
        if summary.stops:
            raise StudyError("the result is not to be used.")
        segments, lacks = write_seg(made["DICOM SEG"], label, series, labels.values, *made_by, summary=summary)
        write_report(made["DICOM SR"], made["DICOM SEG"], segments, summary, labels, series, *made_by)
        if lacks:
            yield Remark("seg_lacks", Gravity.NOTE, lacks)
    except StudyError as error:  # the label map is written nevertheless
        made["DICOM SEG"].unlink(missing_ok=True)
        yield Remark("no_seg", Gravity.WARNING, f"Nothing was written for an archive, neither SEG nor SR: {error}")


def _asked(options: Options, study: Source, reference: str | None, inference: Predictor) -> Asked:
    """Return what was asked for; a reference that was named by its SeriesInstanceUID is its modality, if known."""
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
        site=options.site.sha256 if options.site else None,
    )


def check_output(study: Source, output_dir: str | Path) -> None:
    """Refuse an output folder that lies in the study's or cannot be written."""
    output, place = Path(output_dir).resolve(), study.folder if isinstance(study, StudyFiles) else study
    if not isinstance(place, Mapping) and Path(place).resolve() in (output, *output.parents):
        what = "it lies in the study's folder; expected a folder outside it."
        raise StudyError.of(f"--output_dir {output_dir}", what, "The output folder", code="option")
    require_writable(output_dir)


@contextmanager
def _folder(folder: Path, cohort: Cohort) -> Iterator[dict[str, Path]]:
    """Yield kind of result -> path to write; in the end all are in the folder, and those of earlier runs are gone."""
    images = (*cohort.modalities, BRAIN_MASK, PROBABILITY.format("*"))  # also of another cohort's regions
    names = (*RESULTS.values(), *(f"{IMAGES}/{name}.nii.gz" for name in images))
    earlier = [path for name in names for path in folder.glob(name)]
    with written_whole(folder, earlier, last=RESULTS["summary"]) as temporary:
        yield {what: temporary / name for what, name in RESULTS.items()} | {"images": temporary / IMAGES}


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
