"""The structured report beside a SEG, as highdicom reads it back."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from mmb.clinic.dicom import read_series, write_report, write_seg
from mmb.clinic.dicom.phantom import write_studies

CLASSES = {"NCR": 1, "ED": 2, "ET": 4}


def test_measurements_refer_to_the_segments_of_the_seg(tmp_path):
    study = write_studies(tmp_path / "studies", 1) / "Phantom_001"
    series = next(series for series in read_series(study) if series.number == 5)
    label = np.zeros(series.shape, np.uint8)
    label[10:20, 10:20, 5], label[20:25, 10:20, 6] = 4, 2  # no necrosis: the enhancing tumour is segment 2
    seg, report = tmp_path / "seg.dcm", tmp_path / "report.dcm"
    assert write_seg(seg, label, series, CLASSES, "m3ae 1.0", "w") == ["ED", "ET"]
    ml = np.prod(series.spacing) / 1000
    regions = {"Whole tumour (WT)": (["NCR", "ED", "ET"], 150 * ml)}
    write_report(report, seg, {"ED": 50 * ml, "ET": 100 * ml}, regions, series, "m3ae 1.0", "w")

    document, source = hd.sr.srread(report), hd.seg.segread(seg)
    assert isinstance(document, hd.sr.Comprehensive3DSR)
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        assert document[name] == pydicom.dcmread(seg)[name]
    (series_item,) = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    (referenced,) = series_item.ReferencedSOPSequence
    assert referenced.ReferencedSOPInstanceUID == source.SOPInstanceUID
    groups = document.content.get_volumetric_roi_measurement_groups()
    for number, group in enumerate(groups, start=1):
        assert group.referenced_segment.referenced_sop_instance_uid == source.SOPInstanceUID
        assert group.referenced_segment.referenced_segment_numbers == [number]
        voxels = source.get_volume(segment_numbers=[number], combine_segments=False).array.sum()
        (measured,) = group.get_measurements(pydicom.sr.codedict.codes.SCT.Volume)
        assert (measured.value, measured.unit.value) == (pytest.approx(voxels * ml, abs=1e-3), "ml")
        assert group.tracking_identifier == source.get_segment_description(number).segment_label
    assert len(groups) == source.number_of_segments == 2
    (whole,) = document.content.get_image_measurement_groups()
    assert whole.tracking_identifier == "Whole tumour (WT): Oedema, Enhancing tumour"
    assert whole.source_images[0].referenced_sop_instance_uid == source.SOPInstanceUID
    assert whole.get_measurements()[0].value == pytest.approx(150 * ml, abs=1e-3)
