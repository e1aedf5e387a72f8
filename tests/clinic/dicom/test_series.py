"""Series are read from DICOM files that pydicom wrote from the phantom, and from its own synthetic studies."""

import logging
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from choosing import choose
from dicom_studies import EPI, MPRAGE, SPACE_FLAIR, T2_TSE, Scan, edit, edit_series, files, read_series, write_study
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from run_tools import run

from common.cohorts.phantom.cohort import generate
from common.cohorts.registry import PHANTOM
from mmb.clinic.examples.phantom import write_studies
from mmb.clinic.intake.pixels import load
from mmb.clinic.recognise.reading import read_folder
from mmb.errors import StudyError, silence_libraries

SMALL = Scan(2, "t1", "t1_mprage", MPRAGE, "sagittal", (4, -3, 5), (6, 5, 7))
OTHER = Scan(3, "t2", "t2_tse", T2_TSE, "axial", (0, 0, 0), (6, 6, 8))


@pytest.fixture(scope="module")
def written(tmp_path_factory, phantom_subject):
    """A small study and its contents; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("study")
    return folder, write_study(folder, phantom_subject, [SMALL, OTHER])


@pytest.fixture
def study(tmp_path, written) -> Path:
    return shutil.copytree(written[0], tmp_path / "study")


def only(study: Path, number: int):
    return next(series for series in read_series(study) if series.number == number)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"reverse": True},
        {"plane": "coronal"},
        {"plane": "axial", "tilt": (20, -15, 30)},
        {"moved": ((3, 2, 1), (5, -4, 3))},
        {"multiframe": True},
        {"multiframe": True, "reverse": True, "transfer_syntax": uid.RLELossless},
        {"transfer_syntax": uid.RLELossless},
        {"transfer_syntax": uid.JPEG2000Lossless},
        {"transfer_syntax": uid.JPEGLSLossless},
        {"multiframe": True, "transfer_syntax": uid.JPEG2000Lossless},
    ],
    ids=lambda change: "-".join(change) or "plain",
)
def test_voxels_and_affine(tmp_path, phantom_subject, change):
    scan = replace(SMALL, **change)
    (expected,) = write_study(tmp_path, phantom_subject, [scan])
    (series,) = read_series(tmp_path)
    image = load(series)
    assert series.problem is None
    assert series.multiframe == scan.multiframe
    assert series.shape == expected.shape == image.shape
    np.testing.assert_allclose(series.spacing, scan.spacing, atol=1e-6)
    np.testing.assert_allclose(image.affine, expected.affine, atol=1e-6)
    np.testing.assert_allclose(series.affine, expected.affine, atol=1e-6)
    np.testing.assert_array_equal(image.get_fdata(), expected.get_fdata())
    assert image.get_data_dtype() == np.float32


def test_the_whole_study(study):
    shutil.copytree(study / "002", study / "again")  # an instance that is there twice is used once
    series = read_series(study)
    told = [(one.number, one.part, one.key, one.name, one.problem) for one in series]
    assert told == [(2, 0, "2", "series 2", None), (3, 0, "3", "series 3", None)]
    assert series[0].frame_of_reference == series[1].frame_of_reference
    assert series[0].header.SeriesDescription == "t1_mprage"
    tells_nothing(series)
    positions = [pydicom.dcmread(path).ImagePositionPatient for path in series[0].files]
    normal = np.cross(*np.array(series[0].header.ImageOrientationPatient, float).reshape(2, 3))
    assert (np.diff(np.array(positions, float) @ normal) > 0).all()


def test_the_slope_may_differ_between_slices(study):
    path = files(study, 2)[3]
    before = load(only(study, 2)).get_fdata()
    edit(path, lambda dataset: setattr(dataset, "RescaleSlope", 2 * dataset.RescaleSlope))
    after = load(only(study, 2)).get_fdata()
    intercept = pydicom.dcmread(path).RescaleIntercept
    np.testing.assert_allclose(after[:, :, 3] - intercept, 2 * (before[:, :, 3] - intercept), atol=1e-3)
    np.testing.assert_array_equal(np.delete(after, 3, 2), np.delete(before, 3, 2))


def test_file_names_and_instance_numbers_do_not_matter(study):
    before = load(only(study, 2)).get_fdata()
    rng = np.random.default_rng(0)
    for path, number in zip(files(study, 2), rng.permutation(len(files(study, 2))), strict=True):
        edit(path, lambda dataset, number=number: setattr(dataset, "InstanceNumber", int(number)))
        path.rename(study / f"{number}")  # next to each other, without a suffix
    np.testing.assert_array_equal(load(only(study, 2)).get_fdata(), before)


def test_mixed_series_are_split(tmp_path, phantom_subject):
    echoes = [replace(OTHER, header=T2_TSE | {"EchoTime": te}) for te in (12, 98)]
    planes = [replace(SMALL, plane="axial", tilt=(0, 0, 0)), SMALL]
    types = [Scan(4, "t2", "ep2d_diff", EPI, spacing=(6, 6, 8), image_type=("DERIVED", "PRIMARY", "DIFFUSION", what))
             for what in ("TRACEW", "ADC")]  # fmt: skip
    expected = write_study(tmp_path, phantom_subject, [*echoes, *planes, *types])
    series = read_series(tmp_path)
    assert [one.key for one in series] == ["2-1", "2-2", "3-1", "3-2", "4-1", "4-2"]
    assert all(one.problem is None for one in series)
    found = {(one.number, one.header.EchoTime, one.shape, one.header.ImageType[-1]): load(one) for one in series}
    assert len(found) == 6
    for scan, image in zip([*echoes, *planes, *types], expected, strict=True):
        read = found[scan.number, scan.header["EchoTime"], image.shape, scan.image_type[-1]]
        np.testing.assert_array_equal(read.get_fdata(), image.get_fdata())
        np.testing.assert_allclose(read.affine, image.affine, atol=1e-6)


def test_mixed_frames_of_one_file_are_split(tmp_path, phantom_subject):
    """A multi-frame image of two echoes, as Philips writes them."""
    expected = write_study(tmp_path, phantom_subject, [replace(OTHER, multiframe=True)])[0]
    path = files(tmp_path, 3)[0]

    def mix(dataset):
        shared, frames = dataset.SharedFunctionalGroupsSequence[0], []
        for factor in (1, 2):
            for frame in dataset.PerFrameFunctionalGroupsSequence:
                copy = deepcopy(frame)
                copy.MREchoSequence = [pydicom.Dataset()]
                copy.MREchoSequence[0].EffectiveEchoTime = factor * shared.MREchoSequence[0].EffectiveEchoTime
                frames.append(copy)
        del shared.MREchoSequence
        dataset.PerFrameFunctionalGroupsSequence = frames[::2] + frames[1::2]  # in no order
        pixels = np.concatenate([dataset.pixel_array, dataset.pixel_array + 1])
        dataset.PixelData = np.concatenate([pixels[::2], pixels[1::2]]).tobytes()
        dataset.NumberOfFrames = len(frames)

    edit(path, mix)
    first, second = read_series(tmp_path)
    assert (first.header.EchoTime, second.header.EchoTime) == (98, 196)
    assert first.files == second.files == (path,)
    np.testing.assert_array_equal(load(first).get_fdata(), expected.get_fdata())
    np.testing.assert_array_equal(load(second).get_fdata(), expected.get_fdata() + 0.5)


def test_the_header_of_a_multiframe_image_reads_like_any(tmp_path, phantom_subject):
    header = SPACE_FLAIR | {"ContrastBolusAgent": "Gadovist"}
    write_study(tmp_path, phantom_subject, [replace(SMALL, header=header, multiframe=True)])
    found = read_series(tmp_path)[0].header
    assert (found.RepetitionTime, found.EchoTime, found.InversionTime) == (5000, 388, 1800)
    assert (set(found.ScanningSequence), found.MRAcquisitionType) == ({"SE", "IR"}, "3D")
    assert found.ContrastBolusAgent == "Gadolinium"
    assert tuple(found.ImageType) == SMALL.image_type[:4]


def move_up(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, z + 0.5]


# More of positions is in test_dicom_numbers.
FLAWS = [
    ({"PixelSpacing": [0.003, 0.003]}, r"voxels of 0\.003 x 0\.003 x 8 mm.*expected voxels of 0\.05 to 50 mm"),
    ({"PixelSpacing": [-6, 6]}, "its pixels have no size"),
    ({"PixelSpacing": "nan"}, "PixelSpacing: missing, or the wrong number"),
    ({"ImageOrientationPatient": ["1", "0", "0"]}, "ImageOrientationPatient: missing, or the wrong number"),
    ({"ImagePositionPatient": ["1", "0"]}, "some of its images do not state their position"),
    ({"ImageOrientationPatient": [1, 0, 0, 0.7, 0.7, 0]}, "not at right angles"),
    ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "not of length 1"),
    ({"Rows": 0}, "shape .* expected one volume"),
    ({"Rows": 65535, "Columns": 65535}, "exceeds the maximum of 536870912 voxels"),
    (lambda study: edit(files(study, 3)[2], move_up), "the distance between its slices varies from 7.50 to 8.50 mm"),
    (lambda study: files(study, 3)[5].unlink(), "1 of 20 slices are missing, the first after slice 5"),
    (lambda study: edit_series(study, 3, {"SpacingBetweenSlices": 0.4, "PixelSpacing": [6, 6]}), "only one in 20 is"),
]


@pytest.mark.parametrize(("change", "problem"), FLAWS)
def test_flaws_of_a_series_are_named_and_the_others_are_used(study, change, problem):
    change(study) if callable(change) else edit_series(study, 3, change)
    series = only(study, 3)
    assert only(study, 2).problem is None
    assert re.search(problem, series.problem)
    with pytest.raises(ValueError, match=r"^series 3: "):
        load(series)


@pytest.mark.parametrize("raw", [b"1,5 ", b"SECRET"])
def test_text_in_the_place_of_a_number(study, raw):
    """Values that pydicom refuses to convert, and quotes in its message."""
    tags = [RawDataElement(Tag(name), "DS", len(raw), raw, 0, False, True) for name in ("EchoTime", "PixelSpacing")]
    edit_series(study, 3, lambda dataset: [dataset.__setitem__(tag.tag, tag) for tag in tags])
    assert "PixelSpacing: missing" in only(study, 3).problem
    assert choose(read_series(study), {"t2": None}).chosen["t1"].candidate.series.number == 2


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_images_without_uids(study, keyword):
    edit_series(study, 3, {keyword: ""})
    damaged = "20 of 55 files are damaged DICOM files"
    message = damaged if keyword == "SOPClassUID" else f"20 MR images have no {keyword}; .* replace them"
    with pytest.raises(ValueError, match=message) as refused:
        read_series(study)
    tells_nothing(refused.value)


def test_libraries_keep_silent(study, capfd, recwarn, caplog):
    odd = {"PatientName": "SECRETNAME", "PatientBirthDate": "01.02.1970", "AcquisitionDate": "03.04.1980"}
    for number in (2, 3):
        edit_series(study, number, odd)
    for what in (caplog, recwarn):
        what.clear()
    capfd.readouterr()
    silence_libraries()
    with caplog.at_level(logging.DEBUG):
        series = read_series(study)
        choose(series)
        for one in series:
            load(one)
    said = [*capfd.readouterr(), caplog.text, *(str(warning.message) for warning in recwarn)]
    tells_nothing([line for line in said if line])
    assert "Invalid value" not in str(said)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "SECRET-9"), ("PatientName", "Secret^Other"), ("PatientBirthDate", "19800101")],
)
def test_two_patients(study, keyword, value):
    edit(files(study, 3)[0], lambda dataset: setattr(dataset, keyword, value))
    with pytest.raises(ValueError, match="images of 2 patients") as info:
        read_series(study)
    tells_nothing(info.value)


@pytest.mark.parametrize("name", ["", "SECRET PHANTOM", "Secret^Phantom^^"])
def test_one_patient_written_in_two_ways(study, name):
    edit(files(study, 3)[0], lambda dataset: setattr(dataset, "PatientName", name))
    assert len(read_series(study)) == 2


CT = {"SOPClassUID": uid.CTImageStorage, "Modality": "CT"}


def test_other_files_beside(study):
    (study / "README.txt").write_text("notes")
    (study / "DICOMDIR").write_bytes(b"")
    (study / ".DS_Store").write_bytes(b"\0")
    shutil.copy(files(study, 3)[0], study / "ct.dcm")
    edit(study / "ct.dcm", lambda dataset: dataset.update(CT | {"SOPInstanceUID": uid.generate_uid()}))
    assert [one.number for one in read_series(study)] == [2, 3]


STRANGERS = {
    **dict.fromkeys(("README", "VERSION", "autorun.inf", "index.html", "IHE_PDI/INDEX.HTM"), b"text, 1.0\r\n"),
    **dict.fromkeys(("viewer.exe", "RUN", "lib.dll"), b"MZ\x90\0\3"),
    **{"logo.jpg": b"\xff\xd8\xff\xe0\0", "report.pdf": b"%PDF\0", "empty.txt": b"", "Thumbs.db": b"\xd0\xcf\0"},
}


def test_known_strangers_beside_are_not_counted_and_others_are(study):
    for name, content in STRANGERS.items():
        (study / "002" / name).parent.mkdir(exist_ok=True)
        (study / "002" / name).write_bytes(content)
    read = read_folder(study, PHANTOM)
    assert (read.headers.unread, [each.code for each in read.remarks]) == (0, [])
    (study / "002" / "IM99").write_bytes(b"")
    shutil.copy(files(study, 3)[0], study / "packed.dcm.gz")
    read = read_folder(study, PHANTOM)
    texts = [each.text for each in read.remarks if each.code == "files_not_read"]
    assert (read.headers.unread, len(texts)) == (2, 2)
    assert (".gz): unpack it" in texts[1], "damaged or unknown" in texts[0]) == (True, True)
    assert {each.source: each.files for each in read.found} == {"series 2": 35, "series 3": 20}


@pytest.mark.parametrize("left", [b"", bytes(1000), b"\0\1\2" * 40])
def test_a_copy_that_broke_off_is_refused_whatever_its_files_are_called(study, left):
    every = [path.rename(path.with_suffix("")) for path in files(study, 2)]
    for path in every[-4:]:
        path.write_bytes(left)
    with pytest.raises(StudyError, match="4 of 55 files cannot be read, as of a copy that broke off"):
        read_series(study)
    for path in every[-3:]:
        path.unlink()
    assert len(read_series(study)) == 2  # less than a tenth: told, and the series' own numbers decide


CAPTURE = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "Modality": "MR", "SeriesDescription": "T2 tra"}


def test_what_is_not_of_a_class_of_mr_images_is_named(study):
    """Also if others are taken; if its description names a sequence that is lacking, the user is warned."""
    edit_series(study, 3, CAPTURE)
    shutil.copy(files(study, 2)[0], study / "sr.dcm")
    report = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "SeriesNumber": 9, "SeriesDescription": "T2 report"}
    edit(study / "sr.dcm", lambda dataset: dataset.update({"Rows": None, **report}))
    read = read_folder(study, PHANTOM)
    (remark,) = (each for each in read.remarks if each.code == "not_mr_image")
    assert remark.about == ("t2",)
    assert "T2 by its description, but Secondary Capture Image (20 files), not MR Image" in remark.text
    assert read.explanations[1:] == [remark.text, "series 9: left out: Basic Text SR (1 file), not MR Image."]
    told = [(each.source, each.header, each.modality, each.use) for each in read.found[1:]]
    assert told == [("series 3", "t2", None, "left_out"), ("series 9", None, None, "left_out")]
    shutil.rmtree(study / "002")
    message = r"no MR image, only 20 Secondary Capture Image \(series 3\), 1 Basic Text SR \(series 9\); expected"
    with pytest.raises(ValueError, match=message):
        read_folder(study, PHANTOM)


def only_ct(study: Path) -> None:
    shutil.rmtree(study / "002")
    edit_series(study, 3, CT)


CUT_OFF = bytes(128) + b"DICM" + b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff"  # within a sequence of undefined length


def damaged(study: Path) -> None:
    files(study, 2)[1].write_bytes(b"\0" * 1000)


def two_studies(study: Path) -> None:
    edit(files(study, 3)[0], lambda one: setattr(one, "StudyInstanceUID", uid.generate_uid()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (two_studies, "images of 2 studies; give the folder of one"),
        (only_ct, "no MR image, only 20 CT"),
        (shutil.rmtree, "no such folder"),
        (damaged, "1 of 55 files are damaged DICOM files, the first is number 2 in"),
        (lambda study: files(study, 2)[1].write_bytes(CUT_OFF), "1 of 55 files are damaged DICOM files"),
    ],
)
def test_what_is_no_study(study, change, words):
    change(study)
    with pytest.raises(FileNotFoundError if change == shutil.rmtree else StudyError, match=words) as refused:
        read_series(study)
    tells_nothing(refused.value)
    assert ".dcm" not in str(refused.value)


def test_what_cannot_be_opened_is_not_called_damaged(study, as_anybody):
    files(study, 2)[1].chmod(0)
    message = "^study: (1 of 55 files cannot be opened, the first is number 2|a folder in it cannot be read)"
    with as_anybody(), pytest.raises((ValueError, PermissionError), match=message) as refused:
        read_series("study")
    assert "002" not in str(refused.value)


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        ("1.2.840.10008.1.2.4.102", "compressed as MPEG-4 AVC/H.264 High Profile .* not supported"),
        (uid.JPEG2000Lossless, "compressed as JPEG 2000 .* no decoder is installed: pip install .*clinic"),
        (uid.JPEGExtended12Bit, "compressed as JPEG Extended .* with .* bits; .*: pip install pylibjpeg-libjpeg"),
    ],
    ids=["mpeg", "no-plugin", "12-bit"],
)
def test_compressions_that_cannot_be_decoded(tmp_path, phantom_subject, monkeypatch, syntax, message):
    write_study(tmp_path, phantom_subject, [replace(SMALL, multiframe=True, transfer_syntax=uid.JPEG2000Lossless)])
    edit(files(tmp_path, 2)[0], lambda dataset: setattr(dataset.file_meta, "TransferSyntaxUID", syntax))
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    (series,) = read_series(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(series)


def tells_nothing(said: object) -> None:
    """Assert that messages do not identify the patient."""
    for secret in ("secret", "1970", "1980", "1.2.826"):
        assert secret not in str(said).lower()


SEED = 5


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return write_studies(tmp_path_factory.mktemp("phantom") / "studies", 2, SEED)


def test_voxels_and_places_are_those_of_the_files(studies, tmp_path):
    files = generate(tmp_path / "files", 3, SEED)
    found = read_folder(studies / "Phantom_002", PHANTOM)
    assert list(found.images) == ["t1", "t1c", "t2", "flair"]
    for name, image in found.images.items():
        expected = nib.load(files / "Phantom_002" / f"Phantom_002_{'t1ce' if name == 't1c' else name}.nii.gz")
        given, back = nib.as_closest_canonical(image), nib.as_closest_canonical(expected)
        np.testing.assert_array_equal(given.get_fdata(), back.get_fdata())
        np.testing.assert_allclose(given.affine, back.affine, atol=1e-4)


def test_each_series_is_used_or_left_out_for_its_reason(studies):
    found = read_folder(studies / "Phantom_001", PHANTOM)
    assert found.sources == {"t1": "series 2", "t1c": "series 5", "t2": "series 3", "flair": "series 4"}
    left_out = [each.reason.split(" ")[0] for each in found.found if each.use == "left_out"]
    assert left_out == ["localizer", "subtraction"]
    assert {one.header.StudyInstanceUID for one in read_series(studies / "Phantom_001")}.isdisjoint(
        one.header.StudyInstanceUID for one in read_series(studies / "Phantom_002")
    )


def test_the_verb_writes_them_and_overwrites_nothing(tmp_path, capsys):
    assert run("phantom", tmp_path / "dicom", "--dicom", "--subjects", 1) is None
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'dicom'}\n"
    assert "no patient was scanned" in printed.err
    assert len(list(tmp_path.glob("dicom/Phantom_001/*/*.dcm"))) == 5 * 52 + 4
    assert "is not overwritten" in run("phantom", tmp_path / "dicom", "--dicom")
    assert "subjects 0: expected a whole number" in run("phantom", tmp_path / "none", "--dicom", "--subjects", 0)
    assert not (tmp_path / "none").exists()
