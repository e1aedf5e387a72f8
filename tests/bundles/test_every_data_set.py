"""All data sets, under their publishers' names, as one: trained on, and evaluated."""

import json

import pytest
import torch
from bundles.running import Bundle
from layouts import LAYOUTS, write_cases
from run_tools import run

from common.evaluation.metrics.results import read_evaluation

JOINED = [name for name in LAYOUTS if name not in ("brats2023", "brats2025_met", "brats2023_ped", "open_glioma")]
"""The others share their cases' names with one of these."""
SMALL = {"spacing": [12, 12, 12], "crop": [16, 16, 16]}
SMALL |= {"epochs": 1, "val_interval": 1, "val_subsets": [["flair"]], "memory_format": torch.contiguous_format}
SMALL |= {"evaluation#overrides#mlflow": "none", "evaluation#overrides#subsets": [["flair"], ["t1c", "flair"]]}


@pytest.mark.slow
def test_all_as_one(tmp_path, capsys):
    sources = {name: write_cases(tmp_path / "data" / name, name) for name in JOINED}
    path, out = tmp_path / "joined.json", tmp_path / "out"
    assert run("join", path, *(f"{name}={root}" for name, root in sources.items()), "--cohort", "glioma") is None
    base = capsys.readouterr().out.split("--dataset_dir ")[1].split()[0]
    options = {"cohort": "glioma", "dataset_dir": base, "datalist": path, "output_dir": out, **SMALL}
    Bundle("gss").run_here(["train.json", "baselines/zero_filled.json"], **options)
    tested = {item["case"]: item["source"] for item in json.loads(path.read_text())["test"]}
    assert set(tested.values()) == set(JOINED)
    assert set(read_evaluation(out / "evaluation").results["case"]) == set(tested)
