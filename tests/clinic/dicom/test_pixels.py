"""What a header says of its pixels is checked before decoding, and the decoded pixels are checked against it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_studies import MPRAGE, T2_TSE, Scan, edit, edit_series, files, read_series, write_study
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from common.cohorts.registry import PHANTOM
from mmb.clinic.intake.pixels import load
from mmb.clinic.recognise.reading import read_folder

SMALL = Scan(2, "t1", "t1_mprage", MPRAGE, spacing=(8, 6, 8))
OTHER = Scan(3, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 8))


@pytest.fixture(scope="module")
def written(tmp_path_factory, phantom_subject) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, phantom_subject, [SMALL, OTHER])
    return folder


@pytest.fixture
def study(tmp_path, written) -> Path:
    return shutil.copytree(written, tmp_path / "study")


def change(study: Path, one: bool = False, **values: object) -> None:
    """Set attributes of all images of the T1, or of one in its middle; None removes an attribute."""

    def set_them(dataset: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                del dataset[keyword]
            elif isinstance(value, bytes):
                dataset[keyword] = RawDataElement(Tag(keyword), "DS", len(value), value, 0, False, True)
            else:
                dataset[keyword].value = value

    for path in files(study, 2)[5:6] if one else files(study, 2):
        edit(path, set_them)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR; expected MONOCHROME1 or MONOCHROME2"),
        ({"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3}, "YBR_FULL_422; expected"),
        ({"PhotometricInterpretation": "SECRET"}, "of no known kind; expected"),
    ],
    ids=lambda case: case.get("PhotometricInterpretation") if isinstance(case, dict) else "",
)
def test_a_series_in_colour_is_left_out_and_refused_if_it_is_asked_for(study, values, reason):
    """ITK aborts the process at the first of them."""
    change(study, **values)
    found = read_folder(study, PHANTOM)
    assert list(found.images) == ["t2"]
    (line,) = (line for line in found.explanations if line.startswith("series 2"))
    assert "left out: 20 of its 20 images are in colour" in line
    assert reason in line
    with pytest.raises(ValueError, match=r"--series: t1: series 2 cannot be used: .* in colour") as refused:
        read_folder(study, PHANTOM, by_hand={"t1": 2})
    assert reason in str(refused.value)


@pytest.mark.parametrize("one", [False, True], ids=["all", "one"])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"PhotometricInterpretation": None}, "lack PhotometricInterpretation"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel 3; expected 1"),
        ({"BitsAllocated": 1}, "BitsAllocated 1; expected 8 or 16 or 32"),
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored 17; expected 1 to 16"),
        ({"HighBit": 15}, "HighBit 15; expected 11"),
        ({"PixelRepresentation": 7}, "PixelRepresentation 7; expected 0 or 1"),
        ({"RescaleSlope": 0}, "RescaleSlope 0; expected more than 0"),
        ({"RescaleSlope": b"abc "}, "RescaleSlope that is not a number"),
        ({"RescaleIntercept": b"1\\2 "}, "RescaleIntercept that is not a number"),
    ],
    ids=lambda case: "-".join(f"{key} {value}" for key, value in case.items()) if isinstance(case, dict) else "",
)
def test_what_a_header_can_not_mean_is_refused(study, values, reason, one):
    change(study, one, **values)
    with pytest.raises(ValueError, match=r"^series 2 is the only T1 .* To go on without it: --series") as refused:
        read_folder(study, PHANTOM)
    assert reason in str(refused.value)
    assert f"cannot be used: {1 if one else 20} of its 20 images " in str(refused.value)
    assert list(read_folder(study, PHANTOM, by_hand={"t1": None}).images) == ["t2"]


@pytest.mark.parametrize("count", [0, 100, 2398, 2402, 4800])
def test_pixels_are_as_many_bytes_as_the_header_says(study, count):
    path = files(study, 2)[5]
    assert len(pydicom.dcmread(path).PixelData) == 2400
    edit(path, lambda dataset: setattr(dataset, "PixelData", (2 * dataset.PixelData)[:count]))
    said = rf"its pixels are damaged or cut off \({count} bytes; expected 2400\)" if count else "it has no pixels"
    with pytest.raises(ValueError, match=rf"^series 2: image 6 of 20: {said}"):
        read_folder(study, PHANTOM)


def test_an_odd_number_of_pixels_is_padded(tmp_path, phantom_subject):
    (volume,) = write_study(tmp_path, phantom_subject, [SMALL])
    stored = (volume.get_fdata() + 16) / 32

    def halve(dataset):
        plane = stored[:-1, :-1, round((dataset.InstanceNumber - 1) % 1000)].T.astype(np.uint8)
        dataset.Rows, dataset.Columns = plane.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = plane.tobytes() + b"\0" * (plane.size % 2)

    edit_series(tmp_path, 2, halve)
    (series,) = read_series(tmp_path)
    assert series.shape[0] * series.shape[1] % 2 == 1
    np.testing.assert_array_equal(load(series).dataobj, stored[:-1, :-1].astype(np.uint8) * 0.5 - 16)


def test_a_slope_alone_counts(study, written):
    change(study, RescaleIntercept=None)
    before, after = (load(read_series(folder)[0]).get_fdata() for folder in (written, study))
    np.testing.assert_array_equal(after, before + 16)


def load_changed(
    folder: Path, subject: Path, change: Callable[[pydicom.Dataset], None], which: int = 0, **scan: object
) -> np.ndarray:
    """Return the voxels of a series of which one file was changed."""
    write_study(folder, subject, [replace(SMALL, **{"spacing": (6, 5, 8)} | scan)])
    edit(files(folder, 2)[which], change)
    (series,) = read_series(folder)
    return load(series).get_fdata()


@pytest.mark.parametrize("count", [10**9, 2, 0])
def test_a_multiframe_image_has_the_frames_that_it_describes(tmp_path, phantom_subject, count):
    with pytest.raises(ValueError, match=rf"^series 2: its header announces {count or 1} frames but describes 20"):
        load_changed(tmp_path, phantom_subject, lambda one: setattr(one, "NumberOfFrames", count), multiframe=True)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=["JPEG 2000", "JPEG-LS"])
@pytest.mark.parametrize("size", [(48, 40), (60000, 60000)], ids=["turned", "huge"])
def test_a_compressed_image_is_as_large_as_the_header_says(tmp_path, phantom_subject, syntax, size):
    """Decoders follow the stream: with another shape the pixels are wrong, and a large one fills the memory."""

    def turn(dataset):
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        assert (dataset.Columns, dataset.Rows) == (40, 48)
        wide = syntax == JPEG2000Lossless
        width, at = (4, frame.index(b"\xff\x51") + 6) if wide else (2, frame.index(b"\xff\xf7") + 5)
        columns, rows = (value.to_bytes(width, "big") for value in size)
        both = columns + rows if wide else rows + columns
        dataset.PixelData = encapsulate([frame[:at] + both + frame[at + 2 * width :]])

    with pytest.raises(ValueError, match=rf"damaged \({size[0]} x {size[1]} are compressed; expected 40 x 48\)"):
        load_changed(tmp_path, phantom_subject, turn, transfer_syntax=syntax)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless], ids=["JPEG 2000", "JPEG-LS", "RLE"])
def test_a_compressed_image_that_ends_too_early(tmp_path, phantom_subject, syntax):
    """The decoder for JPEG-LS makes up the rest."""

    def cut(dataset):
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData = encapsulate([frame[: len(frame) * 3 // 4]])

    with pytest.raises(ValueError, match=r"^series 2: image 1 of 20: its pixels are (damaged or )?cut off"):
        load_changed(tmp_path, phantom_subject, cut, transfer_syntax=syntax)


def test_run_lengths_are_of_as_many_pixels_as_the_header_says(tmp_path, phantom_subject):
    """pydicom would ignore the surplus."""
    write_study(tmp_path, phantom_subject, [replace(SMALL, spacing=(6, 5, 8), transfer_syntax=RLELossless)])
    edit_series(tmp_path, 2, {"Rows": 47})
    with pytest.raises(ValueError, match=r"^series 2: image 1 of 20: its pixels are damaged"):
        load(read_series(tmp_path)[0])


@pytest.mark.parametrize("compressed", [RLELossless, JPEG2000Lossless, JPEGLSLossless, None], ids=str)
@pytest.mark.parametrize("signed", [0, 1])
def test_no_value_beyond_its_bits_is_read(tmp_path, phantom_subject, compressed, signed):
    """What lies above HighBit in native pixels is no value, e.g. an overlay; of a codec it would be one."""
    (expected,) = write_study(tmp_path / "as it was", phantom_subject, [replace(SMALL, spacing=(6, 5, 8))])

    def fill(dataset):
        dataset.PixelRepresentation = signed
        stored = dataset.pixel_array.astype(np.int16 if signed else np.uint16) % 2048
        stored[0] += 8192
        dataset.PixelData, dataset.BitsStored, dataset.HighBit = stored.tobytes(), 16, 15
        if compressed:
            dataset.compress(compressed, generate_instance_uid=False)
        dataset.BitsStored, dataset.HighBit = 12, 11

    if compressed in (JPEG2000Lossless, JPEGLSLossless):
        with pytest.raises(ValueError, match=r"image 6 of 20: it has values beyond its 12 bits \(BitsStored\)"):
            load_changed(tmp_path / "study", phantom_subject, fill, 5)
    else:
        stored = np.round((expected.get_fdata()[..., 5] + 16) / 0.5) % 2048
        found = load_changed(tmp_path / "study", phantom_subject, fill, 5)[..., 5]
        np.testing.assert_array_equal(found, stored * 0.5 - 16)
