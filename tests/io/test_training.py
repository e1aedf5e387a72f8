"""What a training consists of, and which settings its configs can be given."""

import json

import pytest
from refusals import refused

from common.io.training import Entry, check_settings

TRAIN = {
    "epochs": 3,
    "quiet": False,
    "lambda_con": 0.1,
    "method": "M3AE",
    "steps": "$3 * @epochs",
    "optimizer": {"_target_": "Adam", "lr": 0.5},
    "train": {"inner": {"size": 1}, "several": [{"x": 1}]},
    "evaluation": {"overrides": {"a": 1}},
    "evaluation_configs": ["evaluate.json"],
}


@pytest.fixture
def files(tmp_path):
    contents = {"train": TRAIN, "recipe": {"+train": {"more": 2}, "masks": None}, "evaluate": {"bootstrap": 9}}
    (tmp_path / "configs").mkdir()
    for name, content in contents.items():
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / "configs" / f"{name}.json") for name in ("train", "recipe")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("lambda_con", value) for value in (0, "$2 * 3", "@epochs", "%train.json::epochs", "null", None)],
        *[("quiet", "true"), ("method", "x"), ("steps", "x"), ("masks", "x"), ("train#more", 3), ("train", "x")],
        *[("optimizer#betas", "x"), ("train#several#0#x", 2), ("evaluation#overrides#bootstrap", 1)],
    ],
)
def test_what_configs_can_be_given(files, key, value):
    check_settings(files, {"epochs": 4, key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epoch", 1, ("'epoch' is not a key of", "train.json, ", "recipe.json", "did you mean epochs?")),
        ("zzz", 1, ("'zzz' is not a key of", "expected one of epochs, quiet, ")),
        ("trian#inner", 1, ("'trian' is not a key of", "did you mean train?")),
        ("train#iner", 1, ("'train#iner' is not a key of", "did you mean train#inner?")),
        ("train#inner#size#x", 1, ("'train#inner#size#x' is not a key of",)),
        ("train#several#7", 1, ("'train#several#7' is not a key of",)),
        ("evaluation#overrides#bootstraps", 1, ("did you mean evaluation#overrides#bootstrap?",)),
        ("lambda_con", "x", ("lambda_con 'x': expected a number, such as 0.1",)),
        ("optimizer#lr", "x", ("optimizer#lr 'x': expected a number, such as 0.5",)),
    ],
)
def test_what_they_cannot_be_given(files, key, value, words):
    with refused(ValueError, *words):
        check_settings(files, {"epochs": 4, key: value})


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_file_that_is_not_json(files, text):
    with open(files[1], "w") as file:
        file.write(text)
    with pytest.raises(ValueError, match=r"recipe\.json: not a JSON config"):
        check_settings(files, {})


def test_the_config_of_an_entry_has_its_settings(tmp_path, monkeypatch, files):
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"bundle": "tiny"}))
    monkeypatch.chdir(tmp_path)
    entry = Entry("Tiny", "tiny", ("recipe.json",), {"epochs": 5, "train#inner#size": 2})
    assert entry.files == files
    config = entry.config()
    assert (config["epochs"], config["train"]["inner"]["size"], config["steps"]) == (5, 2, "$3 * @epochs")
    assert config["train"]["more"] == 2
