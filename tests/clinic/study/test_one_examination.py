"""Studies whose series or files are of two examinations, and series that are less than they seem."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_studies import AGENT, MPRAGE, SPACE_FLAIR, T1_SE, T2_TSE, Scan, edit_series, read_series, write_study
from phantom_case import LPS
from pydicom.dataset import Dataset

from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM, get_cohort
from mmb.clinic.recognise.header import recognise_study
from mmb.clinic.recognise.reading import read_files, read_folder
from mmb.clinic.remark import Gravity
from mmb.errors import StudyError

SIZE: dict[str, Any] = {"spacing": (6, 6, 6)}
T2, T1 = Scan(2, "t2", "t2_tse", T2_TSE, **SIZE), Scan(3, "t1", "t1_se", T1_SE, **SIZE)
FLAIR, T1C = Scan(4, "flair", "flair", SPACE_FLAIR, **SIZE), Scan(6, "t1c", "t1_se_KM", T1_SE | AGENT, **SIZE)
FOUR = (T2, T1, FLAIR, T1C)
HAND = {"t1": 3, "t1c": 6, "t2": 2, "flair": 4}
LATER = {"StudyDate": "20250607", "SeriesDate": "20250607", "AcquisitionDate": "20250607"}  # the others: 2024-01-02
NONE = dict.fromkeys(LATER, "")
Change = Callable[[Dataset], None] | Mapping[str, Any]


def without(*names: str, up: float = 0, **values: Any) -> Callable[[Dataset], None]:
    """Return a change of a series: attributes that are removed or set, and mm by which it lies further up."""

    def change(dataset: Dataset) -> None:
        for name in names:
            delattr(dataset, name)
        dataset.update(values)
        dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], dataset.ImagePositionPatient[2] + up]

    return change


def changed(folder: Path, subject: Path, changes: Mapping[int, Change], scans: tuple[Scan, ...] = FOUR) -> Path:
    write_study(folder, subject, scans)
    for number, change in changes.items():
        edit_series(folder, number, change)
    return folder


DATES: dict[str, tuple[dict[int, Change], str]] = {
    "one day": ({}, "one"),
    "two of each day": ({4: LATER, 6: LATER}, "two"),
    "the acquisition alone": ({4: {"AcquisitionDate": "20250607"}}, "two"),
    "the study alone": ({4: {"StudyDate": "20250607"}}, "two"),
    "the series alone": ({4: {"SeriesDate": "20250607"}}, "two"),
    "three days": ({6: dict.fromkeys(LATER, "20240105")}, "two"),
    "a date and time": ({4: without(*LATER, AcquisitionDateTime="20250607101010.5"), 6: LATER}, "two"),
    "midnight": ({4: dict.fromkeys(LATER, "20240103"), 6: {"AcquisitionDate": "20240103"}}, "one"),
    "no dates": (dict.fromkeys((2, 3, 4, 6), NONE), "one"),
    "one has no dates": ({4: NONE}, "one"),
    "two kinds of dates": ({4: NONE | {"StudyDate": "20240102"}, 6: NONE | {"SeriesDate": "20250607"}}, "two"),
    "two kinds of one date": ({4: NONE | {"StudyDate": "20240102"}, 6: NONE | {"SeriesDate": "20240103"}}, "one"),
    "reformatted later": ({4: {"SeriesDate": "20240109", "ImageType": ["DERIVED", "PRIMARY", "M", "NORM"]}}, "one"),
    "by hand": ({4: LATER, 6: LATER}, "by hand"),
    "one by hand": ({4: LATER}, "by hand"),
    "by hand, of one day": ({}, "one"),
    "left out by hand": ({4: LATER}, "one"),
}
BY_HAND: dict[str, dict[str, int | None]] = {
    "by hand": HAND, "one by hand": {"flair": 4}, "by hand, of one day": HAND, "left out by hand": {"flair": None}
}  # fmt: skip


@pytest.mark.parametrize("what", DATES)
def test_series_of_two_days_are_of_two_examinations(tmp_path, phantom_subject, what):
    (changes, expected), by_hand = DATES[what], BY_HAND.get(what)
    changed(tmp_path, phantom_subject, changes)
    if expected == "two":
        with pytest.raises(StudyError, match=r"series \d \(202.*are of two examinations .* --series t1=") as refused:
            read_folder(tmp_path, PHANTOM, by_hand=by_hand)
        assert "202" not in refused.value.public
        return
    found = read_folder(tmp_path, PHANTOM, by_hand=by_hand)
    warnings = [remark.text for remark in found.remarks if remark.code == "two_examinations"]
    assert len(warnings) == (expected == "by hand")
    assert "202" not in " ".join([*warnings, *found.explanations])


def test_contrast_agent_stays_in_the_body_for_one_examination(tmp_path):
    headers = []
    for day, agent in (("20240102", "Gadovist"), ("20250607", ""), ("20240102", "")):
        header = Dataset()
        header.update({"SeriesDescription": "t1_mprage", "RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900})
        header.update({"AcquisitionDate": day, "AcquisitionTime": f"10000{len(headers)}", "ContrastBolusAgent": agent})
        headers.append(header)
    assert [says.modality for says in recognise_study(headers)] == ["t1c", "t1", "t1c"]


def test_files_of_two_examinations(tmp_path):
    voxels, glioma = simulate(7)[0], get_cohort("open_glioma")
    for name, modality in (("20230105_ax_t1_post_gad", "t1c"), ("20240207_ax_t2_flair", "flair")):
        nib.save(nib.Nifti1Image(voxels[modality], LPS), tmp_path / f"{name}.nii.gz")
    with pytest.raises(StudyError, match=r"20230105.*\(2023-01-05\).*--t1 FILE") as refused:
        read_folder(tmp_path, glioma)
    assert "2023" not in refused.value.public
    given = dict(zip(("t1c", "flair"), sorted(tmp_path.iterdir()), strict=True))
    (text,) = (each.text for each in read_files(given, glioma).remarks if each.code == "two_examinations")
    assert text.startswith("T1c (image file) and FLAIR (image file) are of two examinations or patients")
    for path, name in zip(given.values(), ("pat01_t1c", "pat02_flair"), strict=True):
        path.rename(tmp_path / f"{name}.nii.gz")
    found = read_folder(tmp_path, glioma)
    assert any("T1c (image file) and FLAIR (image file) have names" in each.text for each in found.remarks)
    assert any("pat01_t1c.nii.gz (pat01)" in line for line in found.explanations)


ECHOES = tuple(Scan(10 + k, "t1", "t1_memprage", MPRAGE, **SIZE) for k in range(3))
MEAN = {"ImageType": ["DERIVED", "PRIMARY", "M", "ND", "MEAN"]}
AGAIN = (*FOUR, Scan(9, "t1c", "t1_se_KM", T1_SE | AGENT, **SIZE))


def at(time: str) -> Change:
    return {"AcquisitionTime": time}


def with_train(echoes: int, description: str = "axial t2", header: Mapping[str, Any] | None = None) -> tuple[Scan, ...]:
    """Return scans with a T2 of an echo train, by default without ScanningSequence."""
    times = header or {"RepetitionTime": 6000, "EchoTime": 90, "FlipAngle": 90}
    return T1, FLAIR, T1C, Scan(12, "t2", description, times | {"EchoTrainLength": echoes}, **SIZE)


SEEN: dict[str, tuple[tuple[Scan, ...], dict[int, Change], int, tuple[str, ...]]] = {
    "a T1c at 60 minutes": (AGAIN, {6: at("100000"), 9: at("110000")}, 9, ("later_than_another", "60 minutes")),
    "a T1c again": (AGAIN, {6: at("100000"), 9: at("100330")}, 9, ()),
    "lossy": (FOUR, {4: {"LossyImageCompression": "01"}}, 4, ("doubtful_images", "compressed with loss")),
    "lossless": (FOUR, {4: {"LossyImageCompression": "00"}}, 4, ()),
    "the mean of echoes": ((T2, FLAIR, T1C, *ECHOES), {10: {"EchoTime": 1.6}, 11: {"EchoTime": 3.4}, 12: MEAN}, 12, ()),
    "a long train of no known sequence": (with_train(96), {}, 12, ()),  # its image shows a T2
    "a usual train of none": (with_train(18), {}, 12, ()),
    "a long train that is a spin echo's": (with_train(128, "t2_haste", T2_TSE), {}, 12, ()),
}


@pytest.mark.parametrize("what", SEEN)
def test_what_is_taken_and_said(tmp_path, phantom_subject, what):
    scans, changes, number, said = SEEN[what]
    found = read_folder(changed(tmp_path, phantom_subject, changes, scans), PHANTOM)
    modality = next(scan.image for scan in scans if scan.number == number)
    assert found.series[modality].number == number
    assert list(found.images) == ["t1", "t1c", "t2", "flair"]
    warnings = [remark for remark in found.remarks if remark.gravity is not Gravity.NOTE]
    assert [remark.code for remark in warnings] == [*said[:1]]
    assert all(said[1] in remark.text for remark in warnings)


@pytest.mark.parametrize("number", [None, 7])
def test_two_whole_series_are_never_joined(tmp_path, phantom_subject, number):
    """The patient lies half a gap further in the second one, so that the slices of both are evenly spaced."""
    values = {} if number is None else {"SeriesNumber": number}
    scans = (T1, Scan(6, "t1c", "t1_se", T1_SE | AGENT, **SIZE))
    changes = {
        scan.number: without(*(["SeriesNumber"] * (not values)), up=3 * k, **values) for k, scan in enumerate(scans)
    }
    series = read_series(changed(tmp_path, phantom_subject, changes, scans))
    assert [(one.key, one.problem) for one in series] == [(f"{number or 0}-{part}", None) for part in (1, 2)]


@pytest.mark.parametrize(
    ("shape", "spacing", "by_hand", "outcome"),
    [
        ((48, 48, 1), (5, 5, 5), False, "refused"),
        ((48, 48, 1), (5, 5, 5), True, "refused"),
        ((48, 48, 10), (5, 5, 5), False, "refused"),
        ((10, 48, 40), (5, 5, 5), False, "refused"),
        ((48, 48, 10), (5, 5, 5), True, "said"),
        ((48, 48, 20), (5, 5, 5), False, ""),
        ((48, 48, 17), (5, 5, 9), False, ""),
    ],
)
def test_a_slice_or_slab_of_an_image_file(tmp_path, shape, spacing, by_hand, outcome):
    voxels = np.random.default_rng(0).uniform(1, 9, shape).astype(np.float32)
    path = tmp_path / "study" / "x_t1c.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)

    def read():
        if by_hand:
            return read_files({"t1c": path}, PHANTOM, skull_strip="no")
        return read_folder(path.parent, PHANTOM, skull_strip="no")

    if outcome == "refused":
        with pytest.raises(StudyError, match=r"x_t1c.nii.gz: a slab of \d+ mm; expected a whole brain, 80 mm or more"):
            read()
    else:
        assert any(remark.code == "slab" for remark in read().remarks) == (outcome == "said")
