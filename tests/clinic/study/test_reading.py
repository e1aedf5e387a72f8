import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_studies import STUDY, T1_SE, T2_TSE, Scan, edit, files, study, write_study
from monai.data import MetaTensor
from phantom_case import LPS

from common.cohorts.check import findings
from common.cohorts.myops import MYOPS
from common.cohorts.phantom.simulation import SPACING
from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.reading import read_folder


def test_files_are_told_apart_by_name_and_those_not_wanted_are_left_out(case):
    found = read_folder(case, PHANTOM, ["flair", "t1c"])
    assert list(found.images) == ["t1c", "flair"]
    expected = nib.load(case / "case_t1ce.nii.gz")
    np.testing.assert_array_equal(found.images["t1c"].affine, expected.affine)
    np.testing.assert_array_equal(found.images["t1c"].dataobj, expected.dataobj)
    assert found.frames["t1c"] == found.frames["flair"]
    assert not found.remarks
    assert not found.series
    assert found.explanations == [
        "case_t1ce.nii.gz: T1c (named by its file); its image shows T1c (95%); used.",
        "case_flair.nii.gz: FLAIR (named by its file); its image shows FLAIR (100%); used.",
        "case_t1.nii.gz: T1 (by its name); not used, as requested.",
        "case_t2.nii.gz: T2 (by its name); not used, as requested.",
    ]


def test_files_on_different_grids_are_warned_about(case, tmp_path):
    voxels = np.random.default_rng(0).uniform(1, 9, (20, 20, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([4.0, 5, 6, 1])), tmp_path / "a_t1.nii.gz")
    nib.save(nib.Nifti1Image(voxels + 1, LPS), tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM, skull_strip="no")
    assert [remark.code for remark in found.remarks] == ["different_grids"]


@pytest.fixture(scope="module")
def written(case, tmp_path_factory) -> tuple[Path, dict[str, nib.Nifti1Image]]:
    """A study with T1 (series 2) and FLAIR (series 4), and its volumes; tests must not change it."""
    folder, scans = tmp_path_factory.mktemp("dicom"), study(("t1", "flair"))
    volumes = write_study(folder, case, scans)
    return folder, {scan.image: volume for scan, volume in zip(scans, volumes, strict=True)}


def test_a_dicom_study_is_read_with_its_frames_and_reasons(written):
    folder, volumes = written
    found = read_folder(folder, PHANTOM)
    assert list(found.images) == ["t1", "flair"]
    assert found.sources == {"t1": "series 2", "flair": "series 4"}
    assert found.frames["t1"] != found.frames["flair"]
    np.testing.assert_allclose(found.images["flair"].affine, volumes["flair"].affine, atol=1e-4)
    np.testing.assert_allclose(found.images["flair"].dataobj, volumes["flair"].dataobj)
    assert "TI 1800 ms" in found.used["flair"].reason
    assert found.used["flair"].stated_grade == Grade.SURE
    assert len(found.explanations) == 6  # three localizers, T1, FLAIR, ADC
    assert found.series["t1"].number == 2


def test_a_series_set_by_hand_goes_before_what_is_recognised(written):
    dicom, _ = written
    found = read_folder(dicom, PHANTOM, by_hand={"T1ce": 2})
    assert found.sources == {"t1c": "series 2", "flair": "series 4"}
    assert found.used["t1c"].stated_grade is None
    for wanted, by_hand, message in [
        (["flair"], {"t1c": 2}, "--series: t1c is not among the modalities to use, flair"),
        (None, {"t1c": 2, "T1ce": 4}, "one modality is given twice in t1c, T1ce"),
        (None, [("t1c", 2)], r"--series \[\('t1c', 2\)\]: expected sequences and SeriesNumbers"),
        (None, {None: 2}, "Unknown modality 'None'"),
        (None, {"t1c": [2]}, r"t1c: \[2\]: there is no such series; expected one of"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_folder(dicom, PHANTOM, wanted, by_hand)


def test_a_broken_series_that_is_not_wanted_does_not_matter(case, tmp_path):
    write_study(tmp_path, case, [Scan(1, "t1", "t1_se_tra", T1_SE), Scan(2, "t2", "t2_tse_tra", T2_TSE)])
    files(tmp_path, 2)[20].unlink()
    assert list(read_folder(tmp_path, PHANTOM, ["t1"]).images) == ["t1"]
    with pytest.raises(ValueError, match=r"series 2 .* slices are missing"):
        read_folder(tmp_path, PHANTOM)


def save(voxels: np.ndarray, path: Path, affine: np.ndarray = LPS) -> None:
    nib.save(nib.Nifti1Image(np.asarray(voxels), affine), path)


def both_kinds(case: Path, folder: Path) -> None:
    write_study(folder, case, study(("t1",)))
    (folder / "001").rename(folder / "localizer")
    (folder / "case_t2.nii.gz").symlink_to(case / "case_t2.nii.gz")


def linked(*names: str) -> Callable[[Path, Path], None]:
    """Make a study of one image under several names."""
    return lambda case, folder: [(folder / name).symlink_to(case / "case_t1.nii.gz") for name in names]


TWICE = linked("case_t1.nii.gz", "case_t1ce.nii.gz")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda case, folder: folder.rmdir(), {}, "no such folder"),
        (lambda case, folder: None, {}, "an empty folder; expected the DICOM or NIfTI files"),
        (TWICE, {"by_hand": {"t1": 3}}, "--series: t1: 3: there is no such file; expected one of"),
        (TWICE, {"modalities": ["t2"]}, r"none of the requested modalities \(t2\); it has t1"),
        (TWICE, {}, r"\(T1\) and .*\(T1c\): the same image\. Give each image once"),
        (linked("other_t1.nii.gz", "another_t1.nii.gz"), {}, "2 subjects, another, other; give the folder of"),
        (linked("P1_t1.nii.gz", "P1_flair.nii.gz", "P2_t1.nii.gz", "P2_flair.nii.gz"), {}, "2 subjects"),
        (both_kinds, {}, r"both DICOM and image files \(1\)"),
        (lambda _, folder: save(np.ones((9, 9, 9)), folder / "a_t1.nii.gz"), {}, "T1.*every voxel is 1"),
    ],
)
def test_what_cannot_be_one_study_is_refused(case, tmp_path, monkeypatch, make, options, message):
    (tmp_path / "study").mkdir()
    make(case, tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError if message == "no such folder" else ValueError, match=message):
        read_folder("study", PHANTOM, **options)


def test_a_skull_is_seen_by_air_that_is_not_0_and_by_a_head_too_large_for_a_brain(case, tmp_path):
    brain = read_folder(case, PHANTOM, ["t1", "t2", "flair"])
    assert (brain.skulls, brain.remarks) == ([], [])
    t1 = np.asarray(brain.images["t1"].dataobj)
    noisy = np.where(t1 == 0, np.random.default_rng(0).integers(1, 9, t1.shape), t1)
    x, y, z = np.indices(t1.shape) - (np.array(t1.shape)[:, None, None, None] - 1) / 2
    head = np.where((t1 == 0) & (x**2 + y**2 + z**2 < (90 / SPACING) ** 2), 50, t1)  # mm
    assert (head == 0).mean() > 0.5
    for name, voxels in {"t1": noisy, "t2": head, "flair": brain.images["flair"].dataobj}.items():
        save(voxels, tmp_path / f"a_{name}.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert (found.skulls, found.remarks) == (["t1", "t2"], [])  # no remark, since the skull may be stripped
    assert not any(found.skull for found in findings({"t1": MetaTensor(noisy), "t2": MetaTensor(head)}, MYOPS))


@pytest.mark.parametrize("value", [-1000, -0.75, 5000, np.nan])
def test_a_background_other_than_0_becomes_0(value, case, tmp_path):
    t2 = np.asarray(nib.load(case / "case_t2.nii.gz").dataobj).astype(np.float32)
    given = t2 + value if value < 0 else np.where(t2 == 0, np.float32(value), t2)
    save(given, tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert (found.skulls, found.remarks) == ([], [])
    np.testing.assert_allclose(np.asarray(found.images["t2"].dataobj), t2, atol=1e-3)
    given[tuple(np.array(t2.shape) // 2)] = np.nan
    save(given, tmp_path / "a_t2.nii.gz")
    with pytest.raises(ValueError, match=r"\(T2\): 1 voxels are NaN or Inf"):
        read_folder(tmp_path, PHANTOM)


def test_a_brain_too_small_for_its_voxel_size_is_warned_about(case, tmp_path):
    t2 = np.asarray(nib.load(case / "case_t2.nii.gz").dataobj)
    nib.save(nib.Nifti1Image(t2, LPS @ np.diag([0.5, 0.5, 0.5, 1])), tmp_path / "a_t2.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert [(remark.code, remark.about) for remark in found.remarks] == [("odd_volume", ("t2",))]
    assert "with voxels of 1.5 x 1.5 x 1.5 mm" in found.remarks[0].text
    assert found.skulls == []


TWO = (
    Scan(3, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 6)),
    Scan(4, "flair", "t2_flair", T2_TSE | {"InversionTime": 2500, "RepetitionTime": 9000}, spacing=(6, 6, 6)),
)


@pytest.fixture(scope="module")
def small(case, tmp_path_factory) -> dict[str, Path]:
    """A study of T2 and FLAIR as DICOM files and as NIfTI files."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("dicom", "nifti")}
    for scan, volume in zip(TWO, write_study(folders["dicom"], case, TWO), strict=True):
        nib.save(volume, folders["nifti"] / f"x_{scan.image}.nii.gz")
    return folders


def without_meta(folder: Path) -> None:
    """Take the preamble and the meta information away from a series; then only the data remain."""
    for path in files(folder, 3):
        content = path.read_bytes()
        path.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])  # FileMetaInformationGroupLength


def one_uid(folder: Path, same: bool) -> None:
    """Give one slice the UID of another one, or add a copy with other pixels."""
    first, second = files(folder, 3)[:2]
    uid = pydicom.dcmread(first).SOPInstanceUID
    if same:
        shutil.copy(first, folder / "copy")
        edit(folder / "copy", lambda one: setattr(one, "PixelData", bytes(len(one.PixelData))))
    else:
        edit(second, lambda one: setattr(one, "SOPInstanceUID", uid))


def with_multiframe(case: Path, folder: Path) -> None:
    scan = Scan(3, "t2", "t2_tse", T2_TSE, "coronal", spacing=(6, 6, 7), multiframe=True)
    write_study(folder / "more", case, [scan])
    edit(files(folder / "more", 3)[0], lambda one: setattr(one, "SOPInstanceUID", pydicom.uid.generate_uid()))


SHARED = "1 of its images share their SOPInstanceUID with a file of other"
MIXED = r"series 3-1 is only a part of a series with single slices and a multi-frame image \(series 3-2"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("nifti", lambda folder: (folder / "x_t1ce.mgz").touch(), r"1 file not read \(\.mgz\): convert it to NIfTI"),
        ("dicom", without_meta, "hold DICOM data without the preamble and meta.*dcmconv"),
        ("dicom", lambda folder: one_uid(folder, True), SHARED),
        ("dicom", lambda folder: one_uid(folder, False), SHARED),
        ("dicom", None, MIXED),
    ],
)
def test_nothing_is_dropped_without_a_word(small, case, tmp_path, kind, change, said):
    """Each is refused, or remarked on, for this reason."""
    folder = shutil.copytree(small[kind], tmp_path / "study")
    change(folder) if change else with_multiframe(case, folder)
    try:
        heard = " ".join(remark.text for remark in read_folder(folder, PHANTOM).remarks)
    except ValueError as error:
        heard = str(error)
    assert re.search(said, heard)
    assert "x_t1ce" not in heard


@pytest.fixture
def no_registration(monkeypatch) -> None:
    def refuse(fixed, moving, name):
        raise ValueError(f"{name}: not registered.")

    monkeypatch.setattr("mmb.clinic.head.alignment.register", refuse)


def test_what_cannot_be_registered_gives_way_by_name(case, tmp_path, no_registration):
    """A thinner T2 in a frame of reference of its own."""
    t1, t2 = (scan for scan in STUDY if scan.number in (2, 3))
    thin = replace(t2, number=9, spacing=(3, 3, 3), moved=((0, 0, 0), (0, 0, 0)))
    write_study(tmp_path / "study", case, [t1, t2, thin])
    study = read_folder(tmp_path / "study", PHANTOM)
    assert study.sources == {"t1": "series 2", "t2": "series 3"}
    assert ("unusable_image", ("t2",)) in [(remark.code, remark.about) for remark in study.remarks]
    (noise,) = (each for each in study.found if each.source == "series 9")
    assert (noise.use, noise.problem.startswith("it cannot be registered (")) == ("unusable", True)


def test_what_is_misplaced_and_cannot_be_registered_is_not_judged_by_what_it_shows(case, tmp_path, no_registration):
    for name, moved in (("t1ce", 0), ("t2", 8), ("flair", 0)):
        image = nib.load(case / f"case_{name}.nii.gz")
        nib.save(nib.Nifti1Image(np.roll(image.dataobj, moved, 1), LPS), tmp_path / f"x_{name}.nii.gz")
    study = read_folder(tmp_path, PHANTOM)
    assert [*study.aligned.failed] == ["t2"]
    assert "Do not trust the result" in " ".join(study.aligned.misplaced.values())
    assert {name for name, each in study.used.items() if each.log_probs} == {"t1c", "flair"}
