"""The lists of the papers' tables name only what exists; anything else is refused by name."""

import json
import re
from pathlib import Path

import pytest
from bundles.running import ROOT
from refusals import refused

from common.cohorts.missing import published_masks
from common.cohorts.splits import official_splits
from common.evaluation.metrics.conventions import METRICS
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
        ({"settings": {"split": "cv4of3"}}, ("'cv4of3'", "cv1of3")),
        ({"folds": ["cv1of3", "half"]}, ("'half'", "brats2018")),
        ({"folds": ["cv1of3", "cv2of3"]}, ("cv1of3, cv2of3", "not all folds of one")),
        ({"folds": ["fold1", "fold2", "fold3"]}, ("fold3", "not all folds of one")),  # their tests overlap
        ({"folds": ["cv1of2", "cv2of2"], "settings": {"split": "fold1"}}, ("'M3AE'", "split", "no effect", "folds")),
        ({"cohort": "brats1999"}, ("'brats1999'",)),
        ({"table": []}, ("'table'", "tables")),
        ({"tables": [{**TABLE, "row": {}}]}, ("'row'", "rows")),
        ({"tables": [{**TABLE, "published": ["M3AE", "9", "x"]}]}, ("M3AE, 9, x", "1, BraTS2018 test split")),
        (rows(HeMIS="M3AE"), ("(57)", "'HeMIS'", "expected one of HVED, ACN")),
        (rows(ACN="ACN"), ("(57)", "'ACN'", "method of the list", "M3AE")),
        ({"methods": {"a=b": M3AE}}, ("methods", "'a=b'", "a name on one line, without =")),
        (x(variant=["recipes/table3.json", "RFNet"]), ("methods.x", "'variant'", "bundle, nnunet, configs, settings")),
        (x(configs=["logging.conf"]), ("'x'", "logging.conf: not a JSON config")),
        (x(settings={"cohort": "brats2020"}), ("methods.x.settings", "'cohort'", "the leaderboard itself")),
        (x(settings={"conventions#size": 1}), ("'x'", "'conventions#size' is not a key of")),
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
    (tmp_path / "list.json").write_text("GSS, RFNet")
    with refused(ValueError, "list.json", "Invalid JSON", "docs/evaluate.md"):
        read_list(tmp_path / "list.json")
    with refused(ValueError, "m3ae_table3.json", "for cohort brats2018, not for brats2020"):
        read_list(ROOT / "bundles" / "tables" / "m3ae_table3.json", "brats2020")


def test_the_config_of_an_entry_has_its_settings(tmp_path, monkeypatch):
    contents = {"metadata": {"bundle": "tiny"}, "train": {"epochs": 3, "steps": "$3 * @epochs", "train": {"size": 1}}}
    (tmp_path / "configs").mkdir()
    for name, content in {**contents, "recipe": {"+train": {"more": 2}}}.items():
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    entry = Entry("Tiny", "tiny", ("recipe.json",), {"epochs": 5, "train#size": 2})
    assert entry.files == [str(tmp_path / "configs" / f"{name}.json") for name in ("train", "recipe")]
    assert entry.config() == {"epochs": 5, "steps": "$3 * @epochs", "train": {"size": 2, "more": 2}}
