"""Damaged or lying files are refused, or read as pydicom reads each image of a study, and nibabel in strict mode."""

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_studies import ACCESSION, MPRAGE, T2_TSE, Scan, write_study
from fuzz.attempts import attempt
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import header_dtype
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from common.cohorts.registry import PHANTOM
from common.io.images import read_volume
from mmb.clinic.intake.pixels import load
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.reading import Study, read_folder

ENCODINGS = {
    "plain": {},
    "multi-frame": {"multiframe": True},
    "RLE": {"transfer_syntax": RLELossless},
    "JPEG 2000": {"transfer_syntax": JPEG2000Lossless, "multiframe": True},
    "JPEG-LS": {"transfer_syntax": JPEGLSLossless},
}
SECRETS = re.compile(rf"secret|19700101|1\.2\.826|{ACCESSION}", re.IGNORECASE)
VALUES = [
    b"", b"0", b"-1", b"1", b"2", b"7", b"16", b"nan", b"inf", b"1e300", b"abc", b"1\\2\\3", b"\\", b"\xff\xfe", b"RGB",
    b"PALETTE COLOR", b"99999999999", b"65535", b"\0\0", b"\x08\0", b"\x20\0", b"\xff\xff", b"1.2.3", b"YES",
]  # fmt: skip
KINDS = [
    "DS", "IS", "US", "SS", "UI", "CS", "PN", "LO", "DA", "SQ", "OB", "OW", "UN", "FD", "AT", "UL", "UC", "OV", "ZZ",
]  # fmt: skip
PIXELS = b"\xe0\x7f\x10\x00"


@pytest.fixture(scope="module")
def studies(tmp_path_factory, phantom_dir) -> dict[str, Path]:
    """A T1 and a T2 of seven slices, in each encoding."""
    subject, folder = sorted(phantom_dir.glob("Phantom_*"))[0], tmp_path_factory.mktemp("dicom")
    for name, encoding in ENCODINGS.items():
        scans = [
            Scan(2, "t1", "t1_mprage", MPRAGE, spacing=(6, 5, 16), slices=7, **encoding),
            Scan(3, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 16), slices=7),
        ]
        write_study(folder / name, subject, scans)
    return {name: folder / name for name in ENCODINGS}


encodings = st.sampled_from(list(ENCODINGS))
which = st.sampled_from([slice(None), slice(0, 1), slice(3, 4), slice(-1, None)])
"""Of the T1's files."""


def changed(tmp_path_factory, study: Path, files: slice, change: Callable[[Path], None]) -> Path:
    folder = tmp_path_factory.getbasetemp() / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(study, folder)
    for path in sorted((folder / "002").iterdir())[files]:
        change(path)
    return folder


def read(folder: Path) -> Study:
    """Read a study; no message about it may identify the patient."""
    try:
        study = read_folder(folder, PHANTOM)
    except (ValueError, OSError) as error:
        tells_nothing(str(error).replace(str(folder), ""))
        raise
    reasons = [record.reason for record in study.used.values()]
    tells_nothing(" ".join([*study.explanations, *(remark.text for remark in study.remarks), *reasons]))
    return study


def tells_nothing(said: str) -> None:
    assert not SECRETS.search(said), said


def is_right(study: Study) -> bool:
    return all(as_pydicom_reads_it(series) for series in study.series.values())


def as_pydicom_reads_it(series: Series) -> bool:
    """Return whether each slice holds what pydicom reads from its file, at the position given in the file."""
    volume = load(series)
    lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    for k in range(volume.shape[2]):
        image = header = pydicom.dcmread(series.files[0 if series.multiframe else k])
        stored, position = image.pixel_array, image.get("ImagePositionPatient")
        if series.multiframe:
            stored = stored.reshape(-1, *stored.shape[-2:])[series.frames[k]]
            header = (image.SharedFunctionalGroupsSequence[0].get("PixelValueTransformationSequence") or [Dataset()])[0]
            frame = image.PerFrameFunctionalGroupsSequence[series.frames[k]]
            position = frame.PlanePositionSequence[0].ImagePositionPatient
        slope, intercept = (float(header.get(f"Rescale{name}", "") or default) for name, default in
                            (("Slope", 1), ("Intercept", 0)))  # fmt: skip
        stored = stored.astype(np.float64)
        if image.PhotometricInterpretation == "MONOCHROME1":
            stored = (-1 if image.PixelRepresentation else 2**image.BitsStored - 1) - stored
        expected = (stored * slope + intercept).astype(np.float32).T
        beside = np.abs(lps[:3, 3] + k * lps[:3, 2] - np.array(position, float)).max()
        bits = image.Rows * image.Columns * image.BitsAllocated * int(image.get("NumberOfFrames") or 1)
        whole = image.file_meta.TransferSyntaxUID.is_encapsulated or 0 <= len(image.PixelData) - bits // 8 <= 1
        if not (np.array_equal(volume.dataobj[..., k], expected) and beside < 3 and whole):
            return False
    return True


@given(encodings, which, st.integers(0), st.sampled_from(VALUES), st.none() | st.sampled_from(KINDS))
def test_attributes(tmp_path_factory, studies, encoding, files, number, value, kind):
    """An attribute has another value or another value representation."""

    def change(path: Path) -> None:
        image = pydicom.dcmread(path)
        tags = [tag for tag in image.keys() if tag.group < 0x7FE0]  # noqa: SIM118  iterating converts
        tag = tags[number % len(tags)]
        if kind is None:
            padded = value + b" " * (len(value) % 2)
            was = image.get_item(tag).VR
            image[tag] = RawDataElement(tag, "LO" if was == "SQ" else was, len(padded), padded, 0, False, True)
            image.save_as(path)
        else:
            name = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
            before, _, after = path.read_bytes().partition(name)
            path.write_bytes(before + name + kind.encode() + after[2:])

    folder = changed(tmp_path_factory, studies[encoding], files, change)
    attempt(lambda: read(folder), is_right)


@given(
    encodings,
    which,
    st.sampled_from(["header", "pixels", "all"]),
    st.sampled_from(["flip", "cut", "insert"]),
    st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
)
def test_bytes(tmp_path_factory, studies, encoding, files, where, how, numbers):
    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        pixels = content.index(PIXELS)
        start, end = {"header": (132, pixels), "pixels": (pixels, len(content)), "all": (0, len(content))}[where]
        for value in numbers:
            at = start + value // 8 % (end - start)
            if how == "flip":
                content[at] ^= 1 << value % 8
            elif how == "insert":
                content[at:at] = value.to_bytes(6, "little")
            else:
                del content[at:]
                break
        path.write_bytes(content)

    folder = changed(tmp_path_factory, studies[encoding], files, change)
    attempt(lambda: read(folder), is_right)


SHAPE = (6, 5, 4)
AFFINE = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 39], [0, 0, 2, -5], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
FIELDS = [name for name in header_dtype.names if header_dtype[name].base.kind in "iuf"]
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 4, 8, 16, 64, 512, 32767, -32768, 65535, 2**31 - 1]),
    st.floats(width=32),
    st.integers(-40000, 40000),
)


def nifti() -> bytes:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.set_qform(AFFINE, 1)
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def flipped(content: bytes, bits: list[int]) -> bytes:
    changed = bytearray(content)
    for bit in bits if changed else ():
        changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def as_nibabel_reads_it(content: bytes, volume) -> bool:
    """Return whether voxels and affine equal nibabel's, which repairs what can be repaired in a header."""
    with nib.imageglobals.ErrorLevel(100):
        image = nib.Nifti1Image.from_bytes(content)
    units = {0: 1, 1: 1000, 2: 1, 3: 0.001}.get(int(image.header["xyzt_units"]) % 8, 1)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    voxels = voxels[..., 0] if voxels.ndim == 4 and voxels.shape[3] == 1 else voxels
    affine = np.diag([units, units, units, 1]) @ image.affine
    same = np.array_equal(volume.numpy(), voxels, equal_nan=True)
    return same and np.allclose(volume.affine.numpy(), affine, rtol=1e-6, atol=0)


@given(st.dictionaries(st.sampled_from(FIELDS), st.lists(NUMBERS, min_size=1, max_size=8), min_size=1, max_size=3))
def test_fields_of_a_header(tmp_path_factory, fields):
    content = nifti()
    header = np.frombuffer(content[:348], header_dtype).copy()[0]
    with np.errstate(all="ignore"):
        for name, values in fields.items():
            kind = header_dtype[name]
            numbers = np.resize(np.array(values, float), kind.shape)
            if kind.base.kind in "iu":
                numbers = np.nan_to_num(numbers, posinf=0, neginf=0).astype(np.int64)
            header[name] = numbers.astype(kind.base)
    content = header.tobytes() + content[348:]
    path = tmp_path_factory.getbasetemp() / "fields.nii"
    path.write_bytes(content)
    attempt(lambda: read_volume(path), lambda v: as_nibabel_reads_it(content, v))


@given(st.lists(st.integers(0, 2**16), max_size=2), st.integers(0, 400), st.binary(max_size=40))
def test_a_packed_file_is_as_it_was_written(tmp_path_factory, bits, cut, more):
    whole = gzip.compress(nifti(), mtime=0)
    content = flipped(whole[: len(whole) - cut], bits) + more
    path = tmp_path_factory.getbasetemp() / "packed.nii.gz"
    path.write_bytes(content)

    def is_right(volume) -> bool:
        return np.array_equal(volume.numpy(), VOXELS) and np.array_equal(volume.affine.numpy(), AFFINE)

    attempt(lambda: read_volume(path), is_right)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@given(st.lists(st.integers(0, 2**15), max_size=3), st.integers(0, 60), st.binary(max_size=9), st.booleans())
def test_metaimage_and_nrrd(tmp_path_factory, suffix, bits, cut, more, packed):
    path = tmp_path_factory.getbasetemp() / f"other{suffix}"
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(VOXELS.T)), str(path), compression=packed)
    whole = path.read_bytes()
    end = whole.index(b"\n\n" if suffix == ".nrrd" else b"LOCAL\n")
    content = flipped(whole[: len(whole) - cut], [bit % (8 * end) for bit in bits]) + more * (cut == 0)  # voxels stay
    path.write_bytes(content)

    def is_right(volume) -> bool:
        """The voxels are the file's, in any shape; the header may state another type for them."""
        said = (b"type: short", b"endian: little") if suffix == ".nrrd" else (b"MET_SHORT", b"MSB = False")
        same = np.array_equal(np.sort(volume.numpy(), axis=None), np.sort(VOXELS, axis=None))
        return (same or not all(text in content for text in said)) and volume.ndim in (3, 4)

    attempt(lambda: read_volume(path), is_right)
