"""How `python -m monai.bundle run` was started, and the errors that MONAI wraps."""

import json

import pytest
from refusals import refused

from common.io.command import check_settings, given_run, is_run, recipe_names, unwrapped_errors


@pytest.fixture
def words(monkeypatch):
    """Return a function that makes this process appear to have been started with a command line."""
    return lambda *words: monkeypatch.setattr("sys.argv", ["/lib/monai/bundle/__main__.py", "run", *words])


def test_settings_are_told_from_monai_s_own_options(words, monkeypatch):
    words("--config_file", "['a/train.json','b/own.json']", "--epochs", "3", "--train::lr=0.5", "--resume")
    assert given_run() == (["a/train.json", "b/own.json"], {"epochs": 3, "train#lr": 0.5, "resume": True})
    assert recipe_names() == ["own.json"]
    words("--config_file=train.json", "--logging_file", "x", "--device", "$torch.device('cpu')")
    assert given_run() == (["train.json"], {"device": "$torch.device('cpu')"})
    monkeypatch.setattr("sys.argv", ["pytest", "--epochs", "3"])
    assert (is_run(), recipe_names()) == (False, [])


def test_a_path_that_monai_reads_as_something_else(words):
    for option, read in (("--output_dir=2024_01", "202401"), ("--output_dir=out#1", "'out'")):
        words("--config_file=train.json", option)
        with refused(ValueError, f"MONAI reads this as {read}; write it as a path"):
            given_run()
    words("--config_file=train.json", "--output_dir=./1")
    assert given_run()[1] == {"output_dir": "./1"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_an_error_without_those_around_it(error):
    outer = RuntimeError("Failed to instantiate")
    outer.__cause__ = RuntimeError("Failed to evaluate")
    outer.__cause__.__cause__ = error
    with pytest.raises(type(error)) as info, unwrapped_errors():
        raise outer
    assert info.value is error


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


def test_a_file_that_is_not_json(files, tmp_path):
    (tmp_path / "configs" / "recipe.json").write_text("{")
    with refused(ValueError, "recipe.json: not a JSON config"):
        check_settings(files, {})
