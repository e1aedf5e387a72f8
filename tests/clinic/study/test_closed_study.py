"""A study as a hospital sends it: two T1 of one name, before and after contrast agent, beside a T1c in another plane.

Only the images tell the two apart. It is made of a phantom, after a real study that may not be shown.
"""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_studies import MPRAGE, T1_SE, T2_TSE, Scan, write_study
from heads import with_heads
from phantom_case import HEAD, LPS, write_case
from run_tools import run

from common.cohorts.registry import PHANTOM
from mmb.clinic.study.doubts import study_warnings
from mmb.clinic.study.reading import read_folder

PLANE = {"plane": "axial", "tilt": (8, -4, 6), "spacing": (2, 2, 5)}
FLAIR = T2_TSE | {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 11000, "EchoTime": 125, "InversionTime": 2800}
T2_STAR = {"ScanningSequence": "GR", "MRAcquisitionType": "2D", "RepetitionTime": 700, "EchoTime": 23, "FlipAngle": 18}
SCANS = (
    Scan(301, "t2", "T2W_TSE", T2_TSE, **PLANE),
    Scan(401, "flair", "FLAIR_longTR", FLAIR, **PLANE),
    Scan(501, "t2", "T2W_FFE", T2_STAR, **PLANE),
    Scan(601, "t1", "T1W_SE", T1_SE, **PLANE),
    Scan(701, "t1c", "T1W_SE", T1_SE, **PLANE),
    Scan(751, "t1c-t1", "SUB T1W_SE", T1_SE, **PLANE),
    Scan(801, "t1c", "T1W_3D_TFE Gd", MPRAGE, "coronal", (4, -3, 5), (2, 2, 2)),
)
USED = {"t1": "series 601", "t1c": "series 701", "t2": "series 301", "flair": "series 401"}


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "case"
    write_case(folder, "case", seed=77_080, box=HEAD)
    return folder


@pytest.mark.slow  # the sequence check on seven series
@pytest.mark.parametrize("scans", [SCANS, SCANS[::-1][1:]], ids=["as sent", "without the coronal one"])
def test_it_is_read_with_its_own_files_and_no_option(subject, tmp_path, scans):
    write_study(tmp_path, subject, scans)
    found = read_folder(tmp_path, PHANTOM)
    assert found.sources == USED
    assert (found.used["t1"].stated_grade, found.used["t1c"].stated_grade) == (None, None)
    assert found.used["t1c"].reason.startswith("by what it shows; its header: words: 't1'")
    expected = [
        "T1c too, but not used: series 801 (coronal, 2 x 2 x 2 mm), since series 701 (axial, 2 x 2 x 5 mm) is in the "
        "plane and resolution of the others."
    ]
    assert found.notes == (expected if scans is SCANS else [])
    assert [*study_warnings(found)] == []
    left_out = {line.split(":")[0] for line in found.explanations if "left out" in line}
    assert left_out == {"series 501", "series 751"}


@pytest.mark.slow  # the sequence check on seven series
def test_two_t1_after_contrast_agent_make_no_t1(subject, tmp_path):
    scans = [scan if scan.number != 601 else Scan(601, "t1c", "T1W_SE", T1_SE, **PLANE) for scan in SCANS]
    write_study(tmp_path, subject, scans)
    found = read_folder(tmp_path, PHANTOM)
    assert found.sources == {name: source for name, source in USED.items() if name != "t1"}
    assert len(found.notes) == 2
    assert (
        len([line for line in found.explanations if re.match(r"series [678]01: T1c.*; its image shows T1c", line)]) == 3
    )


@pytest.mark.slow  # deepbet on ten images
def test_from_heads_it_is_segmented_with_its_own_files_and_no_option(subject, tmp_path, capsys):
    files = {name: subject / f"case_{'t1ce' if name == 't1c' else name}.nii.gz" for name in USED}
    heads = with_heads({name: np.asarray(nib.load(path).dataobj) for name, path in files.items()})
    (tmp_path / "head").mkdir()
    for name, path in files.items():
        nib.save(nib.Nifti1Image(heads[name], LPS), tmp_path / "head" / path.name)
    write_study(tmp_path / "study", tmp_path / "head", SCANS)
    options = ("--recipe", "phantom", "--device", "cpu")
    assert run("predict", tmp_path / "study", tmp_path / "out", "m3ae", *options) is None
    said, page = capsys.readouterr().out, (tmp_path / "out" / "summary.html").read_text()
    for name, source in USED.items():
        assert re.search(rf"{source}: {name.upper().replace('T1C', 'T1c')}.*; taken", said)
    assert "T1c too, but not used: series 801" in page
    assert "exchanged" not in page
