"""Damaged or lying image files are refused, or read as nibabel reads them in strict mode."""

import gzip

import itk
import nibabel as nib
import numpy as np
import pytest
from fuzz.attempts import attempt
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import header_dtype

from common.io import read_volume

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
