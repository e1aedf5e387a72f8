"""Keys of a merged config that nobody reads, and values of the wrong kind."""

import json

import pytest
from monai.bundle import ConfigParser
from refusals import refused

from common.run.keys import check_config, check_files, read_words

TRAIN = {
    "epochs": 3,
    "quiet": False,
    "rate": 0.1,
    "method": "M3AE",
    "output_dir": "out",
    "unread": {"a": 1},
    "several": [{"x": 1}],
    "_allowed_": {"rate": [0, 1], "method": ["M3AE", "GSS"]},
    "_files_": ["datalist"],
    "_unread_": ["ready"],
    "datalist": None,
    "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@rate"},
    "train": {
        "name": "fine-tuning",
        "trainer": {"_target_": "monai.engines.Trainer", "device": "cpu", "max_epochs": "@epochs"},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "optimizer": "@optimizer", "step_size": 1},
    },
    "initialize": ["$print(@train#name, @several, @quiet)"],
    "run": ["$@train#trainer.run()"],
}


def merged(tmp_path, **settings):
    """Return the config as MONAI merges it: a file, an overlay, then settings by their keys."""
    (tmp_path / "train.json").write_text(json.dumps(TRAIN))
    (tmp_path / "recipe.json").write_text(json.dumps({"width": 8, "network#in_features": "@width", "rate": 0.5}))
    parser = ConfigParser(ConfigParser.load_config_files([str(tmp_path / n) for n in ("train.json", "recipe.json")]))
    parser.update({key.replace("__", "#"): value for key, value in settings.items()})
    return parser.get()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("rate", value) for value in (0, 1, 0.3, "$2 / 3", "@width", "%train.json::rate", None)],
        *[("epochs", 4), ("epochs", "$2 * 2"), ("quiet", "true"), ("method", "GSS"), ("width", 3), ("unread", 3)],
        *[("output_dir", value) for value in ("$None", "$@method", "$str(1)", "here", "/a/b")],
        *[("optimizer__betas", [0.9, 0.99]), ("train__name", "x"), ("_note_", 1), ("several__0__y", 2), ("train", {})],
        *[
            ("train__scheduler__gamma", 0.5),
            ("train__scheduler___disabled_", True),
            ("more", ["$print(1)"]),
            ("ready", 1),
        ],
    ],
)
def test_what_a_config_can_be_given(tmp_path, key, value):
    check_config(merged(tmp_path, **{key: value}))


def test_words_of_a_command_line():
    config = ConfigParser({"quiet": "false", "split": "null", "name": "none", "all": "$(@quiet, @split, @name)"})
    config.parse()
    read_words(config)
    assert config.get_parsed_content("all") == (False, None, "none")
    assert config.get("quiet") is False


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("epoch", 1, ("'epoch' is not a key of this config, and nothing refers to it", "did you mean epochs?")),
        ("zzz", 1, ("'zzz' is not a key of", "expected one of epochs, quiet, ")),
        ("train__nam", 1, ("'train#nam' is not a key of", "did you mean train#name?")),
        ("optimizer__lrr", 1, ("optimizer#lrr is not an argument of torch.optim.Adam; did you mean optimizer#lr?",)),
        ("train__scheduler__x", 1, ("train#scheduler#x is not an argument", "expected one of optimizer, step_size, ")),
        ("epochs", "x", ("epochs 'x': expected a whole number (max_epochs of monai.engines.Trainer).",)),
        ("epochs", 2.5, ("epochs 2.5: expected a whole number",)),
        ("width", "many", ("width 'many': expected a whole number (in_features of torch.nn.Linear).",)),
        ("epochs", True, ("epochs True: expected a whole number",)),
        ("rate", 2, ("rate 2: expected a number from 0 to 1.",)),
        ("rate", "x", ("rate x: expected a number from 0 to 1.",)),
        ("method", "PMKL", ("method 'PMKL': expected one of 'M3AE', 'GSS'.",)),
        ("output_dir", "~/out", ("output_dir ~/out: ~ and variables are not replaced here",)),
        ("output_dir", "${HOME}/out", ("output_dir ${HOME}/out: ~ and variables are not replaced here",)),
        (
            "output_dir",
            202401,
            ("output_dir 202401: MONAI does not read this as text; write it as a path, e.g. ./202401",),
        ),
        ("output_dir", "./out#1", ("output_dir ./out#1: MONAI reads # as ::",)),
        ("output_dir", ["a", "b"], ("output_dir ['a', 'b']: expected one path",)),
    ],
)
def test_what_it_cannot_be_given(tmp_path, key, value, words):
    with refused(ValueError, *words):
        check_config(merged(tmp_path, **{key: value}))


def test_files_have_to_exist(tmp_path):
    check_files(merged(tmp_path, datalist=str(tmp_path)[:0] or None))
    check_files(merged(tmp_path, datalist=__file__))
    with refused(FileNotFoundError, "datalist /nowhere.json: no such file."):
        check_files(merged(tmp_path, datalist="/nowhere.json"))
    with refused(FileNotFoundError, "dataset_dir /nowhere: no such folder."):
        check_files({**merged(tmp_path), "dataset_dir": "/nowhere"})
