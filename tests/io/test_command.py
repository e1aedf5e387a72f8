"""What users give: the command line of a bundle, values of settings, and JSON documents."""

import json
from typing import Annotated

import pytest
from monai.bundle import create_workflow
from pydantic import AfterValidator, Field, PositiveInt
from refusals import refused

from common.io import check_counts, flag, optional, per_axis
from common.io.command import check_settings, given_run, is_command, recipe_names, unwrapped_errors
from common.io.documents import Document, parse_json, read_json
from common.io.settings import check_choice, check_number


def test_a_run_s_files_settings_and_steps_are_known_to_its_expressions(tmp_path):
    """As `monai.bundle.run`, a program's `create_workflow`, and settings from a file give them."""
    seen: list = []
    (tmp_path / "train.json").write_text(json.dumps({"epochs": 1, "seen": None, "go": ["$@seen.append(@epochs)"]}))
    (tmp_path / "own.json").write_text("{}")
    look = {"initialize": ["$@look()"], "look": lambda: seen.append((given_run(), recipe_names(), is_command()))}
    files = [str(tmp_path / name) for name in ("train.json", "own.json")]
    (tmp_path / "args.json").write_text(json.dumps({"config_file": files, "run_id": "go", "epochs": 7}))
    for arguments in (
        {"config_file": files, "run_id": "go", "epochs": 7, "split": None},
        {"args_file": str(tmp_path / "args.json"), "split": None},
    ):
        create_workflow(**arguments, **look, seen=[])
        given, recipes, command = seen.pop()
        assert (given.files, given.step, recipes, command) == (files, "go", ["own.json"], False)
        assert {key: given.settings[key] for key in ("epochs", "split")} == {"epochs": 7, "split": None}
    assert (given_run(), recipe_names()) == (None, [])


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_an_error_without_those_around_it(error):
    outer = RuntimeError("Failed to instantiate")
    outer.__cause__ = RuntimeError("Failed to evaluate")
    outer.__cause__.__cause__ = error
    with pytest.raises(type(error)) as info, unwrapped_errors():
        raise outer
    assert info.value is error


TRAIN = {"epochs": 3, "quiet": False, "lambda_con": 0.1, "method": "M3AE", "output_dir": "out", "steps": "$3 * @epochs"}
TRAIN |= {
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.5},
    "train": {"inner": {"size": 1}, "several": [{"x": 1}]},
}
TRAIN |= {"evaluation": {"overrides": {"a": 1}}, "evaluation_configs": ["evaluate.json"]}


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
        *[("output_dir", value) for value in ("$None", "$@method", "$str(1)")],
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
        ("train#several#7", 1, ("'train#several#7' is not a key of", "expected one of 0 to 0.")),
        ("train#several#7#x", 1, ("'train#several#7' is not a key of",)),
        (
            "optimizer#learning_rate",
            1,
            ("'optimizer#learning_rate' is not", "one of params, lr, betas, "),
        ),
        ("output_dir", "~/out", ("output_dir ~/out: only a shell replaces ~",)),
        ("output_dir", "${HOME}/out", ("output_dir ${HOME}/out: only a shell replaces ~",)),
        ("evaluation#overrides#bootstraps", 1, ("did you mean evaluation#overrides#bootstrap?",)),
        ("lambda_con", "x", ("lambda_con 'x': expected a number, such as 0.1",)),
        ("optimizer#lr", "x", ("optimizer#lr 'x': expected a number, such as 0.5",)),
        ("output_dir", 202401, ("output_dir 202401: MONAI reads this as no text; write it as a path, e.g. ./202401",)),
        ("output_dir", "./out#1", ("output_dir ./out#1: MONAI takes # for ::",)),
    ],
)
def test_what_they_cannot_be_given(files, key, value, words):
    with refused(ValueError, *words):
        check_settings(files, {"epochs": 4, key: value})


def test_a_file_that_is_not_json(files, tmp_path):
    (tmp_path / "configs" / "recipe.json").write_text("{")
    with refused(ValueError, "recipe.json: not a JSON config"):
        check_settings(files, {})


def test_what_can_be_used():
    assert [flag("resume", value) for value in (True, "true", "False", False)] == [True, True, False, False]
    assert [optional(value) for value in ("null", "None", None, "nullable", 0)] == [None, None, None, "nullable", 0]
    assert check_choice("kl", "paper", ("released", "paper")) == "paper"
    assert (check_number("rate", 1, 0, 1), per_axis("spacing", [6, 6, 6])) == (1, [6, 6, 6])
    check_counts(epochs=1, rounds=5)


@pytest.mark.parametrize(
    ("check", "values", "fact"),
    [
        (flag, ["no"], "expected true or false"),
        (lambda key, value: check_choice(key, value, ("a", "b")), ["c"], "expected one of 'a', 'b'"),
        (
            lambda key, value: check_number(key, value, 0, 1),
            [-0.1, 1.1, float("nan"), "abc", True],
            "expected a number from 0 to 1",
        ),
        (
            lambda key, value: check_counts(epochs=1, **{key: value}),
            ["3", 0, -1, 2.5, True, None],
            "expected a whole number, 1 or more",
        ),
        (per_axis, [[6.0, 6.0], [6.0] * 4, 6.0, "6,6,6"], "expected 3 numbers"),
    ],
)
def test_what_is_refused(check, values, fact):
    for value in values:
        with refused(ValueError, "some_key ", fact):
            check("some_key", value)


def check_name(name: str) -> str:
    if "/" in name:
        raise ValueError(f"{name!r} has a slash")
    return name


class Site(Document):
    folder: str
    share: float = 1.0


class Plan(Document):
    name: Annotated[str, AfterValidator(check_name)]
    rounds: PositiveInt = 1
    sites: dict[str, Site] = Field(default_factory=dict)
    parts: tuple[Site, ...] = ()


def test_a_file_becomes_a_model(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(
        '{"_desc_": "x", "name": "a", "sites": {"b": {"folder": "/b", "share": 1, "_": 0}}, "parts": [{"folder": ""}]}'
    )
    plan = read_json(path, Plan)
    assert (plan.name, plan.rounds, plan.sites["b"], plan.parts[0].folder) == ("a", 1, Site(folder="/b", _=0), "")
    assert parse_json("[1, 2]", list[int], "x") == [1, 2]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{", ("Invalid JSON",)),
        (b"\xff", ("Invalid JSON",)),
        ("[" * 100_000, ("Invalid JSON",)),
        ("[]", ("Input should be",)),
        ("{}", ("name: Field required",)),
        ('{"name": "a", "round": 2}', ("unknown key 'round'", "expected name, rounds")),
        ('{"name": "a", "sites": {"b": {"folder": "", "nr": 1}}}', ("sites.b: ", "'nr'", "folder, share")),
        ('{"name": "a", "parts": [{"x": "y", "folder": 3}]}', ("parts.0.folder: ", "valid string")),
        ('{"name": "a", "rounds": "2"}', ("rounds: ", "valid integer")),
        ('{"name": "a", "rounds": 0}', ("rounds: ", "greater than 0")),
        ('{"name": "a/b"}', ("name: ", "'a/b' has a slash")),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(text, facts):
    with refused(ValueError, "plan.json: ", *facts, ". Ask.") as info:
        parse_json(text, Plan, "plan.json", "Ask.")
    assert "\n" not in str(info.value)
