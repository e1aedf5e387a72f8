"""A DICOM SEG lies on the grid of its source, voxel for voxel, with the right attributes."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_studies import MPRAGE, PATIENT, Scan, edit_series, read_back, read_series, resample, write_study
from pydicom.uid import JPEG2000Lossless, SegmentationStorage

from common.cohorts.registry import COHORTS
from mmb.clinic.report import segmentation
from mmb.clinic.report.formats import class_phrase
from mmb.clinic.report.segmentation import write_seg
from mmb.errors import silence_libraries

CLASSES = {"ED": 2, "NCR": 1, "ET": 4}
SCAN = Scan(5, "t1c", "t1_mprage_KM", MPRAGE, "sagittal", (4, -3, 5), (3, 3.5, 4))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory, phantom_subject):
    """A series, its label map, and the SEG written for it."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, phantom_subject, [SCAN])
    (series,) = read_series(folder)
    label = label_of(phantom_subject, series)
    path = folder / "results" / "seg.dcm"
    written = write_seg(path, label, series, CLASSES, "m3ae 0.1.0", "own.pt, SHA-256 12ab")
    assert written == (["ED", "NCR", "ET"], None)
    return series, label, path


def label_of(phantom_subject: Path, series) -> np.ndarray:
    reference = nib.load(next(phantom_subject.glob("*_seg.nii.gz")))
    label = resample(reference, series.affine, series.shape, order=0).astype(np.uint8)
    assert set(np.unique(label)) == {0, 1, 2, 4}
    return label


def per_frame_orientation(dataset) -> None:
    """Store orientation and pixel size with each frame, as Philips and Siemens do."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del shared.PlaneOrientationSequence, shared.PixelMeasuresSequence


def jitter(dataset) -> None:
    """Vary the digits of the orientation between images."""
    values = np.array(dataset.ImageOrientationPatient, float) + 1e-7 * dataset.InstanceNumber
    dataset.ImageOrientationPatient = [float(f"{value:.9f}") for value in values]


@pytest.mark.parametrize(
    ("change", "then"),
    [
        ({}, None),
        ({"reverse": True}, None),
        ({"plane": "axial", "tilt": (10, 20, -15)}, None),
        ({"plane": "coronal"}, None),
        ({"transfer_syntax": JPEG2000Lossless}, None),
        ({}, jitter),
        ({"multiframe": True}, None),
        ({"multiframe": True, "reverse": True}, None),
        ({"multiframe": True, "reverse": True}, per_frame_orientation),
    ],
)
def test_every_voxel_lies_where_it_should(tmp_path, phantom_subject, change, then):
    write_study(tmp_path, phantom_subject, [replace(SCAN, **change)])
    if then:
        edit_series(tmp_path, 5, then)
    (series,) = read_series(tmp_path)
    label = label_of(phantom_subject, series)
    occurring, _ = write_seg(tmp_path / "seg.dcm", label, series, CLASSES, "m3ae 0.1.0")
    values = np.array([0, *(CLASSES[name] for name in occurring)])
    np.testing.assert_array_equal(values[read_back(tmp_path / "seg.dcm", series)], label)


def test_a_class_has_one_name():
    assert all(label.lower() == class_phrase(name) for name, (label, *_) in segmentation.CLASSES.items())
    glioma = [cohort.labels for cohort in COHORTS.values() if "WT" in cohort.labels.regions]
    assert {name for labels in glioma for name in labels.values} == segmentation.CLASSES.keys()


def test_segments(segmented):
    """Their codes are in test_dicom_numbers."""
    seg = hd.seg.segread(segmented[2])
    described = [seg.get_segment_description(number) for number in seg.segment_numbers]
    assert [one.segment_label for one in described] == ["Oedema", "Necrotic core", "Enhancing tumour"]
    for one in described:
        assert one.segmented_property_category.value == "49755003"
        assert one.AnatomicRegionSequence[0].CodeValue == "12738006"
        assert (one.SegmentAlgorithmType, one.SegmentAlgorithmName) == ("AUTOMATIC", "m3ae")
        algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == "0.1.0"
        assert "own.pt, SHA-256 12ab" in algorithm.AlgorithmParameters


@pytest.mark.parametrize("present", [("ED",), ("ET",), ("NCR", "ET")], ids="+".join)
def test_labels_follow_the_classes_that_occur(tmp_path, segmented, present):
    """If only oedema occurs, segment 1 is oedema, not the first class of a list."""
    series, label, _ = segmented
    some = np.where(np.isin(label, [CLASSES[name] for name in present]), label, 0)
    occurring, _ = write_seg(tmp_path / "seg.dcm", some, series, {"NCR": 1, "ED": 2, "ET": 4}, "m3ae 0.1.0")
    assert occurring == list(present)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert list(seg.segment_numbers) == list(range(1, len(present) + 1))
    labels = [segmentation.CLASSES[name][0] for name in present]
    assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == labels
    for number, name in enumerate(present, start=1):
        np.testing.assert_array_equal(read_back(tmp_path / "seg.dcm", series) == number, some == CLASSES[name])


def test_attributes(segmented):
    series, label, path = segmented
    seg = pydicom.dcmread(path)
    assert seg.SOPClassUID == seg.file_meta.MediaStorageSOPClassUID == SegmentationStorage
    assert (seg.Modality, seg.SegmentationType, seg.BitsAllocated, seg.SeriesNumber) == ("SEG", "BINARY", 1, 1005)
    assert seg.FrameOfReferenceUID == series.frame_of_reference
    assert "research only, not for clinical use" in seg.SeriesDescription
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber"):
        assert seg[keyword].value == series.header[keyword].value
    assert seg.PatientID == PATIENT["PatientID"]
    assert seg.SeriesInstanceUID != series.uid
    (referred,) = seg.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == series.uid
    sources = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in series.files}
    assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == sources
    frames = sum((label[:, :, k] == value).any() for k in range(label.shape[2]) for value in CLASSES.values())
    assert seg.NumberOfFrames == frames == len(seg.PerFrameFunctionalGroupsSequence)


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Ä"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("", "SECRETNAME")],
)
def test_names_are_written_unchanged_and_nowhere_else(tmp_path, phantom_subject, capfd, recwarn, caplog, charset, name):
    write_study(tmp_path, phantom_subject, [SCAN])
    edit_series(tmp_path, 5, {"SpecificCharacterSet": charset, "PatientName": name})
    silence_libraries()
    with caplog.at_level(logging.DEBUG):
        (series,) = read_series(tmp_path)
        write_seg(tmp_path / "seg.dcm", label_of(phantom_subject, series), series, CLASSES, "m3ae 0.1.0")
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == name
    assert "1.2." not in caplog.text  # highdicom writes UIDs to the log
    said = f"{capfd.readouterr()} {caplog.text} {[str(warning.message) for warning in recwarn]}".casefold()
    assert not [part for part in re.split(r"\W", name.casefold()) if len(part) > 1 and part in said]


def test_what_cannot_be_referred_to_is_said(segmented, tmp_path):
    series, label, _ = segmented
    for wrong, message in [
        ({"frame_of_reference": ""}, "no frame of"),
        ({"problem": "1 slice is missing"}, "1 slice"),
        ({"differ": ("FrameOfReferenceUID",)}, "different frames of reference"),
        ({"multiframe": True}, "several multi-frame files"),
    ]:
        with pytest.raises(ValueError, match=rf"series 5 cannot be referenced .* {message}"):
            write_seg(tmp_path / "seg.dcm", label, replace(series, **wrong), CLASSES, "m3ae 0.1.0")


def test_refusals_leave_nothing(tmp_path, segmented):
    series, label, _ = segmented
    empty = np.zeros_like(label)
    strange = label.copy()
    strange[0, 0, 0] = 7
    for wrong, reference, classes, message in [
        (empty, series, CLASSES, "series 5: the segmentation is empty"),
        (label[1:], series, CLASSES, r"expected integers of shape \(80, 45, 60\)"),
        (label.astype(np.float32), series, CLASSES, "type float32; expected integers"),
        (strange, series, CLASSES, r"label values \[7\] have no class"),
        (label, series, {"scar": 1}, "class scar has no code; expected some of NCR, ED, NET, ET, CC, RC"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_seg(tmp_path / "seg.dcm", wrong, reference, classes, "m3ae 0.1.0")
    assert list(tmp_path.iterdir()) == []
