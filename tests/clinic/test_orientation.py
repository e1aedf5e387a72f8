"""Image files that do not state how they lie in space are read with a doubt, and others without one."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.spatialimages import SpatialImage
from phantom_case import LPS

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.reading import read_files, read_folder
from mmb.clinic.report.answer import answer
from mmb.clinic.report.lesions import lesions
from mmb.clinic.report.pictures import pictures
from mmb.clinic.report.sheets import sheets
from mmb.clinic.report.verdicts import Presence


@pytest.fixture(scope="module")
def voxels(phantom_volumes) -> np.ndarray:
    return np.asarray(phantom_volumes["t2"].dataobj)


def is_doubted(path: Path) -> bool:
    """Return whether the only remark is that the sides may be exchanged, since none is stated; else there is none."""
    texts = [each.text for each in read_files({"t2": path}, PHANTOM, skull_strip="no").remarks]
    assert all("does not state the orientation" in text and "may be exchanged" in text for text in texts)
    return bool(texts)


def analyze(voxels: np.ndarray) -> nib.AnalyzeImage:
    image = nib.AnalyzeImage(voxels, None)
    image.header.set_zooms((5, 5, 6))
    return image


def without_codes(voxels: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(voxels, LPS)
    image.set_sform(LPS, 0)
    image.set_qform(LPS, 0)
    return image


@pytest.mark.parametrize(
    ("suffix", "made", "stated"),
    [
        (".img", analyze, False),
        (".nii", without_codes, False),
        (".img", lambda voxels: nib.Spm2AnalyzeImage(voxels, LPS), True),
        (".img", lambda voxels: nib.Nifti1Pair(voxels, LPS), True),
        (".nii.gz", lambda voxels: nib.Nifti1Image(voxels, LPS), True),
    ],
)
def test_analyze_and_nifti(tmp_path, voxels, suffix, made: Callable[[np.ndarray], SpatialImage], stated):
    nib.save(made(voxels), tmp_path / f"x_t2{suffix}")
    assert is_doubted(tmp_path / f"x_t2{suffix}") != stated


def test_no_side_is_named_where_none_is_stated(tmp_path, voxels):
    nib.save(without_codes(voxels), tmp_path / "x_t2.nii.gz")
    (doubt,) = read_folder(tmp_path, PHANTOM).remarks
    assert (doubt.code, doubt.gravity, doubt.about) == ("orientation_not_stated", "doubt", ("t2",))
    tumour = np.zeros((20, 20, 20), bool)
    tumour[2:8, 8:14, 8:14] = True
    found, _ = lesions({"WT": tumour}, np.eye(4), tumour | True, 1.0, oriented=False)
    assert [each.side for each in found] == ["not known"]
    said = answer({"WT": 1.0}, {}, {}, found, Presence.FOUND, [], None)
    assert said == "Tumour (side not known): whole tumour 1.0 ml."
    head = {"t2": np.ones((20, 20, 20), np.float32)}
    labelled, bare = (pictures(head, tumour[None], (1, 1, 1), None, origin)["t2"] for origin in ((0, 0, 0), None))
    assert labelled != bare
    assert sheets(head, {"WT": tumour}, (1, 1, 1), None, []).first == ()


NRRD = "NRRD0004\ntype: float\ndimension: 3\nendian: little\nencoding: raw\nsizes: {}\n{}\n"
MHA = """ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nElementSpacing = 5 5 6
DimSize = {}\n{}ElementType = MET_FLOAT\nElementDataFile = LOCAL\n"""
NRRD_SPACE = "space: left-posterior-superior\nspace directions: (5,0,0) (0,5,0) (0,0,6)\nspace origin: (0,0,0)\n"


@pytest.mark.parametrize(
    ("suffix", "header", "more", "stated"),
    [
        (".nrrd", NRRD, "spacings: 5 5 6\n", False),
        (".nrrd", NRRD, NRRD_SPACE, True),
        (".mha", MHA, "", False),
        (".mha", MHA, "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n", True),
    ],
)
def test_nrrd_and_mha(tmp_path, voxels, suffix, header, more, stated):
    path, sizes = tmp_path / f"x_t2{suffix}", " ".join(map(str, voxels.shape))
    path.write_bytes(header.format(sizes, more).encode() + voxels.astype("<f4").tobytes(order="F"))
    assert is_doubted(path) != stated


def test_a_stray_file_is_named(tmp_path, phantom_volumes):
    nib.save(phantom_volumes["t2"], tmp_path / "x_t2.nii.gz")
    for name in ("IM0001", "IM0002"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ValueError, match=r"Of the image files move away: x_t2\.nii\.gz\.$") as refused:
        read_folder(tmp_path, PHANTOM)
    assert "x_t2" not in refused.value.public
