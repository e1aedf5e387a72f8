"""Equal computing time: the table of steps is computed by hand here, and measured once on the phantom."""

import json

import pandas as pd
import pytest
from run_tools import run

from mmb.experiments.budget import Part, steps_table


def part(method, name, epochs, seconds, steps, cases=1):
    loader = type("Loader", (), {"batch_size": cases, "__len__": lambda self: steps})()
    return Part(method, name, epochs, None, loader, seconds=seconds)


def test_every_method_gets_the_seconds_of_the_first():
    parts = [
        part("ModDrop", "training", 120, [1.0, 0.5, 9.0], steps=20, cases=2),  # 2,400 s
        part("M3AE", "pretraining", 18, [2.0], steps=20, cases=2),  # 720 s
        part("M3AE", "training", 46, [0.8], steps=40),  # 1,680 s are left: 52.5 epochs
        part("GSS", "training", 46, [2.0], steps=40),
    ]
    table = steps_table(parts)
    assert table["epochs"].tolist() == [120, 18, 52, 30]
    assert table["steps"].tolist() == [2400, 360, 2080, 1200]
    assert table["cases"].tolist() == [4800, 720, 2080, 1200]
    assert table["percent"].tolist() == [100, 99, 99, 100]


def test_a_pretraining_that_takes_all_the_time_is_refused():
    parts = [
        part("a", "training", 1, [1.0], 10),
        part("b", "pretraining", 2, [1.0], 10),
        part("b", "training", 1, [1.0], 1),
    ]
    with pytest.raises(ValueError, match="b: its earlier parts take 20 s of 10 s"):
        steps_table(parts)


@pytest.mark.slow
def test_the_steps_of_a_list_are_measured(tmp_path):
    small = {"spacing": [8, 8, 8], "crop": [16, 16, 16], "width": 8}
    methods = {
        "ModDrop": {
            "bundle": "m3ae",
            "configs": ["baselines/moddrop.json"],
            "settings": {**small, "grid": [30, 30, 20]},
        },
        "M3AE": {"bundle": "m3ae", "settings": {**small, "grid": [30, 30, 20], "pretrain_epochs": 3}},
    }
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"methods": methods}))
    run("budget", path, tmp_path / "steps.csv", "--steps", 2)
    table = pd.read_csv(tmp_path / "steps.csv")
    assert table["part"].tolist() == ["training", "pretraining", "training"]
    assert (table["seconds"] > 0).all()
    assert abs(table["percent"] - 100).max() < 10
