"""Measured constants of DICOM series from both sides, their directions, and the codes of SEG and SR, by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_studies import read_series
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from common.modalities import tumour_labels
from mmb.clinic.examples.phantom import TSE
from mmb.clinic.examples.writing import mr_image
from mmb.clinic.intake.grouping import Slice, group
from mmb.clinic.intake.pixels import load
from mmb.clinic.intake.regular_grid import tolerance, unrounded, why_no_grid
from mmb.clinic.report.result import StudySummary, UsedModality
from mmb.clinic.report.segmentation import write_seg
from mmb.clinic.report.structured_report import write_report

COLUMNS, ROWS = 5, 4


def write(folder: Path, stored: np.ndarray, positions: Sequence[float] | None = None, **values: Any) -> Path:
    """Write an axial series of stored values ``(columns, rows, slices)``, with pixels of 1.5 x 2 mm."""
    folder.mkdir(exist_ok=True)
    for k, z in enumerate(8.0 * np.arange(stored.shape[2]) if positions is None else positions):
        dataset = mr_image("study", 3, k + 1, "t2_tse_tra", TSE)
        dataset.PatientName = dataset.PatientID = "No^Body"
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1.0, 0, 0, 0, 1, 0], [2.0, 1.5]
        dataset.ImagePositionPatient, dataset.SliceThickness = [10.0, 20, z], 8
        dataset.Rows, dataset.Columns = stored.shape[1::-1]
        dataset.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


def flat(slices: int) -> np.ndarray:
    return np.full((COLUMNS, ROWS, slices), 7, np.uint16)


@pytest.mark.parametrize(
    ("signed", "stored", "white"),
    [
        (0, [0, 1, 100, 4094, 4095], [4095, 4094, 3995, 1, 0]),
        (1, [-2048, -2047, -1, 0, 2047], [2047, 2046, 0, -1, -2048]),  # -1 - v: the smallest becomes the largest
    ],
)
def test_where_the_least_value_is_white_values_are_inverted_within_their_bits(tmp_path, signed, stored, white):
    voxels = np.tile(np.array(stored, np.int16 if signed else np.uint16)[:, None, None], (1, ROWS, 3))
    header = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed, "RescaleSlope": 0.5,
              "RescaleIntercept": -16}  # fmt: skip
    for kind, expected in (("MONOCHROME2", stored), ("MONOCHROME1", white)):
        (series,) = read_series(write(tmp_path / kind, voxels, PhotometricInterpretation=kind, **header))
        assert load(series).get_fdata()[:, 1, 1].tolist() == [0.5 * value - 16 for value in expected]


HEADER = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [5, 6], "Rows": 9, "Columns": 9}
AXIAL = np.array([[1.0, 0, 0], [0, 1, 0]])


def flaw(along: Sequence[float], sideways: Sequence[float] = (), axis: int = 0, **values: float) -> str | None:
    """Return why axial slices at these heights, which are shifted sideways, form no grid; pixels are of 6 x 5 mm."""
    header = Dataset()
    header.update(HEADER | {"SOPClassUID": MRImageStorage} | values)
    places = np.zeros((len(along), 3))
    places[:, 2], places[: len(sideways), axis] = along, sideways
    return why_no_grid(header, AXIAL, places, (6.0, 5.0))


GRID = 8.0 * np.arange(20)
ODD, ALTERNATING = 8.0 * np.arange(21), np.where(np.arange(21) % 2, 1.0, -1.0)


@pytest.mark.parametrize(
    ("along", "reason"),
    [
        (ODD + 0.128 * ALTERNATING, None),  # 0.05 mm for the rounding, and 1 % of 8 mm
        (ODD + 0.132 * ALTERNATING, "varies from 7.74 to 8.26 mm, and they lie up to 0.13 mm from a regular grid; "
                                    "expected at most 0.13"),
        (0.1 * ODD + 0.057 * ALTERNATING, None),  # and 1 % of 0.8 mm
        (0.1 * ODD + 0.059 * ALTERNATING, "expected at most 0.06"),
        (np.r_[GRID, GRID[-1] + 0.011], "varies from 0.01 to 8.00 mm"),
        (np.r_[GRID, GRID[-1] + 0.009], "1 of its 21 images lie at the position of another one"),
        (np.sort(np.r_[GRID, GRID + 0.009]), "each of its 20 slices is there 2 times"),
        (np.delete(GRID, [4, 5, 9]), "3 of 20 slices are missing, the first after slice 4"),
        (np.delete(GRID, [*range(1, 20)]), "a single slice"),
        (0 * GRID, "all of its 20 images have the same ImagePositionPatient"),
        (GRID + 0.01 * np.arange(20) ** 2, "mm from a regular grid"),  # gaps that differ little from the next
        *((np.round(gap * np.arange(20) - 7.04, 1), None) for gap in (0.7, 0.8333, 0.9375, 1.25, 3.3)),
        *((np.round(gap * np.delete(np.arange(20), 7), 1), "1 of 20 slices are missing, the first after slice 7")
          for gap in (0.8333, 1.25)),
        (GRID + 9999 - GRID[-1], None),
        (GRID + 10001 - GRID[-1], "over 10 m from the scanner's centre"),
    ],
)  # fmt: skip
def test_limits_of_a_regular_grid(along, reason):
    found = flaw(along)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (np.linspace(0, 2.45, 20), None),  # half of a pixel's smaller side is 2.5 mm
        (np.linspace(0, 2.55, 20), "tilted gantry"),
        (np.linspace(0, -2.55, 20), "tilted gantry"),
        (np.where(np.arange(20) == 7, 2.45, 0), None),
        (np.where(np.arange(20) == 7, -2.55, 0), "1 of its 20 slices lie beside the others, by up to 2.55 mm"),
    ],
)
def test_limits_of_a_block(axis, shift, reason):
    found = flaw(GRID, shift, axis)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("apart", "stated", "thickness", "times"),
    [
        (8, 4, 4, 2),  # every other one is there; a gap of half the distance is not what is stated
        (8, 4, 3, 2),
        (9, 3, 6, 0),  # the gap beside a thickness of 6 mm
        (9, 3, 5.9, 0),  # 0.14 mm are tolerated
        (9, 3, 5.8, 3),
        (9, 3, 3, 3),
        (12, 3, 9, 0),
        (8, 4.03, 4, 2),  # 1.985 times, up to 1 % less than 2
        (8, 4.05, 4, 0),  # 1.975 times
        (8, 8, 4, 0),
        (8, 16, 4, 0),
        (8, 0.005, 4, 0),
        (9, 3.02, 3, 3),  # 2.980
        (9, 3.04, 3, 0),  # 2.961
    ],
)
def test_a_stated_distance_says_whether_slices_are_missing_everywhere(apart, stated, thickness, times):
    found = flaw(apart * np.arange(20.0), SpacingBetweenSlices=stated, SliceThickness=thickness)
    assert found is None if not times else f"only one in {times} is present" in found


@pytest.mark.parametrize(("off", "exact"), [(0.0009, False), (0.0011, True), (0.019, True), (0.021, False)])
def test_directions_up_to_two_hundredths_off_are_made_exact(off, exact):
    found = unrounded(np.array([[1.0, 0, 0], [off, 1, 0]]), np.zeros((2, 3)))
    assert np.allclose(found @ found.T, np.eye(2), atol=1e-9) is exact


def test_positions_are_rounded_along_each_axis():
    assert tolerance(np.array([0.6, 0, -0.8]), 8.0) == pytest.approx(0.05 * 1.4 + 0.08)


@pytest.mark.parametrize(("height", "known"), [(24 - 1.9, True), (24 - 2.1, False), (24 + 1.9, True), (24 + 2.1, False),
                                               (20, False), (64, False), (-8, False), (-1.9, True), (-2.1, False),
                                               (56 + 1.9, True), (56 + 2.1, False)])  # fmt: skip
def test_an_image_of_another_class_lies_at_a_slice_up_to_a_quarter_of_their_distance(tmp_path, height, known):
    """Of slices 8 mm apart at 0 to 56 mm; where none lies, the series is only a part."""
    write(tmp_path / "study", flat(8))
    dataset = pydicom.dcmread(write(tmp_path / "other", flat(1), [height]) / "000.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(tmp_path / "study" / "other.dcm")
    (series,) = read_series(tmp_path / "study")
    assert series.problem is None if known else "1 of its slices are not of a class of MR images" in series.problem


def pieces(along: Sequence[float], **values: Any) -> list[Slice]:
    """Return axial slices in memory."""
    made = []
    for z in along:
        header = Dataset()
        header.update(HEADER | {"SOPClassUID": MRImageStorage, "SeriesInstanceUID": "1.2", "SeriesNumber": 3,
                                "ImageType": ["ORIGINAL", "PRIMARY"], "FrameOfReferenceUID": "1.3",
                                "EchoTime": 98, "RepetitionTime": 5000, "FlipAngle": 150,
                                "ImagePositionPatient": [0, 0, float(z)]} | values)  # fmt: skip
        made.append(Slice(Path(f"{z} {values}"), None, header))
    return made


DERIVED = {"ImageType": ["DERIVED", "PRIMARY"]}


@pytest.mark.parametrize(
    ("values", "differ", "joined"),
    [
        ({"EchoTime": 98.04}, (), True),  # alike
        ({"EchoTime": 98.06}, ("EchoTime",), True),
        ({"EchoTime": 99.02}, ("EchoTime",), True),  # 1 % of 98 ms and 0.05 ms
        ({"EchoTime": 99.04}, ("EchoTime",), False),
        (DERIVED | {"RepetitionTime": 5050}, ("ImageType", "RepetitionTime"), True),
        (DERIVED | {"RepetitionTime": 5051}, ("ImageType", "RepetitionTime"), False),
        (DERIVED | {"FlipAngle": 151.5}, ("ImageType", "FlipAngle"), True),
        (DERIVED | {"FlipAngle": 151.6}, ("ImageType", "FlipAngle"), False),
        (DERIVED | {"InversionTime": 0.04}, ("ImageType", "InversionTime"), True),  # none is 0
        (DERIVED | {"InversionTime": 0.06}, ("ImageType", "InversionTime"), False),
        (DERIVED | {"PixelSpacing": [5.0009, 6]}, ("ImageType",), True),
        (DERIVED | {"PixelSpacing": [5.0011, 6]}, ("ImageType", "PixelSpacing"), False),
        (DERIVED | {"EchoTime": None}, ("ImageType", "EchoTime"), True),  # not known, so no other one
    ],
)
def test_limits_of_what_two_halves_of_a_volume_may_differ_in(values, differ, joined):
    (volume,) = group([*pieces(8.0 * np.arange(12)), *pieces(8.0 * np.arange(12, 20), **values)])
    assert (len(volume.slices), volume.differ, volume.problem is None) == (20, differ, joined)
    assert [piece.header.ImagePositionPatient[2] for piece in volume.slices] == [8.0 * k for k in range(20)]


@pytest.mark.parametrize(
    ("gap", "volumes"),
    [
        (8, 1),
        (15.5, 1),  # no multiple of the distance of 8 mm, but they continue each other: at most two distances
        (16.5, 2),
        (48, 1),  # five slices are missing between: fewer than a part has
        (56, 1),
        (64, 2),
    ],
)
def test_limits_of_the_gap_between_the_parts_of_a_volume(gap, volumes):
    lower, upper = 8.0 * np.arange(7), 48 + gap + 8.0 * np.arange(7)
    assert len(group([*pieces(lower), *pieces(upper, **DERIVED)])) == volumes


def test_a_volume_is_described_by_its_largest_original_part():
    original, smaller = pieces(8.0 * np.arange(4, 9)), pieces(8.0 * np.arange(9, 12), FrameOfReferenceUID="1.4")
    (volume,) = group([*pieces(8.0 * np.arange(4), **DERIVED), *pieces(8.0 * np.arange(12, 20), **DERIVED), *smaller,
                       *original])  # fmt: skip
    assert (volume.parts, volume.differ) == (3, ("FrameOfReferenceUID", "ImageType"))
    assert volume.first is original[0]


@pytest.mark.parametrize(("degrees", "volumes"), [(40, 1), (50, 2)])
def test_slices_of_one_plane_differ_by_up_to_45_degrees(degrees, volumes):
    """Those of another plane are a volume of their own, and not the rest of one."""
    turn = np.radians(degrees)
    tilted = {"ImageOrientationPatient": [1, 0, 0, 0, np.cos(turn), np.sin(turn)]}
    assert len(group([*pieces(8.0 * np.arange(12)), *pieces(8.0 * np.arange(12, 20), **tilted)])) == volumes


VALUES = {"NCR": 1, "ED": 2, "NET": 3, "ET": 4}
CODES = {
    "NCR": ("Necrotic core", "SCT 6574001", None),
    "ED": ("Oedema", "SCT 79654002", None),
    "NET": ("Non-enhancing tumour", "SCT 108369006", "NCIt C81175"),
    "ET": ("Enhancing tumour", "SCT 108369006", "NCIt C113842"),
}
"""Class -> segment label, type and its modifier: enhancing and non-enhancing tumour have one type."""
SIZES = {"NCR": 3, "ED": 10, "NET": 2, "ET": 5}


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Mapping[str, Any]:
    """A SEG with all classes and its report, of a series with voxels of 0.024 ml."""
    folder = tmp_path_factory.mktemp("reported")
    (series,) = read_series(write(folder / "study", flat(6)))
    label = np.zeros(series.shape, np.uint8)
    for k, (name, count) in enumerate(SIZES.items()):
        label[..., k].flat[:count] = VALUES[name]
    classes, volumes = {name: 0.024 * count for name, count in SIZES.items()}, {"WT": 0.48, "TC": 0.24, "ET": 0.12}
    used = [UsedModality("t2", "series 3", "header")]
    summary = StudySummary("A report", "m3ae", "1.0", "none", used, volumes, classes=classes)
    write_seg(folder / "seg.dcm", label, series, VALUES, "m3ae 1.0", summary=summary)
    labels = tumour_labels(**VALUES)
    write_report(folder / "report.dcm", folder / "seg.dcm", [*SIZES], summary, labels, series, "m3ae 1.0")
    return {"series": series, "label": label, "seg": folder / "seg.dcm", "report": folder / "report.dcm"}


def code(item: Dataset) -> str:
    return f"{item.CodingSchemeDesignator} {item.CodeValue}"


def test_codes_of_all_classes_in_the_seg(reported):
    segments = pydicom.dcmread(reported["seg"]).SegmentSequence
    described = {}
    for segment in segments:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        modifiers = [code(each) for each in kind.get("SegmentedPropertyTypeModifierCodeSequence", [])]
        described[segment.SegmentLabel] = (code(kind), *modifiers)
    assert described == {label: tuple(filter(None, each)) for label, *each in CODES.values()}


def test_codes_titles_and_volumes_of_all_classes_in_the_report(reported):
    content = hd.sr.srread(reported["report"]).content
    groups = content.get_volumetric_roi_measurement_groups()
    found = {}
    for each in groups:
        shown = [code(one.value) for one in each.get_qualitative_evaluations(codes.SCT.AssociatedMorphology)]
        (measured,) = each.get_measurements(codes.SCT.Volume)
        found[each.tracking_identifier] = (code(each.finding_type), *shown, round(measured.value, 3))
    assert found == {
        label: (kind, *filter(None, [modifier]), round(0.024 * SIZES[name], 3))
        for name, (label, kind, modifier) in CODES.items()
    }
    assert [each.referenced_segment.referenced_segment_numbers for each in groups] == [[1], [2], [3], [4]]
    seg, document = pydicom.dcmread(reported["seg"]), hd.sr.srread(reported["report"])
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        assert document[name] == seg[name]
    whole, core = content.get_image_measurement_groups()
    parts = [*(each.referenced_segment for each in groups), *whole.source_images, *core.source_images]
    assert {each.referenced_sop_instance_uid for each in parts} == {seg.SOPInstanceUID}
    title, classes = whole.tracking_identifier.split(": ")
    assert (title, classes.split(", ")) == ("Whole tumour (WT)", [label for label, *_ in CODES.values()])
    assert core.tracking_identifier == "Tumour core (TC): Necrotic core, Non-enhancing tumour, Enhancing tumour"
    assert [round(each.get_measurements()[0].value, 3) for each in (whole, core)] == [0.48, 0.24]
    assert {code(each.finding_type) for each in (whole, core)} == {"SCT 108369006"}
