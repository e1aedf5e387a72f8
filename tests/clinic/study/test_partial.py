"""Studies in which an image shows only a part of the head: which is used, on whose grid, what is said."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_studies import AGENT, MPRAGE, SPACE_FLAIR, T1_SE, T2_TSE, Scan, files, write_study

from common.cohorts.registry import PHANTOM
from common.modalities import GLIOMA
from mmb.clinic.head.skull import brain_mask
from mmb.clinic.intake.field_of_view import WHOLE, shares
from mmb.clinic.options import Options
from mmb.clinic.recognise.reading import read_folder
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.doubts import partial_images
from mmb.clinic.report.verdicts import Presence, verdicts
from mmb.clinic.study import Prediction, segment
from mmb.predictors.bundle import load_predictor

THICK = {"spacing": (2, 2, 5)}
WHOLE_HEAD = (
    Scan(2, "t1", "AX T1", T1_SE, **THICK),
    Scan(3, "t2", "AX T2", T2_TSE, **THICK),
    Scan(4, "flair", "AX FLAIR", SPACE_FLAIR, **THICK),
    Scan(5, "t1c", "AX T1 POST GAD", T1_SE | AGENT, **THICK),
)
FINE = {"t1": MPRAGE, "t1c": MPRAGE | AGENT, "t2": T2_TSE | {"MRAcquisitionType": "3D"}, "flair": SPACE_FLAIR}
NAMES = {"t1": "T1 MPRAGE", "t1c": "T1 MPRAGE POST GAD", "t2": "T2 SPACE IAC 3D", "flair": "FLAIR SPACE 3D"}


def with_part(folder: Path, case: Path, scans: Sequence[Scan], mm: float = 84, end: str = "bottom") -> Path:
    """Write a study of whose series 7 only so many mm are there, at one end or in its middle."""
    write_study(folder, case, scans)
    paths = files(folder, 7)
    count = round(mm / float(pydicom.dcmread(paths[0]).SpacingBetweenSlices))
    start = {"bottom": 0, "top": len(paths) - count, "middle": (len(paths) - count) // 2}[end]
    for path in {*paths} - {*paths[start : start + count]}:
        path.unlink()
    return folder


@pytest.mark.parametrize(("modality", "end"), zip(GLIOMA, ("bottom", "top", "middle", "bottom"), strict=True))
def test_a_thinner_part_never_replaces_the_whole(tmp_path, case, modality, end):
    part = Scan(7, modality, NAMES[modality], FINE[modality], spacing=(2, 2, 2))
    study = read_folder(with_part(tmp_path, case, [*WHOLE_HEAD, part], end=end), PHANTOM)
    assert sorted(study.sources.values()) == ["series 2", "series 3", "series 4", "series 5"]
    (line,) = (line for line in study.explanations if line.startswith("series 7"))
    assert line.endswith("is of the whole head.")


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_parts_in_other_planes(tmp_path, case, plane):
    part = Scan(7, "t2", "COR T2 HIPPOCAMPUS 3mm", T2_TSE, plane, spacing=(2, 2, 3))
    with_part(tmp_path, case, [*WHOLE_HEAD, part], 81)
    assert read_folder(tmp_path, PHANTOM).sources["t2"] == "series 3"


@pytest.mark.parametrize("modality", ["t1c", "flair"])
def test_the_only_image_of_a_sequence_is_used_and_what_lacks_is_said(tmp_path, case, modality):
    others = [scan for scan in WHOLE_HEAD if scan.image != modality]
    part = Scan(7, modality, NAMES[modality], FINE[modality], spacing=(2, 2, 2))
    with_part(tmp_path, case, [*others, part])
    study = read_folder(tmp_path, PHANTOM)
    assert study.sources[modality] == "series 7"
    assert study.reference != modality
    assert study.why.endswith("of those that show the whole head")
    lacking = partial_images(study.aligned, brain_mask(study.aligned, None))
    assert list(lacking) == [modality]
    assert "mm missing at the top" in lacking[modality]


def test_image_files_of_a_part_are_never_the_grid(tmp_path, case):
    path = shutil.copytree(case, tmp_path / "case") / "case_t1ce.nii.gz"
    image = nib.load(path)
    nib.save(image.slicer[:, :, : image.shape[2] // 2 + 1], path)
    study = read_folder(tmp_path / "case", PHANTOM)
    assert (study.reference, study.why) == ("t1", "the finest one, of those that show the whole head")


def grid(extent: Sequence[float], centre: Sequence[float] = (0, 0, 0)) -> tuple[tuple[int, ...], np.ndarray]:
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = np.array(centre) - (np.array(extent) - 1) / 2
    return tuple(map(int, extent)), affine


@pytest.mark.parametrize(
    ("one", "other", "whole"),
    [
        (grid((240, 240, 120)), grid((180, 256, 256)), True),  # axial slices, and a sagittal 3D volume with the neck
        (grid((220, 180, 140)), grid((256, 256, 180)), True),
        (grid((130, 240, 240)), grid((240, 240, 150)), True),  # sagittal slices
        (grid((240, 150, 240)), grid((240, 240, 150)), True),  # coronal slices
        (grid((240, 240, 84)), grid((240, 240, 150)), False),
        (grid((240, 240, 104), (0, 0, -20)), grid((240, 240, 156)), False),
        (grid((240, 78, 240), (0, 40, 0)), grid((240, 240, 150)), False),
        (grid((70, 240, 240), (40, 0, 0)), grid((240, 240, 150)), False),
        (grid((240, 240, 150), (0, 0, -75)), grid((240, 240, 150)), False),  # the lower half, and the neck
    ],
)
def test_which_fields_of_view_are_whole(one, other, whole):
    first, second = shares([one, other], ["a", "a"])
    assert (first >= WHOLE) == whole
    assert second >= WHOLE or one[1][2, 3] < -140


def predicted(folder: Path, out: Path) -> Prediction:
    options = Options(bundle="m3ae", recipe="phantom", device="cpu")
    return segment(folder, out, load_predictor(*options.network, options.decision), options)


@pytest.mark.slow  # segments two studies; the tests above see which images are used
def test_volumes_are_those_of_the_study_without_the_part(tmp_path, case):
    part = Scan(7, "t2", NAMES["t2"], FINE["t2"], spacing=(2, 2, 2))
    with_part(tmp_path / "with", case, [*WHOLE_HEAD, part])
    write_study(tmp_path / "without", case, WHOLE_HEAD)
    first, second = (predicted(tmp_path / name, tmp_path / f"{name}_out").summary for name in ("with", "without"))
    assert first.volumes == pytest.approx(second.volumes, rel=0.05)
    assert not [remark for remark in first.remarks if remark.code == "partial"]


def test_what_only_a_partial_t1c_shows_is_not_reliable():
    numbers = ({"WT": 20.0, "TC": 9.0, "ET": 4.0}, {"WT": 0.9, "TC": 0.9, "ET": 0.9})
    partial = Remark("partial", Gravity.DOUBT, "", ("t1c",))
    made = verdicts(*numbers, GLIOMA, None, Presence.FOUND, [partial])
    assert made["WT"].word == "doubtful"
    assert {made[region].text for region in ("TC", "ET")} == {"not reliable: the T1c does not show the whole brain"}


def test_a_result_from_a_partial_t1c_warns(tmp_path, case):
    with_part(tmp_path / "study", case, [*WHOLE_HEAD[:3], replace(WHOLE_HEAD[3], number=7)])
    summary = predicted(tmp_path / "study", tmp_path / "out").summary
    (warning,) = (each.text for each in summary.remarks if each.code == "partial")
    assert re.match(r"T1c \(series 7: \d+ % of the brain; \d+ mm missing at the top\)", warning)
    assert not [each for each in summary.remarks if each.code == "covers_less"]  # is said once
    assert not {"TC", "ET"} & {*summary.intervals, *summary.expected_dice}
