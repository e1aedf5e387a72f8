"""Checks of the values that a config or a command line gives for a key."""

import pytest

from common.io import check_counts, flag, optional, per_axis
from common.io.settings import check_choice, check_number


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("true", True), ("False", False), (False, False)])
def test_flag_understands_what_a_command_line_gives(value, expected):
    assert flag("resume", value) is expected


def test_flag_refuses_anything_else():
    with pytest.raises(ValueError, match="resume 'no': expected true or false"):
        flag("resume", "no")


@pytest.mark.parametrize(
    ("value", "expected"), [("null", None), ("None", None), (None, None), ("nullable", "nullable"), (0, 0)]
)
def test_a_command_line_can_say_null(value, expected):
    assert optional(value) == expected


def test_choices_and_numbers():
    assert check_choice("kl", "paper", ("released", "paper")) == "paper"
    with pytest.raises(ValueError, match="kl 'papr': expected one of 'released', 'paper'"):
        check_choice("kl", "papr", ("released", "paper"))
    assert check_number("rate", 1, 0, 1) == 1
    for value in (-0.1, 1.1, float("nan"), "abc", True):
        with pytest.raises(ValueError, match=f"rate {value}: expected a number from 0 to 1"):
            check_number("rate", value, 0, 1)


@pytest.mark.parametrize("value", ["many", "3", 0, -1, 2.5, True, None])
def test_counts_are_whole_numbers(value):
    check_counts(epochs=1, rounds=5)
    with pytest.raises(ValueError, match=f"rounds {value!r}: expected a whole number, 1 or more"):
        check_counts(epochs=1, rounds=value)


@pytest.mark.parametrize("values", [[6.0, 6.0], [6.0] * 4, 6.0, "6,6,6"])
def test_an_image_has_three_axes(values):
    assert per_axis("spacing", [6, 6, 6]) == [6, 6, 6]
    with pytest.raises(ValueError, match=r"spacing .*: expected 3 numbers"):
        per_axis("spacing", values)
