"""The command lines, as a user types them."""

import json
import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from networks.golden_m3ae import GRID_ZYX, authors_state

from common.io import load_weights
from common.networks import M3AE
from tools.__main__ import main


@pytest.fixture
def data(tmp_path) -> Path:
    """Three subjects with two modalities and a label."""
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        (tmp_path / "data" / case).mkdir(parents=True)
        for token in ("t1", "flair", "seg"):
            volume = np.zeros((5, 5, 5), np.float32)
            volume[1:4, 1:4, 1:4] = 4 if token == "seg" else rng.uniform(1, 9, (3, 3, 3))
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "data" / case / f"{case}_{token}.nii.gz")
    return tmp_path / "data"


def run(monkeypatch, *arguments: object) -> int | str | None:
    """Run ``python -m tools`` in this process; return what it exits with, None if it just ends."""
    monkeypatch.setattr(sys, "argv", ["tools", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return None


def test_datalist(monkeypatch, capsys, data, tmp_path):
    output = tmp_path / "list.json"
    code = run(
        monkeypatch, "datalist", "--cohort", "brats2020", "--dataset_dir", data, "--output", output, "--split", "full"
    )
    assert code is None
    assert "3 training, 0 validation, 0 test" in capsys.readouterr().out
    assert [item["case"] for item in json.loads(output.read_text())["training"]] == ["a", "b", "c"]


def test_check_of_good_data(monkeypatch, capsys, data):
    assert run(monkeypatch, "check", "--cohort", "brats2020", "--dataset_dir", data) is None
    printed = capsys.readouterr().out
    assert "t1+flair" in printed
    assert "3 cases, 0 with problems" in printed


def test_check_of_bad_data_exits_with_1_and_names_the_case(monkeypatch, capsys, data):
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.float32), np.eye(4)), data / "b" / "b_t1.nii.gz")
    assert run(monkeypatch, "check", "--cohort", "brats2020", "--dataset_dir", data) == 1
    assert capsys.readouterr().out.endswith("3 cases, 1 with problems\nb: t1: every voxel is 0\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cohort", "brats", "--dataset_dir", "x"), "error: Unknown cohort 'brats'"),
        (("--cohort", "brats2020", "--dataset_dir", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_errors_are_said_without_a_traceback(monkeypatch, arguments, message):
    assert message in run(monkeypatch, "check", *arguments)


def test_module_runs(monkeypatch, capsys, data):
    monkeypatch.setattr(sys, "argv", ["tools", "check", "--cohort", "brats2023", "--dataset_dir", str(data)])
    monkeypatch.delitem(sys.modules, "tools.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("tools", run_name="__main__")
    assert stop.value.code == 1
    assert "label values [4] are not of this cohort" in capsys.readouterr().out


def test_import_m3ae_writes_weights_that_load(monkeypatch, tmp_path):
    theirs = {f"module.{key}": value for key, value in authors_state(8).items()}
    torch.save({"epoch": 3, "state_dict": theirs}, tmp_path / "theirs.pth")
    assert run(monkeypatch, "import_m3ae", tmp_path / "theirs.pth", tmp_path / "model.pt") is None
    load_weights(M3AE(4, 3, 8, GRID_ZYX[::-1]), tmp_path / "model.pt")
