"""Image files that do not state how they lie in space are read with a doubt, and others without one."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_case import LPS

from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.reading import read_files, read_folder

DOUBT = "does not state the orientation"


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return simulate(7)[0]["t2"].astype(np.float32)


def doubts(path: Path) -> list[str]:
    return [remark.text for remark in read_files({"t2": path}, PHANTOM).remarks if DOUBT in remark.text]


def analyze(folder: Path, voxels: np.ndarray) -> Path:
    image = nib.AnalyzeImage(voxels, None)
    image.header.set_zooms((5, 5, 6))
    nib.save(image, folder / "x_t2.img")
    return folder / "x_t2.img"


def spm(folder: Path, voxels: np.ndarray) -> Path:
    nib.save(nib.Spm2AnalyzeImage(voxels, LPS), folder / "x_t2.img")
    return folder / "x_t2.img"


def pair(folder: Path, voxels: np.ndarray) -> Path:
    nib.save(nib.Nifti1Pair(voxels, LPS), folder / "x_t2.img")
    return folder / "x_t2.img"


def nifti(folder: Path, voxels: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, LPS), folder / "x_t2.nii.gz")
    return folder / "x_t2.nii.gz"


def without_codes(folder: Path, voxels: np.ndarray) -> Path:
    image = nib.Nifti1Image(voxels, LPS)
    image.set_sform(LPS, 0)
    image.set_qform(LPS, 0)
    nib.save(image, folder / "x_t2.nii")
    return folder / "x_t2.nii"


def nrrd(folder: Path, voxels: np.ndarray, space: str = "") -> Path:
    sizes = " ".join(map(str, voxels.shape))
    spacings = "space directions: (5,0,0) (0,5,0) (0,0,6)\nspace origin: (0,0,0)\n" if space else "spacings: 5 5 6\n"
    header = f"NRRD0004\ntype: float\ndimension: 3\n{space}sizes: {sizes}\n{spacings}endian: little\nencoding: raw\n\n"
    path = folder / "x_t2.nrrd"
    path.write_bytes(header.encode() + voxels.astype("<f4").tobytes(order="F"))
    return path


def nrrd_in_space(folder: Path, voxels: np.ndarray) -> Path:
    return nrrd(folder, voxels, "space: left-posterior-superior\n")


def mha(folder: Path, voxels: np.ndarray, matrix: str = "") -> Path:
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n{matrix}"
    header += f"ElementSpacing = 5 5 6\nDimSize = {' '.join(map(str, voxels.shape))}\nElementType = MET_FLOAT\n"
    path = folder / "x_t2.mha"
    path.write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + voxels.astype("<f4").tobytes(order="F"))
    return path


def mha_with_matrix(folder: Path, voxels: np.ndarray) -> Path:
    return mha(folder, voxels, "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n")


@pytest.mark.parametrize("write", [analyze, without_codes, nrrd, mha])
def test_an_unstated_orientation_is_said(tmp_path, voxels, write):
    (doubt,) = doubts(write(tmp_path, voxels))
    assert "may be exchanged" in doubt


@pytest.mark.parametrize("write", [spm, pair, nifti, nrrd_in_space, mha_with_matrix])
def test_a_stated_one_is_not(tmp_path, voxels, write):
    assert doubts(write(tmp_path, voxels)) == []


def test_a_stray_file_is_named(tmp_path, voxels, phantom_subject):
    nifti(tmp_path, voxels)
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "IM0002").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ValueError, match=r"Of the image files move away: x_t2\.nii\.gz\.$") as refused:
        read_folder(tmp_path, PHANTOM)
    assert "x_t2" not in refused.value.public
