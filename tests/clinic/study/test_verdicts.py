"""What is said of a region's outline: its verdict, its interval, and that no tumour was found."""

from dataclasses import replace

import pytest
from small_lesion import LABELS

from mmb.clinic.calibration.calibration import Calibration, LeftOut, RegionCalibration
from mmb.clinic.study.verdicts import absent, intervals, verdicts, with_further

SAME = (0.0, 1.0, 0.0)  # the score itself
HELD = LeftOut(100, 50, 20, 16, 0, 0, 0.8, 0.7, 0.7, 10, 6)
CALIBRATION = Calibration(
    "12ab", "threshold", 14, 9, 0.4, (0, 3), (1, 100),
    {region: RegionCalibration(SAME, SAME, 1.0, HELD) for region in ("WT", "TC", "ET")},
    {"t2": {"WT": 0.6, "TC": 0.5, "ET": 0.2}, "t1c+t2": {"WT": 0.7, "TC": 0.8, "ET": 0.8}, "t2+flair": {"WT": 0.8}},
)  # fmt: skip
VOLUMES = {"WT": 60.0, "TC": 20.0, "ET": 10.0}


def words(scores, used=("t1c", "t2"), volumes=VOLUMES, calibration=CALIBRATION, untrusted=False, doubted=False):
    scores = dict(zip(volumes, scores, strict=True))
    return [each.text for each in verdicts(volumes, scores, used, calibration, untrusted, doubted).values()]


def test_a_verdict_is_a_word_and_a_reason():
    assert words((0.9, 0.6, 0.3)) == [
        "usable for review", "doubtful: the network is unsure", "not reliable: the network is unsure"
    ]  # fmt: skip
    assert words((0.9, 0.6, 0.3), used=["t2"]) == [
        "usable for review", "doubtful: no T1c, only T2", "not reliable: no T1c, only T2"
    ]  # fmt: skip
    assert words((0.9, 0.6, 0.0), ["t1", "t2"], VOLUMES | {"ET": 0.0})[2] == "doubtful: none found, no T1c"


def test_an_outline_is_reliable_from_an_expected_dice_of_one_half_on():
    assert words((0.9, 0.501, 0.499)) == [
        "usable for review", "doubtful: the network is unsure", "not reliable: the network is unsure"
    ]  # fmt: skip
    half = RegionCalibration((-1.0, 1.0, 0.0), SAME, 1.0, HELD)  # 0.73 becomes 0.499, and 0.732 becomes 0.501
    by_half = replace(CALIBRATION, regions=dict.fromkeys(VOLUMES, half))
    assert words((0.9, 0.732, 0.73), calibration=by_half)[1:] == [
        "usable for review", "not reliable: the network is unsure"
    ]  # fmt: skip


def test_nothing_is_usable_if_all_is_doubted_or_nothing_is_calibrated():
    assert words((0.9, 0.9, 0.3), doubted=True)[0] == "doubtful: see the warnings"
    assert words((0.9, 0.9, 0.3), calibration=None) == [
        *["doubtful: these weights are not calibrated"] * 2, "not reliable: the network is unsure"
    ]  # fmt: skip
    assert set(words((0.9, 0.9, 0.9), untrusted=True)) == {"not reliable: not with these weights, see the warnings"}


def test_no_tumour():
    nothing = dict.fromkeys(VOLUMES, 0.0)
    assert absent(VOLUMES, VOLUMES | {"WT": 0.41}, CALIBRATION) == ""
    doubtful = absent(VOLUMES, VOLUMES | {"WT": 0.39}, CALIBRATION)
    assert doubtful.startswith("No tumour found with confidence: what is drawn is doubtful.")
    assert "In tests, 99 of 100 outlines of tumours scored 0.40 or more, and 0 of 3 brains without one." in doubtful
    assert absent(VOLUMES, VOLUMES | {"WT": 0.41}, None) != ""  # the limit is 0.5 then
    assert "nothing was drawn" in absent(nothing, nothing, CALIBRATION)
    none = "no tumour found with confidence"
    assert words((0.39, 0.9, 0.9)) == [f"not reliable: {none}", f"doubtful: {none}", f"doubtful: {none}"]
    assert intervals(VOLUMES, VOLUMES | {"WT": 0.39}, True, CALIBRATION, 1500, LABELS) == {}


def test_intervals_are_nested_within_the_brain_and_not_wide():
    """Dice of 2/3 and 0.8 allow twice and 1.5 times the volume; 0.5 allows threefold, which spans a factor of nine."""
    scores = {"WT": 0.8, "TC": 2 / 3, "ET": 0.5}
    made = intervals({"WT": 59.0, "TC": 49.0, "ET": 9.0}, scores, True, CALIBRATION, 1500.0, LABELS)
    assert made["WT"] == pytest.approx((39.0, 89.0))
    assert made["TC"] == pytest.approx((24.0, 89.0))  # not 99, which the whole tumour does not hold
    assert "ET" not in made
    small = intervals({"WT": 59.0}, {"WT": 0.8}, True, CALIBRATION, 70.0, LABELS)
    assert small["WT"] == pytest.approx((39.0, 70.0))
    assert intervals(VOLUMES, scores, True, None, 1500.0, LABELS) == {}
    others = {region: each for region, each in CALIBRATION.regions.items() if region != "TC"}
    assert "TC" not in intervals(VOLUMES, scores, True, replace(CALIBRATION, regions=others), 1500.0, LABELS)


@pytest.mark.parametrize(("factor", "known"), [(1.97, True), (1.98, False)])
def test_an_interval_spans_at_most_a_factor_of_four(factor, known):
    """Of 59 ml, a Dice of 2 / (1 + f) allows 60 / f - 1 to 60 f - 1 ml: a factor of 3.98 and of 4.02."""
    made = intervals({"WT": 59.0}, {"WT": 2 / (1 + factor)}, True, CALIBRATION, 1500.0, LABELS)
    assert made == ({"WT": pytest.approx((60 / factor - 1, 60 * factor - 1))} if known else {})


def test_no_interval_ends_below_that_of_a_region_within():
    made = intervals({"WT": 39.0, "ET": 39.0}, {"WT": 2 / 3, "ET": 0.9}, True, CALIBRATION, 1500.0, LABELS)
    assert made["ET"] == pytest.approx((40 / (1.1 / 0.9) - 1, 40 * (1.1 / 0.9) - 1))  # 31.7 to 47.9
    assert made["WT"] == pytest.approx((40 / (1.1 / 0.9) - 1, 79.0))  # and not from 19


@pytest.mark.parametrize(("score", "found"), [(0.5, True), (0.499, False)])
def test_a_tumour_is_found_from_the_limit_on(score, found):
    assert (absent(VOLUMES, VOLUMES | {"WT": score}, None) == "") == found
    by_limit = replace(CALIBRATION, no_tumour=0.5)
    assert (absent(VOLUMES, VOLUMES | {"WT": score}, by_limit) == "") == found


def test_the_sequence_that_adds_most_comes_first():
    expected = {"WT": 0.6, "TC": 0.5, "ET": 0.2}
    made = with_further(expected, "t2", {"t1": "t1+t2", "flair": "t2+flair", "t1c": "t1c+t2"}, CALIBRATION)
    assert list(made) == ["flair", "t1c"]  # nothing was measured with T1
    assert made["t1c"] == pytest.approx({"WT": 0.7, "TC": 0.8, "ET": 0.8})
    assert made["flair"] == pytest.approx({"WT": 0.8})
