"""docs/open_glioma/members: rules are chosen as plan.md says, and each condition that fails is told."""

import sys
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, "docs/open_glioma/members")
import check
import judge
from check import Rules, choose

PARTS = ("member0", "member1", "member2")
TRUE = {"WT_true_ml": 50.0, "TC_true_ml": 20.0, "ET_true_ml": 5.0}


def rows(networks=PARTS, gain=None, score=80.0, volume=40.0, true=TRUE, mirroring=0.0) -> pd.DataFrame:
    """Return rows of two subsets; ``gain`` maps (letters of T1c, region, network) to what expected Dice adds."""
    made = []
    for network, subset, mirrored, rule in product(
        networks, ("t1", "t1+t1c"), judge.MIRRORED, map("".join, product("te", repeat=3))
    ):
        dice = {}
        for letter, name in zip(rule, check.REGIONS, strict=True):
            more = (gain or {}).get(("t1c" in subset, name), dict.fromkeys(networks, -1.0))[network]
            dice[name] = 60 + more * (letter == "e") + mirroring * (mirrored != "no")
        scores = {f"{name}_score": score - 10 * n for n, name in enumerate(check.REGIONS)}
        volumes = {f"{name}_ml": volume for name in check.REGIONS}
        keys = {"network": network, "case": "a", "subset": subset, "mirrored": mirrored, "rule": rule}
        made.append({**keys, **dice, **volumes, **scores, **true})
    return pd.DataFrame(made)


BETTER, MIXED = dict.fromkeys(PARTS, 2.0), {"member0": 9.0, "member1": 9.0, "member2": -0.1}
GAIN = {(True, "WT"): BETTER, (False, "ET"): BETTER, (False, "TC"): MIXED}
NOTHING = dict.fromkeys(TRUE, 0.0)


def brains(score: float, **changes) -> pd.DataFrame:
    return rows(score=score, true=NOTHING, **changes)


def test_a_rule_enters_only_if_it_is_better_on_each_part():
    assert choose(rows(gain=GAIN), brains(70.0)) == Rules("ett", "tte")
    assert choose(rows(gain=GAIN, mirroring=0.1), brains(70.0)).mirrored == "left and right"


def test_the_limit_is_the_gentlest_that_leaves_least_in_brains_without_a_tumour():
    """All scores of the brains are below 35 and those of the tumours above; of equal ones, the first is taken."""
    assert choose(rows(score=80.0), brains(32.0)) == Rules("ttt", "ttt", of="any", limit=35)
    part = [brains(32.0, networks=PARTS[:2]), brains(70.0, networks=PARTS[2:])]  # nothing gained on the third
    assert choose(rows(score=80.0), pd.concat(part)).limit == 0
    assert choose(rows(score=30.0), brains(32.0)).limit == 0  # the tumours would be lost


def test_below_the_limit_nothing_is_marked():
    found = Rules("ttt", "ttt", of="WT", limit=50).applied(rows(score=40.0, true=TRUE | {"ET_true_ml": 0.0}))
    assert found[["WT", "TC", "ET", "WT_ml"]].drop_duplicates().to_numpy().tolist() == [[0.0, 0.0, 100.0, 0.0]]
    assert Rules("ttt", "ttt", limit=50).applied(rows(score=50.0))["WT"].tolist() == [60.0] * 6


@pytest.fixture
def folder(tmp_path) -> Path:
    both = ("mean, logits", "default")
    rows(gain=GAIN).to_csv(tmp_path / "out_of_fold.csv", index=False)
    pd.concat([brains(32.0), brains(32.0, networks=both)]).to_csv(tmp_path / "without_tumour.csv", index=False)
    gain = {key: dict.fromkeys(both, 2.0) for key in GAIN}
    rows(both, gain).to_csv(tmp_path / "validation.csv", index=False)
    pd.DataFrame({"network": ["default", "mean"], "seconds": [20.0, 29.0]}).to_csv(tmp_path / "seconds.csv")
    pd.DataFrame({"case": ["a"], "voxels": [0]}).to_csv(tmp_path / "half.csv")
    models = tmp_path / "m3ae" / "models"
    models.mkdir(parents=True)
    (models / "model.pt").write_bytes(bytes(1000))
    return tmp_path


CHOSEN = Rules("ett", "tte", of="any", limit=35)


def test_conditions_hold(folder):
    assert all(holds for _, holds in check.conditions(folder, folder, CHOSEN))


@pytest.mark.parametrize(
    ("file", "column", "change", "told"),
    [
        ("validation", "ET", 2.1, "validation, WT"),
        ("validation", "WT", 3.1, "validation, mean"),
        ("without_tumour", "WT_score", 10.0, "brains without a tumour"),
        ("seconds", "seconds", -1.1, "predict"),
        ("half", "voxels", 1, "half precision"),
    ],
)
def test_a_condition_that_fails_is_told(folder, file, column, change, told, capsys, monkeypatch):
    path = folder / f"{file}.csv"
    table = pd.read_csv(path)
    changed = "mean, logits" if file == "without_tumour" else "default"
    table.loc[table["network"] == changed if "network" in table else slice(None), column] += change
    table.to_csv(path, index=False)
    failed = [text for text, holds in check.conditions(folder, folder, CHOSEN) if not holds]
    assert any(text.startswith(told) for text in failed), failed
    monkeypatch.setattr(check, "CHOSEN", CHOSEN)
    assert check.main(folder, folder) == 1
    assert f"FAIL {told}" in capsys.readouterr().out


def test_dice_volumes_and_scores_by_hand():
    """Six voxels of 2 ml; the smaller regions lie within the larger ones, as in a label map."""
    probabilities = torch.tensor([[0.9, 0.9, 0.9, 0.45, 0.1, 0.0], [0.9, 0.6, 0, 0, 0, 0], [0.6, 0, 0, 0, 0.4, 0]])
    truth = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    found = {row["rule"]: row for row in judge._measured(probabilities[..., None, None], truth[..., None, None], 2.0)}
    assert len(found) == 8
    plain = found["ttt"]
    assert (plain["WT"], plain["TC"], plain["ET"]) == (85.7, 66.7, 0.0)
    assert (plain["WT_ml"], plain["TC_ml"], plain["ET_ml"], plain["WT_true_ml"]) == (6.0, 4.0, 2.0, 8.0)
    assert plain["WT_score"] == pytest.approx(100 * 2 * 3.15 / (4 + 3.25), abs=0.01)  # of four voxels, above 0.869 / 2
    assert found["ett"]["WT_ml"] == 8.0
    assert found["tte"]["WT_ml"] == found["tte"]["TC_ml"] + 2 == 8.0  # ET's second voxel is TC and WT, too
    assert found["tte"]["ET_score"] == pytest.approx(100 * 2 * 1.0 / (2 + 1.0), abs=0.01)


def test_the_page_says_what_the_files_say():
    tables = {name: pd.read_csv(check.FOLDER / f"{name}.csv") for name in ("out_of_fold", "validation")}
    plain = Rules("ttt", "ttt")
    expected = {f"member {n}, threshold": ("out_of_fold", f"member{n}", plain) for n in range(3)}
    expected |= {"each on its part, rules below": ("out_of_fold", "member", check.CHOSEN)}
    expected |= {"mean of three, validation": ("validation", "mean, logits", check.CHOSEN)}
    expected |= {"default, validation": ("validation", "default", check.TODAY)}
    page = (check.FOLDER.parent / "README.md").read_text()
    for name, (table, network, rules) in expected.items():
        rows = rules.applied(tables[table][lambda each, start=network: each["network"].str.startswith(start)])
        parts = (rows, rows[rows["subset"] == "t1+t1c+t2+flair"])
        means = ["/".join(f"{value:.1f}" for value in part[check.REGIONS].mean()) for part in parts]
        assert f"| {name} | {rows['case'].nunique()} | {means[0]} | {means[1]} |" in page
