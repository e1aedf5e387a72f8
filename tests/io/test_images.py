"""Reading volumes, refusing what is none, writing them whole."""

import gzip
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from common.io import AtomicNibabelWriter, read_volume

AFFINE = np.array([[-1.0, 0, 0, 10], [0, -1, 0, 239], [0, 0, 2, -5], [0, 0, 0, 1]])


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 9, (12, 10, 8)).astype(np.float32)


@pytest.fixture
def path(tmp_path, volume) -> Path:
    nib.save(nib.Nifti1Image(volume, AFFINE), tmp_path / "x_t1.nii.gz")
    return tmp_path / "x_t1.nii.gz"


def test_nifti(path, volume):
    read = read_volume(path)
    assert read.dtype == torch.float32
    np.testing.assert_array_equal(read.numpy(), volume)
    np.testing.assert_array_equal(read.affine.numpy(), AFFINE)


def test_mha_is_the_same_image(path, tmp_path):
    itk.imwrite(itk.imread(str(path)), str(tmp_path / "x.mha"))
    read = read_volume(tmp_path / "x.mha")
    np.testing.assert_array_equal(read.numpy(), read_volume(path).numpy())
    np.testing.assert_allclose(read.affine.numpy(), AFFINE)


def test_four_dimensions(tmp_path, volume):
    stack = np.stack([volume, volume + 1], axis=-1)
    nib.save(nib.Nifti1Image(stack, AFFINE), tmp_path / "x.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "x.nii").numpy(), stack)


def test_a_file_that_does_not_say_how_it_lies_is_warned_about_once(tmp_path, volume, caplog):
    for name, image in (("x.nii.gz", nib.Nifti1Image(volume, None)), ("y.hdr", nib.Nifti1Pair(volume, None))):
        caplog.clear()
        nib.save(image, tmp_path / name)
        for _ in range(2):
            read_volume(tmp_path / name)
        (record,) = caplog.records
        assert record.getMessage().startswith(
            f"{tmp_path / name}: the file does not say how it lies (qform and sform code 0); taken as LAS"
        )


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 1), (0, 2), (1, 1)])
def test_a_file_that_says_how_it_lies_by_either_code_is_not(tmp_path, volume, caplog, qform, sform):
    image = nib.Nifti1Image(volume, AFFINE)
    image.set_qform(AFFINE, qform)
    image.set_sform(AFFINE, sform)
    nib.save(image, tmp_path / "x.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "x.nii").affine.numpy(), AFFINE)
    assert not caplog.records


def test_formats_without_these_codes_are_not_warned_about(path, tmp_path, volume, caplog):
    itk.imwrite(itk.imread(str(path)), str(tmp_path / "x.mha"))
    nib.save(nib.AnalyzeImage(volume, None), tmp_path / "y.hdr")
    for name in ("x_t1.nii.gz", "x.mha", "y.hdr"):
        read_volume(tmp_path / name)
    assert not caplog.records


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x_t2\.nii\.gz: no such file\. A listed file must exist; leave a"):
        read_volume(tmp_path / "x_t2.nii.gz")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "EOFError"),
        (lambda data: data[:60], "ImageFileError"),
        (lambda data: gzip.compress(gzip.decompress(data)[:1000]), "OSError"),
        (lambda data: b"not an image\n", "not a gzip file"),
        (lambda data: b"", "Empty file"),
    ],
    ids=["truncated", "header truncated", "voxels missing", "text", "empty"],
)
def test_corrupt_file(path, damage, reason):
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="cannot be read as an image") as info:
        read_volume(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "corrupt or truncated: copy or download it again" in message


def test_writer_writes_what_is_read_back(tmp_path, volume):
    image = MetaTensor(volume[None], affine=torch.tensor(AFFINE), meta={"filename_or_obj": "case.nii.gz"})
    save = SaveImage(
        tmp_path, "seg", separate_folder=False, resample=False, writer=AtomicNibabelWriter, print_log=False
    )
    save(image)
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
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
