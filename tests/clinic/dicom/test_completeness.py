"""Series of which images are missing at an end, where no gap tells so; all are real files, of the phantom."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_studies import SPACE_FLAIR, T2_TSE, Scan, edit_series, write_study
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from common.cohorts.registry import PHANTOM
from mmb.clinic.intake.series import read_series
from mmb.clinic.recognise.reading import read_folder

T2 = Scan(2, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 6))
FLAIR = Scan(4, "flair", "t2_flair", SPACE_FLAIR, spacing=(6, 6, 6))


def put(name: str, value: object) -> Mapping[str, Any]:
    return {name: value}


def ge(dataset: Dataset, count: int) -> None:
    dataset.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SS", count)


def philips(dataset: Dataset, count: int) -> None:
    dataset.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x18, "SL", count)


def files(folder: Path, number: int = 2) -> list[Path]:
    """The files of a series from the lowest slice up."""
    return sorted((folder / f"{number:03d}").iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def cut(folder: Path, keep: slice = slice(0, 17)) -> int:
    """Delete the slices that are not kept; return how many there were."""
    whole = files(folder)
    for path in {*whole} - {*whole[keep]}:
        path.unlink()
    return len(whole)


def only(folder: Path, number: int = 2):
    (found,) = (series for series in read_series(folder) if series.number == number)
    return found


Told = Callable[[Dataset, int], None]
TELLS: dict[str, Told] = {
    "ImagesInAcquisition": lambda dataset, n: setattr(dataset, "ImagesInAcquisition", n),
    "ImagesInSeries": lambda dataset, n: setattr(dataset, "ImagesInSeries", n),
    "NumberOfSeriesRelatedInstances": lambda dataset, n: setattr(dataset, "NumberOfSeriesRelatedInstances", n),
    "GE's locations": ge,
    "Philips' number": philips,
}


@pytest.mark.parametrize("tell", TELLS)
@pytest.mark.parametrize("keep", [slice(0, 17), slice(8, None), slice(3, 20)], ids=["lower", "upper", "middle"])
def test_a_number_of_images_that_are_not_all_there(tmp_path, phantom_subject, tell, keep):
    write_study(tmp_path, phantom_subject, [T2])
    count = len(files(tmp_path))
    edit_series(tmp_path, 2, lambda dataset: TELLS[tell](dataset, count))
    assert only(tmp_path).problem is None
    cut(tmp_path, keep)
    problem, left = only(tmp_path).problem, len(files(tmp_path))
    assert problem is not None
    assert problem.startswith(f"{count - left} of its {count} images are missing ({tell}")
    with pytest.raises(ValueError, match=r"series 2 is the only T2 and cannot be used: \d+ of its"):
        read_folder(tmp_path, PHANTOM)


def test_what_is_derived_may_have_fewer_images(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [replace(T2, image_type=("DERIVED", "SECONDARY", "MPR"))])
    edit_series(tmp_path, 2, put("ImagesInAcquisition", 500))
    assert only(tmp_path).problem is None


@pytest.mark.parametrize("multiframe", [False, True])
def test_a_part_of_a_concatenation(tmp_path, phantom_subject, multiframe):
    write_study(tmp_path, phantom_subject, [replace(T2, multiframe=multiframe)])
    edit_series(tmp_path, 2, {"InConcatenationNumber": 1, "InConcatenationTotalNumber": 2})
    assert "part 2 of 2 of its concatenation is missing" in (only(tmp_path).problem or "")
    edit_series(tmp_path, 2, {"InConcatenationNumber": 1, "InConcatenationTotalNumber": 1})
    assert only(tmp_path).problem is None


@pytest.mark.parametrize("size", ["same", "other"])
def test_images_of_another_class_without_a_position(tmp_path, phantom_subject, size):
    write_study(tmp_path, phantom_subject, [T2])
    for path in files(tmp_path)[17:]:
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        if size == "other":  # a picture of the report, say
            dataset.Rows, dataset.Columns = dataset.Columns + 1, dataset.Rows
        dataset.save_as(path)
    problem = only(tmp_path).problem
    assert ("not of a class of MR images and do not state" in (problem or "")) == (size == "same")


@pytest.mark.parametrize(
    "pattern",
    ["t2_tse ({}/2)", "t2_tse [{}/2]", "t2_tse part {} of 2", "T2 Teil {}/2", "t2 partie {} de 2", "t2_tse ({} of 2)"],
)
def test_two_series_that_are_parts_of_one(tmp_path, phantom_subject, pattern):
    write_study(tmp_path, phantom_subject, [T2])
    for k, path in enumerate(files(tmp_path)):
        part, dataset = 1 + (k > 16), pydicom.dcmread(path)
        dataset.SeriesDescription, dataset.SeriesNumber = pattern.format(part), 1 + part
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID[:50]}.{part}"
        dataset.save_as(path)
    problems = [series.problem or "" for series in read_series(tmp_path)]
    assert ["it is part 1 of 2" in problems[0], "it is part 2 of 2" in problems[1]] == [True, True]
    for path in files(tmp_path)[17:]:
        path.unlink()
    assert "it is part 1 of 2" in (only(tmp_path).problem or "")


def test_repetitions_and_half_doses_are_no_parts(tmp_path, phantom_subject):
    write_study(
        tmp_path, phantom_subject, [replace(T2, description="t2 (1/2)"), replace(FLAIR, description="t2 (2/2)")]
    )
    assert [series.problem for series in read_series(tmp_path)] == [None, None]
    edit_series(tmp_path, 2, put("SeriesDescription", "t2 1/2 NEX"))
    assert only(tmp_path).problem is None


def test_the_only_one_of_several_parts_that_shows_a_whole_head_is_used_with_a_warning(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [replace(T2, description="t2 (1/2)")])
    assert only(tmp_path).problem is None
    (warning,) = (remark.text for remark in read_folder(tmp_path, PHANTOM).remarks)
    assert warning.startswith("series 2: by its description it is part 1 of 2 of a series")


def test_instance_numbers_that_begin_late_are_warned_of(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [T2])
    cut(tmp_path, slice(8, None))
    (warning,) = (remark.text for remark in read_folder(tmp_path, PHANTOM).remarks)
    assert warning.startswith("series 2: its InstanceNumbers begin at 9: if images before it were not exported")


def test_one_of_several_time_points_is_warned_of(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [T2])
    edit_series(tmp_path, 2, put("NumberOfTemporalPositions", 5))
    (warning,) = (remark.text for remark in read_folder(tmp_path, PHANTOM).remarks)
    assert "only one of its 5 time points is there" in warning
