"""Studies that are read, or refused for the right reason: their identifiers, rounded geometry, lost echoes."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_studies import SPACE_FLAIR, T1_SE, T2_TSE, Scan, edit_series, files, read_series, write_study

from common.cohorts.registry import PHANTOM
from mmb.clinic.intake.pixels import load
from mmb.clinic.recognise.reading import read_folder
from mmb.errors import StudyError

KINDS = (("t2", "t2_tse", T2_TSE), ("t1", "t1_se", T1_SE), ("flair", "flair", SPACE_FLAIR))
SCANS = [Scan(number, *kind, spacing=(6, 6, 6)) for number, kind in enumerate(KINDS, start=2)]


@pytest.fixture
def study(tmp_path, phantom_subject) -> Path:
    write_study(tmp_path, phantom_subject, SCANS)
    return tmp_path


@pytest.mark.parametrize(
    ("numbers", "differs", "is_one"),
    [
        ((4,), {}, True),  # an addendum
        ((2, 3, 4), {}, True),
        ((2, 3, 4), {"StudyDate": "2024010{}"}, False),
        ((2, 3, 4), {"FrameOfReferenceUID": "1.2.4.{}"}, False),
        ((2, 3, 4), {"FrameOfReferenceUID": ""}, False),
    ],
)
def test_a_study_uid_for_each_series(study, numbers, differs, is_one):
    for number in numbers:
        values = {"StudyInstanceUID": "1.2.3.{}"} | differs
        edit_series(study, number, {name: value.format(number) for name, value in values.items()})
    if not is_one:
        with pytest.raises(ValueError, match=r"images of 3 studies; give the folder of one\..* use --each\.$"):
            read_folder(study, PHANTOM)
        return
    found = read_folder(study, PHANTOM)
    assert list(found.images) == ["t1", "t2", "flair"]
    assert "several_study_uids" in [each.code for each in found.remarks]


def test_a_patient_whose_name_and_date_are_written_in_two_ways(study):
    for scan in SCANS:
        edit_series(study, scan.number, {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "M\u00fcller"})
    edit_series(study, 3, {"PatientName": "Mu\u0308ller", "PatientBirthDate": "1970.01.01"})
    assert len(read_series(study)) == 3


def round_off(folder: Path, name: str, decimals: int) -> None:
    edit_series(folder, 2, lambda one: one.update({name: [round(float(each), decimals) for each in one[name].value]}))


@pytest.mark.parametrize("decimals", [2, 3, 4])
@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_rounded_directions_are_made_exact(tmp_path, phantom_subject, decimals, plane):
    scan = Scan(2, "t2", "t2_tse", T2_TSE, plane, (7, -5, 11), (4, 4, 6))
    (expected,) = write_study(tmp_path, phantom_subject, [scan])
    round_off(tmp_path, "ImageOrientationPatient", decimals)
    (series,) = read_series(tmp_path)
    assert series.problem is None
    corners = np.array([[0, 0, 0, 1], [*np.array(series.shape) - 1, 1]]).T
    off = np.abs(load(series).affine @ corners - expected.affine @ corners)[:3].max()
    assert off < 4 * 10.0 ** (3 - decimals) / 10  # mm


@pytest.mark.parametrize("gap", [1.2, 1.3, 1.7, 2.4])
def test_positions_that_were_rounded_to_mm(tmp_path, phantom_subject, gap):
    write_study(tmp_path, phantom_subject, [Scan(2, "t2", "t2_tse", T2_TSE, spacing=(8, 8, gap))])
    round_off(tmp_path, "ImagePositionPatient", 0)
    (series,) = read_series(tmp_path)
    assert series.problem is None
    assert series.spacing[2] == pytest.approx(gap, rel=0.01)
    whole = files(tmp_path, 2)
    whole[len(whole) // 2].unlink()
    assert read_series(tmp_path)[0].problem


def test_a_missing_slice_at_whole_millimetres_is_not_called_rounding(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [Scan(2, "t2", "t2_tse", T2_TSE, spacing=(8, 8, 1))])
    for k, path in enumerate(files(tmp_path, 2)):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [*map(round, map(float, dataset.ImagePositionPatient[:2])), k]
        dataset.save_as(path)
    assert read_series(tmp_path)[0].problem is None
    for k in (40, -2):
        path = files(tmp_path, 2)[k]
        content = path.read_bytes()
        path.unlink()
        assert "1 of " in (read_series(tmp_path)[0].problem or "")
        path.write_bytes(content)


@pytest.mark.parametrize("t2_is_larger", [True, False])
def test_of_two_echoes_with_lost_slices_the_t2_is_missed(tmp_path, phantom_subject, t2_is_larger):
    first, second = (
        Scan(2, "t2", "PD T2 double echo", T2_TSE | {"EchoTime": te}, spacing=(6, 6, 6)) for te in (12, 98)
    )
    write_study(tmp_path, phantom_subject, [first, second, SCANS[1]])
    share = 2 / 3 if t2_is_larger else 1 / 3
    paths: dict[float, list[Path]] = {12.0: [], 98.0: []}
    for path in files(tmp_path, 2):
        paths[float(pydicom.dcmread(path).EchoTime)].append(path)
    count = len(paths[98.0])
    for k in range(count):
        is_t2 = (k * share) % 1 < share if t2_is_larger else k % 3 == 0
        paths[12.0 if is_t2 else 98.0][k].unlink()
    with pytest.raises(StudyError, match=r"2 parts .*EchoTime") as refused:
        read_folder(tmp_path, PHANTOM)
    assert (refused.value.code, refused.value.about) == ("unusable", ("t2",))


def test_what_is_left_out_names_its_problem_before_its_kind(tmp_path, phantom_subject):
    write_study(tmp_path, phantom_subject, [SCANS[1], Scan(2, "t2", "pd_tse", T2_TSE, spacing=(6, 6, 6))])
    files(tmp_path, 2)[12].unlink()
    (line,) = (line for line in read_folder(tmp_path, PHANTOM).explanations if line.startswith("series 2"))
    assert line.startswith("series 2: left out: 1 of 26 slices are missing")
