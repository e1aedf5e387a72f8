"""What users give: values of settings, and JSON documents."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, Field, PositiveInt
from refusals import refused

from common.io.documents import Document, parse_json, read_json
from common.io.errors import unwrapped_errors
from common.io.settings import check_choice, check_counts, check_number, per_axis


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_an_error_without_those_around_it(error):
    outer = RuntimeError("Failed to instantiate")
    outer.__cause__ = RuntimeError("Failed to evaluate")
    outer.__cause__.__cause__ = error
    with pytest.raises(type(error)) as info, unwrapped_errors():
        raise outer
    assert info.value is error


def test_what_can_be_used():
    assert check_choice("kl", "paper", ("released", "paper")) == "paper"
    assert (check_number("rate", 1, 0, 1), per_axis("spacing", [6, 6, 6])) == (1, [6, 6, 6])
    check_counts(epochs=1, rounds=5)


@pytest.mark.parametrize(
    ("check", "values", "fact"),
    [
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
