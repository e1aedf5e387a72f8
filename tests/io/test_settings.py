"""Checks of the values that a config or a command line gives for a key."""

import pytest
from refusals import refused

from common.io import check_counts, flag, optional, per_axis
from common.io.settings import check_choice, check_number


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_a_command_line_can_give_a_flag(value, expected):
    assert flag("resume", value) is expected


@pytest.mark.parametrize(
    ("value", "expected"), [("null", None), ("None", None), (None, None), ("nullable", "nullable"), (0, 0)]
)
def test_a_command_line_can_say_null(value, expected):
    assert optional(value) == expected


def test_what_can_be_used():
    assert check_choice("kl", "paper", ("released", "paper")) == "paper"
    assert check_number("rate", 1, 0, 1) == 1
    assert per_axis("spacing", [6, 6, 6]) == [6, 6, 6]
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
