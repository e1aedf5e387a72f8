"""A dry run makes everything small except the list of trainings."""

import json

import pandas as pd
import pytest
from bundles.running import ROOT

from common.cohorts import counts_of, get_cohort, mask_cases, prepare
from common.cohorts.splits import PARTS
from common.evaluation.metrics.results import read_evaluation
from common.modalities import GLIOMA
from common.transforms import LoadSubjectd
from mmb.experiments import trainings
from mmb.experiments.dry_run import made_small, on_phantoms
from mmb.experiments.leaderboard import run_leaderboard
from mmb.experiments.lists import read_list
from mmb.experiments.training import Entry

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
        for key in ("learning_rate", "weight_decay", "batch_size", "conventions", "task_loss"):
            assert config.get(key) == before.get(key)


def test_masks_and_planes_have_counterparts(tmp_path):
    made = read_list(ROOT / "bundles" / "tables" / "passion_table1_brats2020.json")
    configs = [entry.config() for entry in made_small(made.trainings()[:2], get_cohort("brats2020"), tmp_path)]
    assert [config["masks"] for config in configs] == [None, None]
    assert configs[1]["crop"] == [32, 32, 32]  # mmFormer needs no less
    items = prepare("brats2020", configs[1]["dataset_dir"], datalist=configs[1]["datalist"])["training"]
    masked = mask_cases(items, GLIOMA, configs[1]["missing_rates"], seed=configs[1]["mask_seed"])
    assert min(counts_of(masked, GLIOMA)) > 0
    assert sum(len(item["modalities"]) for item in masked) < len(items) * len(GLIOMA)
    hearts = read_list(ROOT / "bundles" / "tables" / "passion_table2_myops2020.json")
    (heart,) = made_small(hearts.trainings()[:1], get_cohort("myops2020"), tmp_path)
    assert heart.config()["crop"] == [32, 32]


@pytest.mark.parametrize("name", ["brats2015", "brats2020", "msd_task01", "iseg2017", "myops2020", "brats_ped"])
def test_phantoms_have_the_modalities_and_label_values_of_the_cohort(tmp_path, name):
    cohort = get_cohort(name)
    config = on_phantoms([Entry("x", "m3ae", settings={"split": None})], cohort, tmp_path)[0].config()
    parts = prepare(name, config["dataset_dir"], datalist=config["datalist"])
    assert [len(parts[part]) for part in PARTS] == [4, 1, 2]
    loaded = LoadSubjectd(name)(parts["training"][0])
    assert loaded["image"].shape[0] == len(cohort.modalities)
    assert not loaded["image"].isnan().any()
    assert len(cohort.labels.to_classes(loaded["label"]).unique()) == 4


def test_folds_test_on_other_cases_of_the_same(tmp_path):
    entries = [Entry(split, "m3ae", settings={"split": split}) for split in ("cv1of3", "cv2of3", "cv3of3")]
    tested, everything = [], []
    for entry in on_phantoms(entries, get_cohort("brats2020"), tmp_path):
        config = entry.config()
        parts = prepare("brats2020", config["dataset_dir"], datalist=config["datalist"])
        tested += [item["case"] for item in parts["test"]]
        everything.append({item["case"] for items in parts.values() for item in items})
    assert len(set(tested)) == len(tested)
    assert everything[0] == everything[1] == everything[2] == set(tested)


@pytest.mark.slow  # prepares up to 18 trainings
@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_training_of_every_list_can_start(tmp_path, path):
    made = read_list(path)
    definition = get_cohort(made.cohort or "phantom")
    entries = made_small(made.entries, definition, tmp_path / "data")
    trainings._require_usable(entries, trainings.folders_of(entries, tmp_path), {"cohort": definition.name})


@pytest.mark.slow  # each fold is trained and evaluated by a process of its own
def test_a_list_of_folds_runs_to_its_printed_table(tmp_path, monkeypatch, capsys, undrawn):
    monkeypatch.chdir(ROOT)
    method = {"bundle": "m3ae", "configs": ["baselines/zero_filled.json", "recipes/brats2020.json"]}
    table = {"published": ["M3AE", "S3", "BraTS2020 test split (100)"]}
    table["rows"] = {"M3AE": "U-Net", "RFNet": {"unavailable": "x"}}
    listed = {"cohort": "brats2020", "folds": ["cv1of2", "cv2of2"], "methods": {"U-Net": method}}
    listed |= {"tables": [table], "notes": ["drawn folds"]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    run_leaderboard(str(tmp_path / "list.json"), str(tmp_path / "out"), dry_run=True)
    said = capsys.readouterr().out
    for words in ("M3AE, Table S3: Dice (%)", "Dry run: invented images", "drawn folds", "RFNet‡", "over 4 cases"):
        assert words in said
    pooled = read_evaluation(tmp_path / "out" / "u_net" / "evaluation")
    assert pooled.results["case"].nunique() == 4
    assert pooled.facts["folds"] == 2
    other = read_evaluation(tmp_path / "out" / "u_net" / "evaluation" / "expected_dice")
    assert other.facts["decision"] == "expected_dice"
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["state"].tolist() == ["finished", "finished"]
    assert (tmp_path / "out" / "tables" / "m3ae_s3.tex").is_file()
