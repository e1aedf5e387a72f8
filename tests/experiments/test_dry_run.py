"""A dry run makes everything small except the list of trainings, and runs it up to its printed tables."""

import json

import pandas as pd
import pytest
from bundles.running import ROOT

from common.cohorts import get_cohort
from common.evaluation.metrics.results import read_evaluation
from experiments import trainings
from experiments.dry_run import made_small
from experiments.leaderboard import run_leaderboard
from experiments.lists import read_list

LISTS = sorted((ROOT / "bundles").glob("*.json")) + sorted((ROOT / "bundles" / "tables").glob("*.json"))


def test_sizes_are_small_and_the_method_is_as_listed(tmp_path):
    made = read_list(ROOT / "bundles" / "tables" / "m3ae_table1_4_s2.json")
    small = {entry.name: entry for entry in made_small(made.trainings(), get_cohort("brats2018"), tmp_path)}
    for entry in made.entries:
        config, before = small[entry.name].config(), entry.config()
        assert small[entry.name].files == entry.files
        assert config["epochs"] == 1
        assert config["crop"] == [16, 16, 16]
        assert config["width"] <= 8 < before["width"] or entry.name == "U-HVED"
        assert config["split"] == "fold3"
        assert config["precision"] == "float32"
        for key in ("learning_rate", "weight_decay", "batch_size", "conventions", "published", "task_loss"):
            assert config.get(key) == before.get(key)


def test_masks_and_planes_go_with_the_stand_in(tmp_path):
    made = read_list(ROOT / "bundles" / "tables" / "passion_table1_brats2020.json")
    small = made_small(made.trainings()[:2], get_cohort("brats2020"), tmp_path)
    assert small[0].config()["masks"] is None
    assert small[1].config()["masks"] == str(tmp_path / "fixed" / "mr2258.csv")
    assert small[1].config()["crop"] == [32, 32, 32]  # mmFormer needs no less
    hearts = read_list(ROOT / "bundles" / "tables" / "passion_table2_myops2020.json")
    (heart,) = made_small(hearts.trainings()[:1], get_cohort("myops2020"), tmp_path)
    assert heart.config()["crop"] == [32, 32]


@pytest.mark.slow  # prepares up to 25 trainings
@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_training_of_every_list_can_start(tmp_path, path):
    made = read_list(path)
    definition = get_cohort(made.cohort or "phantom")
    entries = made_small(made.trainings(), definition, tmp_path / "stand_in")
    folders = trainings.folders_of(entries, tmp_path)
    trainings._require_usable(entries, folders, {"cohort": definition.name})


@pytest.mark.slow  # each fold is trained and evaluated by a process of its own
def test_a_list_of_folds_runs_to_its_printed_table(tmp_path, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(ROOT)
    listed = {
        "cohort": "brats2020",
        "folds": ["cv1of2", "cv2of2"],
        "methods": {"U-Net": {"bundle": "m3ae", "configs": ["baselines/zero_filled.json", "recipes/brats2020.json"]}},
        "tables": [
            {
                "published": ["M3AE", "S3", "BraTS2020 test split (100)"],
                "rows": {"M3AE": "U-Net", "RFNet": {"unavailable": "x"}},
            }
        ],
        "notes": ["drawn folds"],
    }
    (tmp_path / "list.json").write_text(json.dumps(listed))
    run_leaderboard(str(tmp_path / "list.json"), str(tmp_path / "out"), dry_run=True)
    said = capsys.readouterr().out
    for words in ("M3AE, Table S3: Dice (%)", "Dry run: invented images", "drawn folds", "RFNet‡", "over 4 cases"):
        assert words in said
    pooled = read_evaluation(tmp_path / "out" / "u_net" / "evaluation")
    assert pooled.results["case"].nunique() == 4
    assert pooled.facts["folds"] == 2
    assert (
        read_evaluation(tmp_path / "out" / "u_net" / "evaluation" / "expected_dice").facts["decision"]
        == "expected_dice"
    )
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["state"].tolist() == ["finished", "finished"]
    assert (tmp_path / "out" / "tables" / "m3ae_s3.tex").is_file()
