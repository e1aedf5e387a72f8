"""A folder of studies in one command."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from run_tools import run

from common.cohorts.phantom.simulation import SPACING

OPTIONS = ("--each", "--device", "cpu", "--recipe", "phantom")


@pytest.fixture
def studies(tmp_path, subject) -> Path:
    """A good study, one without any known sequence, and one whose name has spaces."""
    for place, modality in (("a & b/c", "flair"), ("good", "t2")):
        Path(tmp_path, "studies", place).mkdir(parents=True)
        file = f"Doe_{modality}.nii.gz"
        Path(tmp_path, "studies", place, file).symlink_to(subject / file)
    Path(tmp_path, "studies", "bad").mkdir()
    Path(tmp_path, "studies", "bad", "notes.txt").write_text("no image")
    return tmp_path / "studies"


@pytest.mark.slow  # several segmentations
def test_a_bad_study_stops_nothing_and_nothing_is_done_twice(studies, tmp_path, capsys):
    out = tmp_path / "out"
    error = run("predict", studies, out, "m3ae", *OPTIONS)
    assert error == "error: 1 of 3 studies were not segmented: bad; see studies.csv."
    said = capsys.readouterr().out
    assert "In the study good:" in said
    assert re.search(r"In the study good:\n.*\nSegmenting; .*\nStudy 3:\n  good: segmented\n", said)
    assert f"bad: not segmented: {studies / 'bad'}: " in said
    made = {name: Path(out, name, "label.nii.gz") for name in ("good", "a & b")}
    rows = pd.read_csv(out / "studies.csv").set_index("study")
    assert [*rows.index] == ["a & b", "bad", "good"]
    assert rows.failure["bad"].startswith(f"{studies / 'bad'}: ")
    assert (rows.used["good"], rows.WT_verdict["good"]) == ("t2", "not reliable")
    label = np.asarray(nib.load(made["good"]).dataobj)
    assert rows.WT_ml["good"] == pytest.approx((label > 0).sum() * SPACING**3 / 1000, rel=1e-6)
    times = {name: path.stat().st_mtime_ns for name, path in made.items()}
    alone = tmp_path / "alone"  # a second study in one process is segmented as in a process of its own
    assert run("predict", studies / "good", alone, "m3ae", "--device", "cpu", "--recipe", "phantom") is None
    assert Path(alone, "label.nii.gz").read_bytes() == made["good"].read_bytes()

    made["good"].unlink()  # interrupted
    studies.joinpath("bad", "notes.txt").unlink()
    studies.joinpath("bad").rmdir()
    capsys.readouterr()
    assert run("predict", studies, out, "m3ae", *OPTIONS) is None
    said = capsys.readouterr().out
    assert "a & b: segmented before" in said
    assert "good: segmented\n" in said
    assert made["a & b"].stat().st_mtime_ns == times["a & b"]
    assert made["good"].stat().st_mtime_ns > times["good"]
    assert [one["study"] for one in json.loads((out / "studies.json").read_text())] == ["a & b", "good"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.rmdir(), "no such folder; expected one with a subfolder for each study."),
        (lambda folder: None, "no subfolder; expected one for each study."),
        (lambda folder: (folder / "x_t1.nii.gz").touch(), "1 images lie beside the subfolders; with --each"),
    ],
)
def test_what_is_no_folder_of_studies_is_refused(make, message, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    make(folder)
    assert message in run("predict", folder, tmp_path / "out", "m3ae", *OPTIONS)
    assert not list((tmp_path / "out").glob("[!.]*"))
