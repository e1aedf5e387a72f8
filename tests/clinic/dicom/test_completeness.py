"""Series of which images are missing at an end, where no gap tells so; all are real files, of the phantom."""

import shutil
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from dicom_studies import SPACE_FLAIR, T2_TSE, Scan, edit_series, files, read_series, write_study
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.reading import read_folder

T2 = Scan(2, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 6))
FLAIR = Scan(4, "flair", "t2_flair", SPACE_FLAIR, spacing=(6, 6, 6))


TELLS = {
    "ImagesInAcquisition": lambda one, count: one.update({"ImagesInAcquisition": count}),
    "ImagesInSeries": lambda one, count: one.update({"ImagesInSeries": count}),
    "NumberOfSeriesRelatedInstances": lambda one, count: one.update({"NumberOfSeriesRelatedInstances": count}),
    "GE's locations": lambda one, count: private(one, 0x0021, "GEMS_RELA_01", 0x4F, "SS", count),
    "Philips' number": lambda one, count: private(one, 0x2001, "Philips Imaging DD 001", 0x18, "SL", count),
}


def private(dataset: Dataset, group: int, creator: str, element: int, vr: str, value: int) -> None:
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)


@pytest.fixture
def study(tmp_path, phantom_subject) -> Path:
    write_study(tmp_path, phantom_subject, [T2])
    return tmp_path


def cut(folder: Path, keep: slice) -> None:
    """Delete the slices that are not kept."""
    whole = files(folder, 2)
    for path in {*whole} - {*whole[keep]}:
        path.unlink()


def problem_of(folder: Path) -> str:
    """Return what is said of the only series."""
    (series,) = read_series(folder)
    return series.problem or ""


@pytest.mark.parametrize(
    ("tell", "keep"),
    [
        *((tell, slice(0, 17)) for tell in TELLS),  # the lower ones
        ("ImagesInSeries", slice(8, None)),
        ("ImagesInSeries", slice(3, 20)),
    ],
)
def test_a_number_of_images_that_are_not_all_there(study, tell, keep):
    count = len(files(study, 2))
    edit_series(study, 2, lambda dataset: TELLS[tell](dataset, count))
    assert not problem_of(study)
    cut(study, keep)
    lacking = count - len(files(study, 2))
    assert problem_of(study).startswith(f"{lacking} of its {count} images are missing ({tell}")
    with pytest.raises(ValueError, match=r"series 2 is the only T2 and cannot be used: \d+ of its"):
        read_folder(study, PHANTOM)


def test_what_is_derived_may_have_fewer_images(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [replace(T2, image_type=("DERIVED", "SECONDARY", "MPR"))])
    edit_series(tmp_path, 2, {"ImagesInAcquisition": 500})
    assert not problem_of(tmp_path)


@pytest.mark.parametrize("multiframe", [False, True])
def test_a_part_of_a_concatenation(tmp_path, phantom_subject, multiframe):
    write_study(tmp_path, phantom_subject, [replace(T2, multiframe=multiframe)])
    edit_series(tmp_path, 2, {"InConcatenationNumber": 1, "InConcatenationTotalNumber": 2})
    assert "part 2 of 2 of its concatenation is missing" in problem_of(tmp_path)
    edit_series(tmp_path, 2, {"InConcatenationNumber": 1, "InConcatenationTotalNumber": 1})
    assert not problem_of(tmp_path)


@pytest.mark.parametrize("size", ["same", "other"])
def test_images_of_another_class_without_a_position(study, size):
    for path in files(study, 2)[17:]:
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        if size == "other":  # a picture of the report, say
            dataset.Rows, dataset.Columns = dataset.Columns + 1, dataset.Rows
        dataset.save_as(path)
    assert ("not of a class of MR images and do not state" in problem_of(study)) == (size == "same")


@pytest.mark.parametrize(
    "pattern",
    ["t2_tse ({}/2)", "t2_tse [{}/2]", "t2_tse part {} of 2", "T2 Teil {}/2", "t2 partie {} de 2", "t2_tse ({} of 2)"],
)
def test_two_series_that_are_parts_of_one(study, pattern):
    for k, path in enumerate(files(study, 2)):
        part, dataset = 1 + (k > 16), pydicom.dcmread(path)
        dataset.SeriesDescription, dataset.SeriesNumber = pattern.format(part), 1 + part
        dataset.SeriesInstanceUID = f"{dataset.SeriesInstanceUID[:50]}.{part}"
        dataset.save_as(path)
    problems = [series.problem or "" for series in read_series(study)]
    assert ["it is part 1 of 2" in problems[0], "it is part 2 of 2" in problems[1]] == [True, True]
    cut(study, slice(0, 17))
    assert "it is part 1 of 2" in problem_of(study)


def test_repetitions_and_half_doses_are_no_parts(tmp_path, phantom_subject):
    write_study(
        tmp_path, phantom_subject, [replace(T2, description="t2 (1/2)"), replace(FLAIR, description="t2 (2/2)")]
    )
    assert [series.problem for series in read_series(tmp_path)] == [None, None]
    shutil.rmtree(tmp_path / "004")
    edit_series(tmp_path, 2, {"SeriesDescription": "t2 1/2 NEX"})
    assert not problem_of(tmp_path)


DOUBTFUL = {
    "part 1 of 2 of a series": lambda study: edit_series(study, 2, {"SeriesDescription": "t2 (1/2)"}),  # and whole
    "its InstanceNumbers begin at 9": lambda study: cut(study, slice(8, None)),
    "only one of its 5 time points is there": lambda study: edit_series(study, 2, {"NumberOfTemporalPositions": 5}),
}


@pytest.mark.parametrize("reason", DOUBTFUL)
def test_what_shows_a_whole_head_but_may_lack_images_is_used_with_a_warning(study, reason):
    DOUBTFUL[reason](study)
    (remark,) = read_folder(study, PHANTOM).remarks
    assert (remark.code, remark.about, reason in remark.text) == ("doubtful_images", ("t2",), True)
