"""DICOM structured reports with the volumes of a DICOM SEG: Measurement Report, TID 1500 of DICOM PS3.16.

Each segment has a group of measurements (TID 1411), which refers to it. Regions of several classes, or of which nothing
was drawn, have one each (TID 1501), which refers to the SEG as a whole. The modifier of a segment's type, which tells
enhancing from non-enhancing tumour, or the region, is the finding's associated morphology, since the templates have no
modifier of a type. Each group has the page's verdict as a qualitative evaluation in codes of our own, and its volume
the page's interval as its upper and lower uncertainty. A text at the root has the page's answer. The report is PARTIAL
if a region is not reliable.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from common.io.files import replacing
from common.modalities import LabelSet, display_name
from mmb.clinic.intake.series import Series
from mmb.clinic.report.result import StudySummary
from mmb.clinic.report.segmentation import CLASSES, SCHEME, explained, series_description
from mmb.clinic.report.verdicts import UNRELIABLE, WORDS, Verdict

DESCRIPTION = "volumes, research only, not for clinical use"
MR_BRAIN = Code("24590-2", "LN", "MR Brain")
MILLILITRE = Code("ml", "UCUM", "ml")
VERDICT = Code("verdict", SCHEME, "How far the outline can be used")
VERDICTS = {
    word: Code(value, SCHEME, word) for word, value in zip(WORDS, ("usable", "doubtful", "not_reliable"), strict=True)
}


def write_report(
    path: str | Path,
    seg: str | Path,
    segments: Sequence[str],
    summary: StudySummary,
    labels: LabelSet,
    reference: Series,
    software: str,
    weights: str | None = None,
) -> None:
    """Write what a summary says of a SEG as a Comprehensive 3D SR; patient and study are those of the SEG.

    Args:
        path: file to write; an existing file is replaced atomically.
        seg: the SEG, as `write_seg` wrote it.
        segments: classes of the SEG's segments, in their order.
        summary: volumes in ml, verdicts and intervals of classes and regions, and the answer.
        labels: classes of each region.
        reference: the series that was segmented.
        software: name and version of the program that made it, e.g. ``m3ae 0.1.0``.
        weights: name and SHA-256 of the weights; None without a network.
    """
    segmentation = pydicom.dcmread(seg)
    name, _, version = software.rpartition(" ")
    image = segmentation.SOPClassUID, segmentation.SOPInstanceUID
    algorithm = sr.AlgorithmIdentification(name or software, version, parameters=weights and [f"weights: {weights}"])
    rows = {row.region: row for row in summary.rows()}
    with explained(reference, "SR"):
        source, whole = sr.SourceSeriesForSegmentation(reference.uid), [sr.SourceImageForMeasurementGroup(*image)]
        groups: list[Any] = []
        for number, each in enumerate(segments, start=1):
            segment = sr.ReferencedSegment(*image, number, source_series=source)
            same = next((row for region, row in rows.items() if labels.regions[region] == (each,)), None)
            interval, verdict = same and same.interval, summary.class_verdicts.get(each)
            shared = _group(*CLASSES[each], summary.classes[each], interval, verdict, algorithm)
            groups.append(sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared))
        for region, row in rows.items():
            classes = [each for each in segments if each in labels.regions[region]]
            if len(labels.regions[region]) > 1 or not classes:
                title = ": ".join([row.heading, *filter(None, [", ".join(CLASSES[each][0] for each in classes)])])
                kind = codes.SCT.Neoplasm, Code(region, SCHEME, row.heading)
                shared = _group(title, *kind, row.volume, row.interval, row.verdict, algorithm)
                groups.append(sr.MeasurementsAndQualitativeEvaluations(source_images=whole, **shared))
        made_by: dict[str, Any] = {"manufacturer_name": "missing-modality-bundles", "model_name": name or software}
        observer = sr.DeviceObserverIdentifyingAttributes(uid=hd.UID(), **made_by)
        context = sr.ObserverContext(codes.DCM.Device, observer)
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=context),
            procedure_reported=MR_BRAIN,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        said = sr.TextContentItem(codes.DCM.Conclusion, _conclusion(summary), sr.RelationshipTypeValues.CONTAINS)
        content[0].ContentSequence.append(said)
        report = sr.Comprehensive3DSR(
            evidence=[segmentation],
            content=content,
            series_instance_uid=hd.UID(),
            series_number=segmentation.SeriesNumber + 1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="missing-modality-bundles",
            manufacturer_model_name=name or software,
            software_versions=version,
            series_description=series_description(summary, DESCRIPTION),
            is_complete=all(verdict.word != UNRELIABLE for verdict in summary.verdicts.values()),
        )
        scheme = pydicom.Dataset()
        scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "missing-modality-bundles"
        report.CodingSchemeIdentificationSequence = [scheme]
        with replacing(path) as temporary:
            report.save_as(temporary)


def _conclusion(summary: StudySummary) -> str:
    """Return the answer, and which sequences it comes from and lacks."""
    used = ", ".join(display_name(each.modality) for each in summary.used)
    missing = f"; missing: {', '.join(map(display_name, summary.missing))}" if summary.missing else ""
    return f"{summary.answer} Segmented from {used}{missing}. Research only, not for clinical use."


def _group(
    title: str,
    kind: Code,
    modifier: Code | None,
    millilitres: float,
    interval: tuple[float, float] | None,
    verdict: Verdict | None,
    algorithm: sr.AlgorithmIdentification,
) -> dict[str, Any]:
    """Return what all groups have in common."""
    evaluations = [sr.QualitativeEvaluation(codes.SCT.AssociatedMorphology, modifier)] if modifier else []
    evaluations += [sr.QualitativeEvaluation(VERDICT, VERDICTS[verdict.word])] if verdict else []
    uncertainty = None
    if interval:
        lower, upper = (round(abs(end - millilitres), 3) for end in interval)
        uncertainty = sr.MeasurementProperties(upper_measurement_uncertainty=upper, lower_measurement_uncertainty=lower)
        for item in uncertainty:  # highdicom leaves them without a unit
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [hd.sr.CodedConcept.from_code(MILLILITRE)]
    volume = sr.Measurement(codes.SCT.Volume, round(millilitres, 3), MILLILITRE, properties=uncertainty)
    return {
        "tracking_identifier": sr.TrackingIdentifier(hd.UID(), title),
        "finding_type": kind,
        "finding_sites": [sr.FindingSite(codes.SCT.Brain)],
        "algorithm_id": algorithm,
        "qualitative_evaluations": evaluations or None,
        "measurements": [volume],
    }
