"""No part of a volume passes for a whole: parts are joined, or refused together with what they differ in."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_studies import T2_TSE, Scan, edit, read_series, write_study
from pydicom.uid import EnhancedMRImageStorage, SecondaryCaptureImageStorage, generate_uid

from mmb.clinic.intake.pixels import load

WHOLE = Scan(3, "t2", "t2_tse", T2_TSE, "axial", (5, -3, 4), (6, 6, 8))
UPPER, LOWER, ODD, EDGES = slice(11, None), slice(0, 12), slice(1, None, 2), slice(None, None, 19)


@pytest.fixture(scope="module")
def written(tmp_path_factory, phantom_subject):
    folder = tmp_path_factory.mktemp("study")
    return folder, write_study(folder, phantom_subject, [WHOLE])[0]


@pytest.fixture
def study(tmp_path, written) -> Path:
    return shutil.copytree(written[0], tmp_path / "study")


def files(study: Path) -> list[Path]:
    return sorted((study / "003").iterdir())


def mark(study: Path, which: slice | Sequence[int], **values: object) -> None:
    """Set attributes of some slices; a function makes a value for each."""
    paths = files(study)[which] if isinstance(which, slice) else [files(study)[k] for k in which]
    for path in paths:
        edit(path, lambda one: one.update({name: make() if callable(make) else make for name, make in values.items()}))


DERIVED = {"ImageType": ["DERIVED", "SECONDARY", "M"]}  # limits of numbers that differ are in test_dicom_numbers
JOINED = {
    "defaced": DERIVED,
    "marked as phase": {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
    "frame of reference": {"FrameOfReferenceUID": "1.2.3"},
    "no frame of reference": {"FrameOfReferenceUID": ""},
    "frames of reference": {"FrameOfReferenceUID": generate_uid},
    "b-value": {"DiffusionBValue": 0.0},
}
REFUSED = {
    "series": ({"SeriesInstanceUID": "1.2.3"}, "its 20 images have 2 different SeriesInstanceUIDs"),
    "echo time": ({"EchoTime": 12}, "2 parts that differ in EchoTime, and they do not make up one volume"),
    "diffusion": ({"DiffusionBValue": 1000.0}, "2 parts that differ in DiffusionBValue"),
    "rows": ({"Rows": 39}, "2 parts that differ in Rows"),
    "columns": ({"Columns": 39}, "2 parts that differ in Columns"),
    "turned": ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "2 parts that differ in ImageOrientationPatient"),
}


@pytest.mark.parametrize(
    ("name", "which"),
    [
        *((name, which) for name in (*JOINED, *REFUSED) for which in (UPPER, ODD)),
        ("defaced", LOWER),
        ("series", EDGES),
    ],
)
def test_an_attribute_that_differs_in_some_slices(written, study, name, which):
    values, refusal = REFUSED.get(name, (JOINED.get(name), None))
    mark(study, which, **values)
    (series,) = read_series(study)
    if refusal:
        assert re.search(refusal, series.problem)
        return
    assert series.problem is None
    assert series.header.ImageType[0] == "ORIGINAL"  # it decides whether the volume is a reformatted one
    np.testing.assert_array_equal(load(series).get_fdata(), written[1].get_fdata())
    np.testing.assert_allclose(series.affine, written[1].affine, atol=1e-6)


def drop(study: Path, *numbers: int) -> None:
    for k in sorted(numbers, reverse=True):
        files(study)[k].unlink()


def again(study: Path, **values: object) -> None:
    """Add the whole volume once more."""
    for path in files(study):
        copy = Path(shutil.copy(path, path.with_stem(f"z{path.stem}")))
        edit(copy, lambda one: one.update({"SOPInstanceUID": generate_uid(), **values}))


def halves_twice(study: Path) -> None:
    again(study, ImageType=["ORIGINAL", "PRIMARY", "R"])
    mark(study, slice(31, 40), ImageType=["DERIVED", "SECONDARY", "R"])


def up(study: Path) -> None:
    for path in files(study)[UPPER]:
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        edit(path, lambda one, place=(x, y, z + 4): one.update({"ImagePositionPatient": [*place]}))


def overlapping(study: Path) -> None:
    mark(study, UPPER, ImageType=["ORIGINAL", "PRIMARY", "M"])
    again(study, **DERIVED)
    drop(study, *range(14, 29))


IN_PARTS = {
    "1 of 20 slices are missing": lambda study: drop(study, 15),
    "4 of 20 slices are missing": lambda study: drop(study, 9, 10, 11, 12),
    "5 of its 25 images lie at the position of another one": overlapping,
    "the distance between its slices varies": up,
    "each of its 20 slices is there 2 times": halves_twice,
}


@pytest.mark.parametrize("why", IN_PARTS)
def test_parts_that_are_no_volume_are_refused_in_one_line(study, why):
    mark(study, UPPER, **DERIVED)
    IN_PARTS[why](study)
    (series,) = read_series(study)
    assert re.search(rf"it consists of \d parts that differ in ImageType, .*{why}", series.problem)


def test_whole_volumes_of_one_series_stay_apart(study):
    """Echoes, or magnitude and phase; a second echo that lacks its last slices is judged by itself."""
    again(study, ImageType=["ORIGINAL", "PRIMARY", "P"])
    assert [one.problem for one in read_series(study)] == [None, None]
    drop(study, 38, 39)
    assert [(one.shape[2], one.problem) for one in read_series(study)] == [(20, None), (18, None)]


def test_each_echo_is_joined_by_itself(study, written):
    again(study, EchoTime=12)
    mark(study, [*range(11, 20), *range(31, 40)], **DERIVED)
    series = read_series(study)
    assert {one.header.EchoTime for one in series} == {12, 98}
    for one in series:
        np.testing.assert_array_equal(load(one).get_fdata(), written[1].get_fdata())


OTHER_SERIES = DERIVED | {"SeriesInstanceUID": "1.2.3", "SeriesNumber": 103}
CAPTURE = {"SOPClassUID": SecondaryCaptureImageStorage}


@pytest.mark.parametrize(
    ("which", "values", "why"),
    [
        (UPPER, OTHER_SERIES, "its 20 images have 2 different SeriesI"),
        (slice(None), {"SeriesInstanceUID": generate_uid}, "each of its 20 images has a SeriesInstanceUID of its own"),
        (UPPER, CAPTURE, "9 of its slices are not of a class of MR images"),
        (ODD, CAPTURE, "10 of its slices are not of a class of MR images|only one in 2 is present"),
    ],
)
def test_images_of_another_series_or_class(study, which, values, why):
    mark(study, which, **values)
    (series,) = read_series(study)
    assert re.search(why, series.problem)


def test_what_drifts_is_named(study):
    for k in range(20):
        mark(study, [k], EchoTime=98 + 0.02 * k)
    (series,) = read_series(study)
    assert (series.problem, series.differ) == (None, ("EchoTime",))


def test_each_file_has_a_study_of_its_own(study):
    mark(study, slice(None), StudyInstanceUID=generate_uid)
    with pytest.raises(ValueError, match="each of the 20 MR images has a StudyInstanceUID of its own; give"):
        read_series(study)


def test_two_series_of_one_number_that_are_whole(study):
    again(study, SeriesInstanceUID="1.2.3")
    assert [one.problem for one in read_series(study)] == [None, None]


def split_frames(study: Path, parts: int) -> None:
    """Write the frames of a multi-frame image into several files, alternately."""
    (path,) = files(study)
    whole = pydicom.dcmread(path)
    frames, pixels = [*whole.PerFrameFunctionalGroupsSequence], whole.pixel_array
    path.unlink()
    for k in range(parts):
        whole.PerFrameFunctionalGroupsSequence = frames[k::parts]
        whole.NumberOfFrames = len(frames[k::parts])
        whole.PixelData = np.ascontiguousarray(pixels[k::parts]).tobytes()
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        whole.save_as(path.with_stem(f"{k:03d}"))


@pytest.mark.parametrize("parts", [20, 7, 2], ids=["one slice each", "few", "halves"])
def test_multiframe_files_that_make_up_a_volume(tmp_path, phantom_subject, parts):
    (expected,) = write_study(tmp_path, phantom_subject, [replace(WHOLE, multiframe=True, reverse=True)])
    split_frames(tmp_path, parts)
    (series,) = read_series(tmp_path)
    assert series.header.SOPClassUID == EnhancedMRImageStorage
    assert (series.problem, len(series.files)) == (None, 20)
    np.testing.assert_array_equal(load(series).get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(series.affine, expected.affine, atol=1e-6)


def test_single_frames_and_a_multiframe_file_that_make_up_a_volume(tmp_path, phantom_subject, written):
    write_study(tmp_path, phantom_subject, [replace(WHOLE, multiframe=True)])
    split_frames(tmp_path, 2)
    files(tmp_path)[1].unlink()
    for path in files(written[0])[1::2]:
        shutil.copy(path, tmp_path / "003" / f"single_{path.name}")
        edit(tmp_path / "003" / f"single_{path.name}", lambda one: one.update({"SOPInstanceUID": generate_uid()}))
    (series,) = read_series(tmp_path)
    assert series.problem is None
    np.testing.assert_array_equal(load(series).get_fdata(), written[1].get_fdata())
