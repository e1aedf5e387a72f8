"""The lists of the papers' tables name only what exists; anything else is refused by name."""

import json
from pathlib import Path

import pytest
from bundles.running import ROOT

from common.cohorts.datalist import published_splits
from common.cohorts.missing import published_masks
from common.evaluation.analysis.published import published
from common.release.lists import read_list

TABLES = sorted((ROOT / "bundles" / "tables").glob("*.json"))
PUBLISHED = ["M3AE", "1", "BraTS2018 test split (57)"]
TABLE = {"published": PUBLISHED, "rows": {"RFNet": {"unavailable": "not in this list"}}}
M3AE = {"bundle": "m3ae", "configs": ["recipes/brats2018.json"]}


def write(folder, **parts):
    path = folder / "list.json"
    path.write_text(json.dumps({"cohort": "brats2018", "methods": {"M3AE": M3AE}, "tables": [], **parts}))
    return path


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_lists_of_tables_name_every_row_that_the_paper_prints(path):
    made = read_list(path)
    assert made.cohort
    for block in made.blocks:
        assert sorted(block.names) == sorted(published(*block.source)["method"].unique())
    used = {name for block in made.blocks for name in block.trained.values()}
    own = {entry.name for entry in made.entries} - used
    assert not own or path.stem.startswith("newer")  # methods of this collection beside newer ones
    for entry in made.trainings():
        config = entry.config()
        assert config["cohort"] == made.cohort
        if isinstance(config.get("masks"), str):
            training = published_splits(made.cohort)[config["split"]]["training"]
            assert set(published_masks(made.cohort)[config["masks"]]) == set(training)


def test_gss_trains_five_rounds_and_what_it_is_compared_with_one():
    rounds = {"alone": set(), "with GSS": set()}
    for path in TABLES:
        for entry in read_list(path).entries:
            if entry.bundle == "gss":
                alone = any(config.startswith("baselines/") for config in entry.configs)
                rounds["alone" if alone else "with GSS"].add(entry.config()["rounds"])
    assert rounds == {"alone": {1}, "with GSS": {5}}


def test_every_comparison_table_of_the_papers_has_a_list():
    tables = [table for path in TABLES for table in json.loads(path.read_text())["tables"]]
    listed = {tuple(table["published"][:2]) for table in tables}
    wanted = {"M3AE": "1 2 S3", "GSS": "6 7 8 9", "PASSION": "1 2 3", "MAG-MS": "1 2 3", "MedMAP": "I II III IV"}
    assert listed >= {(paper, number) for paper, numbers in wanted.items() for number in numbers.split()}


def test_a_variant_of_an_ablation_is_taken_with_its_configs(tmp_path):
    variant = {"bundle": "passion", "variant": ["recipes/table3.json", "RFNet, IDT"]}
    both = {
        "own": variant,
        "other": {**variant, "configs": ["recipes/brats2020.json", "recipes/medmap.json"], "settings": {"epochs": 5}},
    }
    own, other = read_list(write(tmp_path, methods=both, cohort="brats2020", settings={"split": "full"})).entries
    assert own.configs == ("recipes/brats2020.json",)
    assert own.settings == {"split": "full", "backbone": "RFNet", "training": "baseline"}
    assert other.configs == ("recipes/brats2020.json", "recipes/medmap.json")
    assert other.settings["epochs"] == 5


def test_folds_are_trainings_of_their_own(tmp_path):
    made = read_list(write(tmp_path, folds=["cv1of2", "cv2of2"], tables=[TABLE]))
    assert [entry.name for entry in made.trainings()] == ["M3AE, cv1of2", "M3AE, cv2of2"]
    assert [entry.config()["split"] for entry in made.trainings()] == ["cv1of2", "cv2of2"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"settings": {"split": "fold9"}}, "method 'M3AE': Unknown split 'fold9' of brats2018; expected one of fold1"),
        ({"folds": ["cv1of3", "half"]}, "Unknown split 'half' of brats2018"),
        ({"folds": ["cv1of3", "cv2of3"]}, "folds cv1of3, cv2of3 of brats2018 are not all folds of one"),
        ({"folds": ["cv1of2", "cv1of2"]}, "folds cv1of2, cv1of2 of brats2018 are not all folds of one"),
        ({"folds": ["fold1", "fold2", "fold3"]}, "fold3 of brats2018 are not all folds of one"),  # their tests overlap
        ({"folds": ["cv1of2", "cv2of2"], "settings": {"split": "fold1"}}, "has a split, which has no effect with"),
        ({"settings": {"split": "cv4of3"}}, "Unknown split 'cv4of3'; expected cv1of3"),
        ({"folds": "cv1of3"}, "folds is 'cv1of3'; expected a list of texts"),
        ({"settings": {"split": 3}}, "Unknown split 3 of brats2018"),
        ({"cohort": "brats1999"}, "Unknown cohort 'brats1999'"),
        ({"cohort": ["brats2018"]}, "Unknown cohort \"['brats2018']\""),
        ({"table": []}, "the list has 'table'; expected settings, methods"),
        ({"tables": {}}, "tables is {}; expected a list"),
        ({"tables": [TABLE, TABLE]}, "tables has M3AE 1 BraTS2018 test split (57) twice"),
        ({"tables": [{"published": PUBLISHED, "rows": {}}]}, "is empty; expected some of HVED, ACN"),
        ({"tables": [{"published": ["GSS", 7, "BraTS2018"], "rows": {}}]}, "expected a list of texts"),
        ({"tables": [{"published": PUBLISHED, "row": {}}]}, "a table has 'row'; expected published and rows"),
        ({"tables": [{"published": ["M3AE", "9", "x"], "rows": {}}]}, "No published table M3AE, 9, x"),
        ({"tables": [{"published": ["M3AE", "1"], "rows": {}}]}, "expected paper, table and dataset"),
        (
            {"tables": [{"published": PUBLISHED, "rows": {"HeMIS": "M3AE"}}]},
            "M3AE 1 BraTS2018 test split (57) has no method 'HeMIS'; expected one of HVED, ACN",
        ),
        ({"tables": [{"published": PUBLISHED, "rows": {"ACN": "ACN"}}]}, "method 'ACN', which is not in the list"),
        ({"tables": [{"published": PUBLISHED, "rows": {"ACN": {"why": "x"}}}]}, "expected a method of the list, or"),
        ({"tables": [{"published": PUBLISHED, "rows": {"ACN": {"unavailable": ""}}}]}, "why it cannot be trained here"),
        ({"methods": {"a=b": M3AE}}, "methods has 'a=b'; expected a name on one line, without ="),
        ({"methods": {"x": {**M3AE, "settings": [1]}}}, "settings of x is [1]; expected a JSON object"),
        ({"methods": {"x": {**M3AE, "settings": {"cohort": "brats2020"}}}}, "which the leaderboard sets itself"),
        ({"methods": {"x": {**M3AE, "settings": {"conventions#size": 1}}}}, "'conventions#size' is not a key of"),
        ({"methods": {"x": {**M3AE, "settings": {"epochs#x": 1}}}}, "'epochs#x' is not a key of"),
        ({"methods": {"x": {**M3AE, "settings": {"epochs": "ten"}}}}, "'x': epochs 'ten': expected a number"),
        (
            {"methods": {"x": {**M3AE, "settings": {"evaluation#overrides#subset": []}}}},
            "overrides#subset' is not a key",
        ),
        ({"methods": {"x": {**M3AE, "settings": {"conventions#hd95": 1}}}}, "method 'x': conventions: hd95 is 1"),
        ({"methods": {"x": {**M3AE, "configs": ["../../gss/configs/train.json"]}}}, "file in the bundle's configs"),
        ({"methods": {"x": {**M3AE, "configs": ["logging.conf"]}}}, "logging.conf: not a JSON config"),
        (
            {"methods": {"x": {"bundle": "passion", "variant": ["recipes/table3.json", "x"]}}},
            "x is variant 'x' of recipes/table3.json, which has RFNet, PDT",
        ),
        ({"methods": {"x": {"bundle": "passion", "variant": "x"}}}, "variant of x is 'x'; expected a list of texts"),
        (
            {"methods": {"x": {"bundle": "gss", "configs": ["recipes/brats2020.json"]}}},
            "method 'x': recipes/brats2020.json are for cohort brats2020, not for brats2018",
        ),
        (
            {"tables": [{**TABLE, "published": ["GSS", "8", "BraTS2020"]}]},
            "table GSS 8 BraTS2020 is for cohort brats2020, not for brats2018",
        ),
        (
            {"methods": {"M3AE": M3AE, "other": {**M3AE, "settings": {"conventions#hd95": "max"}}}},
            "convention hd95 is 'max' for 'other', but 'pooled' for 'M3AE'; set 'conventions#hd95'",
        ),
    ],
)
def test_what_does_not_exist_is_refused_by_name(tmp_path, parts, said):
    if "tables" not in parts:
        parts = {**parts, "tables": [TABLE]}
    with pytest.raises(ValueError, match=r"list\.json") as refusal:
        read_list(write(tmp_path, **parts))
    assert said in str(refusal.value)


def test_an_argument_of_an_object_can_be_set(tmp_path):
    settings = {"train#optimizer#amsgrad": True, "conventions#hd95": "max"}
    made = read_list(write(tmp_path, methods={"x": {**M3AE, "settings": settings}}, tables=[TABLE]))
    config = made.entries[0].config()
    assert config["train"]["optimizer"]["amsgrad"]
    assert config["conventions"]["hd95"] == "max"


def test_a_name_given_twice_is_refused(tmp_path):
    (tmp_path / "list.json").write_text('{"methods": {"A": {"bundle": "gss"}, "A": {"bundle": "m3ae"}}}')
    with pytest.raises(ValueError, match=r"list\.json: 'A' occurs twice"):
        read_list(tmp_path / "list.json")


def test_an_ablation_that_is_not_there_and_another_cohort_are_refused(tmp_path):
    absent = {"x": {"bundle": "passion", "variant": ["recipes/no.json", "x"]}}
    with pytest.raises(FileNotFoundError, match=r"no\.json: no such config"):
        read_list(write(tmp_path, methods=absent))
    with pytest.raises(FileNotFoundError, match=r"'nosuch' was not found in .*Expected one of gss, m3ae"):
        read_list(write(tmp_path, methods={"x": {"bundle": "nosuch"}}))
    with pytest.raises(ValueError, match="the list is for cohort brats2018, not for brats2020"):
        read_list(Path(ROOT / "bundles" / "tables" / "m3ae_table1.json"), "brats2020")
