"""DICOM structured reports with the volumes of a DICOM SEG: Measurement Report, TID 1500 of DICOM PS3.16.

Each segment has a group of measurements (TID 1411), which refers to it. Regions of several segments have one each
(TID 1501), which refers to the SEG as a whole. The modifier of a segment's type, which tells enhancing from
non-enhancing tumour, is the finding's associated morphology, since the templates have no modifier of a type.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from common.io.files import replacing
from mmb.clinic.intake.series import Series
from mmb.clinic.report.segmentation import CLASSES, explained

DESCRIPTION = "Tumour volumes, research only, not for clinical use"
MR_BRAIN = Code("24590-2", "LN", "MR Brain")
MILLILITRE = Code("ml", "UCUM", "ml")


def write_report(
    path: str | Path,
    seg: str | Path,
    segments: Mapping[str, float],
    regions: Mapping[str, tuple[Sequence[str], float]],
    reference: Series,
    software: str,
    weights: str | None = None,
) -> None:
    """Write the volumes of a SEG as a Comprehensive 3D SR; patient and study are those of the SEG.

    Args:
        path: file to write; an existing file is replaced atomically.
        seg: the SEG, as `write_seg` wrote it.
        segments: class -> volume in ml, in the order of the SEG's segments.
        regions: name of a region -> its classes, and its volume in ml.
        reference: the series that was segmented.
        software: name and version of the program that made it, e.g. ``m3ae 0.1.0``.
        weights: name and SHA-256 of the weights; None without a network.
    """
    segmentation = pydicom.dcmread(seg)
    name, _, version = software.rpartition(" ")
    image = segmentation.SOPClassUID, segmentation.SOPInstanceUID
    algorithm = sr.AlgorithmIdentification(name or software, version, parameters=weights and [f"weights: {weights}"])
    with explained(reference, "SR"):
        source, whole = sr.SourceSeriesForSegmentation(reference.uid), [sr.SourceImageForMeasurementGroup(*image)]
        groups: list[Any] = []
        for number, (each, millilitres) in enumerate(segments.items(), start=1):
            segment = sr.ReferencedSegment(*image, number, source_series=source)
            shared = _group(*CLASSES[each], millilitres, algorithm)
            groups.append(sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared))
        for region, (classes, millilitres) in regions.items():
            title = f"{region}: {', '.join(CLASSES[each][0] for each in segments if each in classes)}"
            shared = _group(title, codes.SCT.Neoplasm, None, millilitres, algorithm)
            groups.append(sr.MeasurementsAndQualitativeEvaluations(source_images=whole, **shared))
        made_by: dict[str, Any] = {"manufacturer_name": "missing-modality-bundles", "model_name": name or software}
        observer = sr.DeviceObserverIdentifyingAttributes(uid=hd.UID(), **made_by)
        context = sr.ObserverContext(codes.DCM.Device, observer)
        report = sr.Comprehensive3DSR(
            evidence=[segmentation],
            content=sr.MeasurementReport(
                observation_context=sr.ObservationContext(observer_device_context=context),
                procedure_reported=MR_BRAIN,
                imaging_measurements=groups,
                title=codes.DCM.ImagingMeasurementReport,
            ),
            series_instance_uid=hd.UID(),
            series_number=segmentation.SeriesNumber + 1,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="missing-modality-bundles",
            manufacturer_model_name=name or software,
            software_versions=version,
            series_description=DESCRIPTION,
            is_complete=True,
        )
        with replacing(path) as temporary:
            report.save_as(temporary)


def _group(
    title: str, kind: Code, modifier: Code | None, millilitres: float, algorithm: sr.AlgorithmIdentification
) -> dict[str, Any]:
    """Return what all groups have in common."""
    shown = [sr.QualitativeEvaluation(codes.SCT.AssociatedMorphology, modifier)] if modifier else None
    return {
        "tracking_identifier": sr.TrackingIdentifier(hd.UID(), title),
        "finding_type": kind,
        "finding_sites": [sr.FindingSite(codes.SCT.Brain)],
        "algorithm_id": algorithm,
        "qualitative_evaluations": shown,
        "measurements": [sr.Measurement(name=codes.SCT.Volume, value=round(millilitres, 3), unit=MILLILITRE)],
    }
