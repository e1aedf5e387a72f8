"""Each data set under its publisher's names, from the check of its files to a datalist; and all as one (-s)."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from bundles.running import Bundle
from layouts import LAYOUTS, write_cases
from run_tools import run as tools

from common.cohorts import get_cohort
from common.cohorts.check import check_folder
from common.cohorts.datalist import load_datalist
from common.cohorts.registry import patient_of
from common.cohorts.splits import PARTS
from common.evaluation.metrics.results import read_evaluation

GSS = Bundle("gss")
JOINED = [name for name in LAYOUTS if name not in ("brats2023", "brats2025_met", "brats2023_ped", "open_glioma")]
"""Data sets as one; the others share their cases' names with one of these."""
SMALL = {"spacing": [12, 12, 12], "crop": [16, 16, 16]}
SMALL |= {"epochs": 1, "val_interval": 1, "val_subsets": [["flair"]], "memory_format": torch.contiguous_format}
SMALL |= {"evaluation#overrides#mlflow": "none", "evaluation#overrides#subsets": [["flair"], ["t1c", "flair"]]}


def said(*arguments: object) -> str:
    """Run a verb and return what it printed last; it may find fault, as ``check`` does, but not fail otherwise."""
    printed = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(printed):
        assert tools(*arguments) in (None, 0, 1), arguments
    printed.seek(0)
    return printed.read()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_from_the_download_to_the_datalist(name, tmp_path):
    cohort, path = get_cohort(name), tmp_path / "datalist.json"
    root = write_cases(tmp_path / "data", name)
    problems = {text for row in check_folder(cohort, root)["problems"] for text in row.split("; ")}
    look = r"(?:\w+: )?it does not look like .*|it may be a subtraction.*|.*exchanged"  # the images are coarse
    assert not [text for text in problems if text and not re.fullmatch(look, text)]
    values = set(" ".join(check_folder(cohort, root)["label_values"]).split())
    assert values == {"0", *map(str, cohort.labels.meanings.values())}
    numbers = said("datalist", name, root, path).split(": ", 1)[1].strip()
    parts = load_datalist(path, root, name)
    people = [{patient_of(item) for item in parts[part]} for part in PARTS]
    print(f"\n| `{name}` | {parts['test'][0]['case']} | {numbers} | {sorted(values)} |")
    assert sum(map(len, people)) == len(set.union(*people))


@pytest.mark.slow
def test_all_as_one_with_an_evaluation_by_source(tmp_path):
    sources = {name: write_cases(tmp_path / "data" / name, name) for name in JOINED}
    path, out = tmp_path / "joined.json", tmp_path / "out"
    numbers = said("join", path, *(f"{name}={root}" for name, root in sources.items()), "--cohort", "glioma")
    base = Path(numbers.split("--dataset_dir ")[1].split()[0])
    options = {"cohort": "glioma", "dataset_dir": base, "datalist": path, "output_dir": out, **SMALL}
    GSS.run_here(["train.json", "baselines/zero_filled.json"], **options)
    tested = {item["case"]: item["source"] for item in json.loads(path.read_text())["test"]}
    assert set(tested.values()) == set(JOINED)
    assert dict(read_evaluation(out / "evaluation").sources) == tested
    table = (out / "evaluation" / "tables" / "dice_sources.html").read_text()
    print(f"\n{numbers}\n{(out / 'evaluation' / 'tables' / 'dice_sources.md').read_text()}")
    assert [name for name in JOINED if name not in table] == []
