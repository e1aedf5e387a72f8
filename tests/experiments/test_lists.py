"""The lists of the papers' tables name only what exists; anything else is refused. A dry run makes all else small."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from bundles.running import ROOT
from refusals import refused

from common.cohorts import counts_of, get_cohort, mask_cases, prepare
from common.cohorts.missing import published_masks
from common.cohorts.splits import PARTS, official_splits
from common.evaluation.metrics.conventions import METRICS
from common.modalities import GLIOMA
from common.transforms import LoadSubjectd
from mmb.experiments import trainings
from mmb.experiments.dry_run import made_small, on_phantoms
from mmb.experiments.evaluations import read_evaluation
from mmb.experiments.leaderboard import run_leaderboard
from mmb.experiments.lists import read_list
from mmb.experiments.paper_tables.published import published, sources
from mmb.experiments.training import Entry

TABLES = sorted((ROOT / "bundles" / "tables").glob("*.json"))
LISTS = {path.stem: read_list(path) for path in TABLES}
PAPERS = ("M3AE", "GSS", "PASSION", "MAG-MS", "MedMAP")
GUIDE = (ROOT / "docs" / "evaluate.md").read_text()
PUBLISHED = ["M3AE", "1", "BraTS2018 test split (57)"]
TABLE = {"published": PUBLISHED, "rows": {"RFNet": {"unavailable": "not in this list"}}}
M3AE = {"bundle": "m3ae", "configs": ["recipes/brats2018.json"]}
GSS = {"bundle": "gss"}


def write(folder, **parts):
    path = folder / "list.json"
    path.write_text(json.dumps({"cohort": "brats2018", "methods": {"M3AE": M3AE}, "tables": [], **parts}))
    return path


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_tables_name_every_row_that_the_paper_prints(name):
    made = LISTS[name]
    assert made.cohort
    for block in made.blocks:
        assert sorted(block.names) == sorted(published(*block.source)["method"].unique())
    used = {method for block in made.blocks for method in block.trained.values()}
    own = {entry.name for entry in made.entries} - used
    beyond = {"consistency of the 1/4 logits, as released"}
    assert not own - beyond or not made.blocks or name.startswith("newer")  # our methods beside newer ones
    for entry in made.entries:
        config = entry.config()
        assert config["cohort"] == made.cohort
        if isinstance(config.get("masks"), str):
            training = official_splits(made.cohort)[config["split"]]["training"]
            assert set(published_masks(made.cohort)[config["masks"]]) == set(training)


def test_every_table_of_the_papers_has_a_list():
    listed = {block.source for made in LISTS.values() for block in made.blocks}
    measurable = {source for source in sources() if published(*source)["metric"].isin(METRICS).any()}
    assert listed >= {source for source in measurable if source[0] in PAPERS}


def test_the_guide_names_every_list_with_its_trainings_and_its_ablation_is_one(tmp_path):
    named = re.findall(r"^\| `(\w+)` \| .* \| (\d+) \|$", GUIDE, flags=re.M)
    assert {name: int(count) for name, count in named} == {name: len(made.trainings()) for name, made in LISTS.items()}
    (example,) = re.findall(r"`ablation\.json`:\n\n```json\n(.*?)^```$", GUIDE, flags=re.M | re.S)
    (tmp_path / "ablation.json").write_text(example)
    first, second = read_list(tmp_path / "ablation.json").entries
    assert (first.config()["lambda_con"], second.config()["lambda_con"]) == (0.1, 0)


def test_gss_is_trained_as_the_paper_says():
    """Five rounds for the tables and one for the ablation and all others; mmFormer with its own sizes."""
    for name, made in LISTS.items():
        for entry in made.entries:
            if entry.bundle == "gss":
                config = entry.config()
                alone = any(file.startswith("baselines/") for file in entry.configs)
                ablation = name in ("gss_table1_5", "gss_figures3_4")
                assert config["rounds"] == (1 if alone or ablation else 5)
                own = config["backbone"] == "mmFormer" and name != "newer_brats2023"
                sizes = (8, [128] * 3) if own else (16, [80] * 3)
                assert entry.name == "U-HVED" or (config["width"], config["crop"]) == sizes


def test_comments_are_no_keys_a_methods_settings_go_first_and_folds_are_trainings(tmp_path):
    made = read_list(write(tmp_path, _desc_="remark", methods={"x": {**M3AE, "_why": "remark"}}, tables=[TABLE]))
    assert [entry.name for entry in made.entries] == ["x"]
    settings = {"train#optimizer#amsgrad": True, "conventions#hd95": "max"}
    methods = {"x": {**M3AE, "settings": settings}}
    made = read_list(write(tmp_path, methods=methods, settings={"conventions#hd95": "pooled"}, tables=[TABLE]))
    config = made.entries[0].config()
    assert config["train"]["optimizer"]["amsgrad"]  # an argument of an object
    assert config["conventions"]["hd95"] == "max"
    made = read_list(write(tmp_path, folds=["cv1of2", "cv2of2"], tables=[TABLE]))
    assert [entry.name for entry in made.trainings()] == ["M3AE, cv1of2", "M3AE, cv2of2"]
    assert [entry.config()["split"] for entry in made.trainings()] == ["cv1of2", "cv2of2"]


def rows(**rows):
    return {"tables": [{"published": PUBLISHED, "rows": rows}]}


def x(**more):
    return {"methods": {"x": {**M3AE, **more}}}


@pytest.mark.parametrize(
    ("parts", "facts"),
    [
        ({"settings": {"split": "fold9"}}, ("'M3AE'", "'fold9'", "brats2018", "fold1")),
        ({"folds": ["cv1of3", "cv2of3"]}, ("cv1of3, cv2of3", "not all folds of one")),
        ({"folds": ["cv1of2", "cv2of2"], "settings": {"split": "fold1"}}, ("'M3AE'", "split", "no effect", "folds")),
        ({"table": []}, ("'table'", "tables")),
        (rows(HeMIS="M3AE"), ("(57)", "'HeMIS'", "expected one of HVED, ACN")),
        (rows(ACN="ACN"), ("(57)", "'ACN'", "method of the list", "M3AE")),
        ({"methods": {"a=b": M3AE}}, ("methods", "'a=b'", "a name on one line, without =")),
        (x(configs=["logging.conf"]), ("'x'", "unknown file input", "logging.conf")),
        (x(settings={"cohort": "brats2020"}), ("methods.x.settings", "'cohort'", "the leaderboard itself")),
        (x(configs=["recipes/brats2020.json"]), ("'x'", "recipes/brats2020.json", "brats2020, not for brats2018")),
        (
            {"methods": {"M3AE": M3AE, "other": {**M3AE, "settings": {"conventions#hd95": "max"}}}},
            ("'other'", "'conventions#hd95' is 'max'", "'pooled' for 'M3AE'"),
        ),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_by_name(tmp_path, parts, facts):
    with refused(ValueError, "list.json: ", *facts):
        read_list(write(tmp_path, **{"tables": [TABLE], **parts}))


def test_a_list_may_name_configs_beside_it(tmp_path):
    (tmp_path / "own.json").write_text('{"epochs": 3}')
    methods = {"M3AE": {"bundle": "m3ae"}, "x": {"bundle": "m3ae", "configs": ["recipes/own.json", "own.json"]}}
    entry, inside = read_list(write(tmp_path, methods=methods)).entries[1], ROOT / "bundles" / "m3ae" / "configs"
    files = [inside / "train.json", inside / "recipes" / "own.json", tmp_path / "own.json"]
    assert list(map(Path, entry.files)) == files
    assert (entry.config()["cohort"], entry.config()["epochs"]) == (None, 3)


def test_other_files_and_another_cohort_are_refused(tmp_path):
    with refused(FileNotFoundError, "list.json", "'x'", "no.json: no such config"):
        read_list(write(tmp_path, **x(configs=["recipes/no.json"])))
    with refused(FileNotFoundError, "list.json", "'x'", "'nosuch'", "gss, m3ae"):
        read_list(write(tmp_path, methods={"x": {"bundle": "nosuch"}}))
    with refused(ValueError, "m3ae_table3.json", "for cohort brats2018, not for brats2020"):
        read_list(ROOT / "bundles" / "tables" / "m3ae_table3.json", "brats2020")


FILES = sorted((ROOT / "bundles").glob("*.json")) + TABLES


def test_sizes_are_small_and_the_method_is_as_listed(tmp_path):
    made = read_list(ROOT / "bundles" / "tables" / "m3ae_table1_4_s2.json")
    small = {entry.name: entry for entry in made_small(made.trainings(), get_cohort("brats2018"), tmp_path)}
    for entry in made.entries:
        config, before = small[entry.name].config(), entry.config()
        assert (small[entry.name].files, config["epochs"]) == (entry.files, 1)
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


def test_a_small_training_starts_from_no_weights_of_the_real_size(tmp_path, undrawn):
    entry = Entry("a", "m3ae", ("recipes/open_glioma.json", "recipes/fine_tune.json"))
    assert entry.config()["init_from"] is not None
    config = made_small([entry], get_cohort("brats2023"), tmp_path)[0].config()
    assert (config["init_from"], config["fit"]) == (None, ["@pretrain", "@finetune"])  # pretrains itself instead


@pytest.mark.slow  # prepares up to 18 trainings
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
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
    assert (pooled.results["case"].nunique(), pooled.facts["folds"]) == (4, 2)
    other = read_evaluation(tmp_path / "out" / "u_net" / "evaluation" / "expected_dice")
    assert other.facts["decision"] == "expected_dice"
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["state"].tolist() == ["finished", "finished"]
    assert (tmp_path / "out" / "tables" / "m3ae_s3.tex").is_file()
