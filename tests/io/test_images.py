"""Volumes are read, files that are no volumes are refused, and writing is all or nothing."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from refusals import refused

from common.io.images import AtomicNibabelWriter, read_volume

AFFINE = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 239], [0, 0, 2, -5], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 9, (12, 10, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path, volume) -> Path:
    nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / "x_t1.nii.gz")
    return tmp_path / "x_t1.nii.gz"


def test_three_and_four_dimensions(path, tmp_path, volume):
    read = read_volume(path)
    assert read.dtype == torch.float32
    np.testing.assert_array_equal(read.numpy(), volume)
    np.testing.assert_array_equal(read.affine.numpy(), AFFINE)
    stack = np.stack([volume, volume + 1], axis=-1)
    nib.save(nib.Nifti1Image(stack, AFFINE), tmp_path / "x.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii").numpy(), stack)


def test_a_file_that_does_not_say_how_it_lies_is_warned_about_once_and_other_formats_are_not(path, volume, caplog):
    x, y, z = (path.with_name(name) for name in ("x.nii.gz", "y.mha", "z.hdr"))
    itk.imwrite(itk.imread(str(path)), str(y))
    nib.save(nib.AnalyzeImage(volume, None), z)
    nib.save(nib.Nifti1Image(volume, None), x)
    for file in (path, y, z, x, x):
        read_volume(file)
    (record,) = caplog.records
    assert [*read_volume(z).meta["doubts"]] == ["orientation_not_stated"]
    fact = "its header does not state the orientation (qform and sform code 0); taken as LAS"
    assert record.getMessage().startswith(f"{x}: {fact}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "EOFError"),
        (lambda data: gzip.compress(gzip.decompress(data)[:1000]), ""),
        (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "CRC check failed"),
        (lambda data: data + b"x" * 10, "Not a gzipped file"),
        (lambda data: b"not an image\n" * 100, "HeaderDataError"),
        (lambda data: b"", ""),
    ],
)
def test_missing_and_corrupt_files(path, damage, reason):
    with refused(FileNotFoundError, "x_t2.nii.gz: no such file. A listed file must exist"):
        read_volume(path.with_name("x_t2.nii.gz"))
    path.write_bytes(damage(path.read_bytes()))
    with refused(ValueError, f"{path}: cannot be read as an image", reason, "corrupt or truncated, copy or download"):
        read_volume(path)


def _header(**fields: object) -> Callable[[bytes], bytes]:
    """Return a function that sets fields of a NIfTI file's header."""

    def change(data: bytes) -> bytes:
        header = nib.Nifti1Header(data[:348])
        for name, value in fields.items():
            header[name] = value
        return header.binaryblock + data[348:]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_header(srow_x=[np.nan, 0, 0, 0]), "has NaN or Inf"),
        (_header(srow_x=0, srow_y=0, srow_z=0), "singular"),
        (_header(srow_x=[0, -1, 0.01, 10]), "singular or nearly so"),
        (_header(srow_x=[100, 0, 0, 0]), "voxels of 100 x 1 x 2 mm"),
        (_header(xyzt_units=1), "voxels of 1e.03 x 1e.03 x 2e.03 mm"),
        (_header(xyzt_units=3), "voxels of 0.001 x 0.001 x 0.002 mm"),
        (_header(dim=[3, 0, 10, 8, 1, 1, 1, 1]), "shape"),
        (_header(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "exceeds the maximum of 536870912 voxels"),
        (_header(dim=[5, 12, 10, 4, 1, 2, 1, 1]), "expected one volume"),
        (_header(magic=b"xx"), "magic string"),
    ],
)
def test_what_cannot_be_a_scan_is_refused(tmp_path, volume, change, reason):
    nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / "x.nii")
    (tmp_path / "x.nii").write_bytes(change((tmp_path / "x.nii").read_bytes()))
    with pytest.raises(ValueError, match=reason):
        read_volume(tmp_path / "x.nii")
    nib.save(nib.Nifti1Image(volume.astype(np.complex64), AFFINE), tmp_path / "x.nii")
    with pytest.raises(ValueError, match="voxels of type complex64; expected real numbers"):
        read_volume(tmp_path / "x.nii")


@pytest.mark.parametrize(
    ("change", "affine", "warning"),
    [
        (_header(qoffset_x=0, qform_code=1), AFFINE, "place voxels up to 1[0-9.]+ mm apart; the sform is used"),
        (_header(sform_code=0, qform_code=1), np.diag([-1, -1, 2, 1]), None),
    ],
    ids=["qform elsewhere", "qform alone"],
)
def test_the_affine_is_that_of_the_standard_and_doubts_are_said(tmp_path, volume, caplog, change, affine, warning):
    image = nib.Nifti1Image(volume, AFFINE)
    image.set_qform(AFFINE, 1)
    nib.save(image, tmp_path / "x.nii")
    (tmp_path / "x.nii").write_bytes(change((tmp_path / "x.nii").read_bytes()))
    read = read_volume(tmp_path / "x.nii")
    np.testing.assert_allclose(read.affine.numpy()[:3, :3], np.asarray(affine, float)[:3, :3], atol=1e-6)
    assert bool(caplog.records) == bool(warning)
    assert len(read.meta["doubts"]) == (1 if warning else 0)
    if warning:
        assert re.search(warning, caplog.text)


@pytest.mark.parametrize("further", [(1,), (1, 1), (1, 1, 1)])
def test_a_single_volume_may_have_further_dimensions(tmp_path, volume, further):
    nib.save(nib.Nifti1Image(volume.reshape(*volume.shape, *further), np.eye(4)), tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii.gz"), volume)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("suffix", "elsewhere"),
    [
        (".mha", (b"= LOCAL", b"= /etc/passwd")),
        (".nrrd", (b"encoding:", b"data file: /etc/passwd\nencoding:")),
    ],
)
def test_a_header_cannot_name_another_file(path, tmp_path, suffix, elsewhere, packed):
    file = tmp_path / f"x{suffix}"
    itk.imwrite(itk.imread(str(path)), str(file), compression=packed)
    np.testing.assert_array_equal(read_volume(file).numpy(), read_volume(path).numpy())
    np.testing.assert_allclose(read_volume(file).affine.numpy(), AFFINE)
    whole = file.read_bytes()
    other_case = elsewhere[1].replace(b"data file", b"Data  File")
    for content in (whole.replace(*elsewhere), whole.replace(elsewhere[0], other_case)):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="voxels lie in another file"):
            read_volume(file)
    joined = re.sub(rb"(CompressedData = \w+)\n", rb"\1*", whole)  # two fields of MetaImage on one line
    unsized = whole.replace(b"CompressedDataSize", b"BompressedDataSize")  # of which MetaIO makes up the voxels
    for content in (whole[: len(whole) // 2], whole.replace(b"12 10 8", b"12 10 32767"), joined, unsized):
        file.write_bytes(content)
        if content != whole:
            with pytest.raises(ValueError, match="cannot be read as an image"):
                read_volume(file)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\n", b"\r\n"),
        (b"encoding: ", b"ENCODING: "),
        (b"encoding: ", b"type:=of a program\n# data file: none\ndata file:=a note\nencoding: "),
    ],
)
def test_nrrd_as_the_specification_allows_it(path, tmp_path, before, after):
    file = tmp_path / "x.nrrd"
    itk.imwrite(itk.imread(str(path)), str(file), compression=True)
    header, blank, voxels = file.read_bytes().partition(b"\n\n")
    file.write_bytes((header + blank).replace(before, after) + voxels)
    np.testing.assert_array_equal(read_volume(file).numpy(), read_volume(path).numpy())


def test_writer_writes_what_is_read_back(tmp_path, volume):
    image = MetaTensor(volume[None], affine=torch.tensor(AFFINE), meta={"filename_or_obj": "case.nii.gz"})
    options = {"separate_folder": False, "resample": False, "print_log": False}
    SaveImage(tmp_path, "seg", writer=AtomicNibabelWriter, **options)(image)
    assert [p.name for p in tmp_path.iterdir()] == ["case_seg.nii.gz"]
    read = read_volume(tmp_path / "case_seg.nii.gz")
    np.testing.assert_array_equal(read.numpy(), volume)
    np.testing.assert_array_equal(read.affine.numpy(), AFFINE)


def test_interrupted_writer_leaves_the_old_file(path, volume, monkeypatch):
    def interrupted(image: nib.Nifti1Image, filename: Path) -> None:
        Path(filename).write_bytes(b"half")
        raise OSError("No space left on device")

    before = path.read_bytes()
    writer = AtomicNibabelWriter()
    writer.set_data_array(volume, channel_dim=None)
    writer.set_metadata({"affine": AFFINE})
    monkeypatch.setattr(nib, "save", interrupted)
    with pytest.raises(OSError, match="No space left"):
        writer.write(path)
    assert (path.read_bytes(), list(path.parent.iterdir())) == (before, [path])
