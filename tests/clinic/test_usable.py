"""The calibration of what a network says of its own outlines: by hand, on simulated patients, and as a file."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import exp, inf, log

import numpy as np
import pandas as pd
import pytest
from phantom_case import LABELS
from run_tools import run
from scipy.special import expit, logit

from common.cohorts.registry import PHANTOM
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation, write_evaluation
from common.io.files import file_digest
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.result import calibrated
from mmb.clinic.report.verdicts import Presence, intervals, presence, presence_remarks, verdicts
from mmb.predictors.calibration import (
    Calibration,
    LeftOut,
    RegionCalibration,
    calibrate,
    calibration_file,
    conformal_quantile,
    read_calibration,
    write_calibration,
)
from mmb.predictors.calibration_table import left_out_table

HELD = LeftOut(100, 50, 20, 16, 0, 0, 0.8, 0.7, 0.7, 10, 6)
BY_HAND = Calibration(
    "12ab", "threshold", 3, 0.5, (0, 0), (0, 0),
    {"WT": RegionCalibration((0.0, 1.0, 0.0), (0.0, 2.0, 2.0), 1.0, HELD)},
)  # fmt: skip


def test_the_table_of_left_out_patients():
    held = replace(HELD, raw_usable=40, raw_right=30, dice=0.6)
    table = left_out_table(replace(BY_HAND, regions={"WT": replace(BY_HAND.regions["WT"], left_out=held)}))
    shares = ("30 of 40 (75 %)", "16 of 20 (80 %)", "30 of 50 (60 %)", "16 of 50 (32 %)", "6 of 10 (60 %)")
    assert [*table.frame.iloc[0]] == ["WT", "100, 50 of them good", "80.0", "70.0", "60.0", *shares]


def simulated(patients: int = 40, regions=("WT",), seed: int = 0, **facts) -> Evaluation:
    """Return an evaluation in which the true logit of the Dice is that of the score, less 1 without T1c."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(patients):
        for subset in ("t1", "t1c", "t1+t1c"):
            for region in regions:
                score = rng.uniform(0.55, 0.97)
                dice = expit(logit(score) - 1.0 * ("t1c" not in subset) + rng.normal(0, 0.3))
                true = rng.uniform(5, 100)
                volume = true * ((2 - dice) / dice) ** rng.uniform(-1, 1)
                values = {"expected_dice": score, "dice": dice, "volume": volume, "reference_volume": true}
                rows += [(f"case{number}", subset, region, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(rows, columns=COLUMNS)
    test = table["case"].isin([f"case{number}" for number in range(patients // 2)])
    tables = (table[test], table[~test])
    return Evaluation("a", "toy", ("t1", "t1c"), tuple(regions), Conventions(), *tables, facts=dict(facts))


def test_words_and_intervals_by_hand():
    assert BY_HAND.expected("WT", 0.8, True) == pytest.approx(0.8)
    assert BY_HAND.chance("WT", 0.5, True) == pytest.approx(expit(1))  # half of c
    assert BY_HAND.chance("WT", 0.8, False) == pytest.approx(expit(2 * log(4) - 1))
    # A Dice of 0.8 allows volumes that differ by (2 - 0.8) / 0.8 = 1.5, after 1 ml is added
    assert BY_HAND.interval("WT", 29.0, 0.8, True) == pytest.approx((19.0, 44.0))
    assert BY_HAND.interval("WT", 0.2, 0.8, True) == pytest.approx((0.0, 0.8))


def test_too_certain_scores_are_mended_for_patients_that_were_left_out():
    calibration = calibrate([simulated()], "12ab")
    assert calibration.patients == 40
    intercept, slope, t1c = calibration.regions["WT"].dice
    assert (intercept, slope, t1c) == pytest.approx((-0.5, 1.0, 1.0), abs=0.25)
    judged = calibration.regions["WT"].left_out
    assert judged.outlines == 120
    assert abs(judged.expected - judged.dice) < 0.01 < judged.raw - judged.dice
    assert judged.right / judged.usable > 0.85 > judged.raw_right / judged.raw_usable
    assert judged.right > judged.good / 2
    assert judged.held / judged.intervals == pytest.approx(0.8, abs=0.08)


def outlines(evaluation: Evaluation) -> pd.DataFrame:
    """Return an outline in each row, with its case, its modalities, and its metrics."""
    rows = pd.concat([evaluation.results, evaluation.calibration])
    return rows.pivot(index=["case", "modalities"], columns="metric", values="value").reset_index()


def changed(evaluation: Evaluation, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Evaluation:
    """Return an evaluation of which both tables are changed."""
    return replace(evaluation, results=change(evaluation.results), calibration=change(evaluation.calibration))


def of_cases(evaluation: Evaluation, chosen: Callable[[pd.Series], pd.Series]) -> Evaluation:
    return changed(evaluation, lambda table: table[chosen(table["case"])])


@pytest.mark.parametrize("seed", [0, 1])
def test_each_patient_is_judged_by_the_others(seed):
    """What is said of left-out patients is what calibrations of the other patients say, one after the other."""
    whole = simulated(8, seed=seed)
    judged = calibrate([whole], "12ab").regions["WT"].left_out
    rows = {case: of_case for case, of_case in outlines(whole).groupby("case")}
    others = {case: calibrate([of_cases(whole, lambda cases, case=case: cases != case)], "12ab") for case in rows}
    ends, ratios = {}, {}
    expected, usable, right = [], 0, 0
    for case, of_case in rows.items():
        for number, row in of_case.iterrows():
            t1c = "t1c" in row["modalities"]
            dice = others[case].expected("WT", row["expected_dice"], t1c)
            expected.append(dice)
            is_usable = others[case].chance("WT", row["expected_dice"], t1c) >= 0.7
            usable, right = usable + is_usable, right + (is_usable and row["dice"] >= 0.8)
            ends[number] = log((2 - dice) / dice)
            ratios[number] = abs(log((row["reference_volume"] + 1) / (row["volume"] + 1))) / ends[number]
    assert (judged.expected, judged.usable, judged.right) == (pytest.approx(np.mean(expected), abs=2e-4), usable, right)
    intervals = held = 0
    for of_case in rows.values():
        among = np.sort([ratio for number, ratio in ratios.items() if number not in of_case.index])  # 21 of others
        for number, row in of_case.iterrows():
            half = exp(among[17] * ends[number])  # the ceil(22 * 0.8) = 18th of them
            low, high = (row["volume"] + 1) / half - 1, (row["volume"] + 1) * half - 1
            if high <= 4 * max(low, 0):
                intervals, held = intervals + 1, held + (low <= row["reference_volume"] <= high)
    assert (judged.intervals, judged.held) == (intervals, held)
    assert 0 < held < intervals < 24
    assert 0 < right <= usable < 24
    every = outlines(whole)
    good, certain = every["dice"] >= 0.8, every["expected_dice"] >= 0.8
    assert (judged.outlines, judged.good) == (24, good.sum())
    assert (judged.raw_usable, judged.raw_right) == (certain.sum(), (certain & good).sum())
    widening = calibrate([whole], "12ab").regions["WT"].widening
    assert widening == pytest.approx(sorted(ratios.values())[19], rel=2e-3)  # the ceil(25 * 0.8) = 20th of all


def named(evaluation: Evaluation, names: Callable[[int], str]) -> Evaluation:
    """Return an evaluation whose cases are named by their numbers."""
    return changed(
        evaluation, lambda rows: rows.assign(case=rows["case"].str.removeprefix("case").astype(int).map(names))
    )


def of_two_sources(number: int) -> str:
    return f"BraTS2021_{number:05}" if number % 4 else f"BraTS-SSA-{number:05}-000"


def test_each_source_is_judged_by_the_other():
    """Cases of two publishers: what is said of those of one is what a calibration on the other's alone says."""
    whole = named(simulated(16), of_two_sources)
    judged = calibrate([whole], "12ab").regions["WT"].left_out
    assert judged.sources == 2
    expected = []
    for prefix in ("BraTS2021", "BraTS-SSA"):
        others = calibrate([of_cases(whole, lambda cases, prefix=prefix: ~cases.str.startswith(prefix))], "12ab")
        rows = outlines(whole).query("case.str.startswith(@prefix)")
        pairs = zip(rows["expected_dice"], rows["modalities"], strict=True)
        expected += [others.expected("WT", score, "t1c" in modalities) for score, modalities in pairs]
    assert judged.expected == pytest.approx(np.mean(expected), abs=2e-4)
    by_patients = calibrate([simulated(16)], "12ab").regions["WT"].left_out
    assert judged.expected != pytest.approx(by_patients.expected, abs=2e-4)


@pytest.mark.parametrize(
    "names",
    [
        lambda number: f"BraTS2021_{number:05}",  # one source
        lambda number: of_two_sources(number) if number else "patient 1",  # a name that tells none
        of_two_sources,  # two patients of eight are of the one source
    ],
)
def test_patients_are_left_out_where_sources_are_not_known_or_too_few_patients_are_of_others(names):
    plain, other = (calibrate([each], "12ab").regions["WT"] for each in (simulated(8), named(simulated(8), names)))
    assert other == plain
    assert other.left_out.sources == 0


def test_the_fit_is_pulled_towards_the_raw_score_by_the_weight_of_one_outline():
    """Where the loss is least, its slopes along a, b and c are 0."""
    whole = simulated(8)
    every = outlines(whole)
    t1c = np.array(["t1c" in name for name in every["modalities"]])
    x = logit(every["expected_dice"].to_numpy())
    region = calibrate([whole], "12ab").regions["WT"]
    for (a, b, c), target in ((region.dice, every["dice"]), (region.chance, every["dice"] >= 0.8)):
        wrong = expit(a + b * x + c * np.where(t1c, 0.5, -0.5)) - target.to_numpy()
        slopes = wrong.sum(), (wrong * x).sum() + (b - 1), (wrong * np.where(t1c, 0.5, -0.5)).sum() + c
        assert slopes == pytest.approx((0, 0, 0), abs=5e-3)


def listed(rows: list[tuple[float, float, float]]) -> Evaluation:
    """Return an evaluation of outlines of the whole tumour (score, Dice, volume), those of T1 and T1c in turn."""
    made = []
    for number, values in enumerate(rows):
        values = dict(zip(("expected_dice", "dice", "volume"), values, strict=True)) | {"reference_volume": 20.0}
        for region in ("WT", "ET"):
            values = values if region == "WT" else values | {"expected_dice": 0.07}
            key = (f"case{number // 2}", ("t1", "t1c")[number % 2], region)
            made += [(*key, metric, value) for metric, value in values.items()]
    table = pd.DataFrame(made, columns=COLUMNS)
    return Evaluation("a", "toy", ("t1", "t1c"), ("WT", "ET"), Conventions(), table, table[:0])


def test_the_limit_by_hand():
    good = [(0.9, 0.9, 20.0)] * 8
    # Below 0.3 no tumour is, up to 0.9 one of 9; the other outlines are of no tumour, or of nothing
    rows = [(0.3, 0.5, 20.0), *good, (0.2, 0.49, 20.0), (0.1, 0.9, 0.0)]
    made = calibrate([listed(rows)], "12ab", [0.3])
    assert (made.no_tumour, made.passed, made.missed) == (0.9, (0, 1), (1, 9))
    assert made.regions["WT"].left_out.outlines == 10
    assert calibrate([listed(rows)], "12ab", [0.3, 0.9]).passed == (1, 2)  # what scores the limit reaches it


@pytest.mark.parametrize(("low", "limit", "below"), [(10, 0.75, 10), (11, 0.6, 0)])
def test_a_tumour_is_doubted_below_what_nine_in_ten_score(low, limit, below):
    """0.62 is below every limit from 0.65 on, 0.77 from 0.8 on; outlines of no tumour do not count."""
    rows = [*[(0.62, 0.9, 20.0)] * low, *[(0.77, 0.9, 20.0)] * (100 - low), *[(0.1, 0.4, 20.0)] * 50]
    made = calibrate([listed(rows)], "12ab")
    assert (made.doubted_below, made.doubted) == (limit, (below, 100))


@pytest.mark.parametrize(("lowest", "limit"), [((0.31,) * 2 + (0.41,), 0.4), ((0.31,), 0.5), ((0.31,) * 3, 0.3)])
def test_without_other_brains_the_limit_misses_at_most_two_of_a_hundred_tumours(lowest, limit):
    rows = [*((score, 0.9, 20.0) for score in lowest), *[(0.9, 0.9, 20.0)] * (100 - len(lowest))]
    assert calibrate([listed(rows)], "12ab").no_tumour == limit


def test_scores_are_cut_and_chances_limited_by_hand():
    for score, cut in ((1.0, 0.98), (0.981, 0.98), (0.979, 0.979), (0.0, 0.02)):
        assert BY_HAND.expected("WT", score, True) == pytest.approx(cut)
    # The chance is 0.7 where 2 logit(s) + 1 = logit(0.7), that is, at s = 0.481
    assert [BY_HAND.usable("WT", score, True) for score in (0.478, 0.485)] == [False, True]


def test_words_that_did_not_hold_in_left_out_patients_are_not_used():
    assert HELD.words_hold
    assert HELD.intervals_hold
    for less in (replace(HELD, right=15), replace(HELD, usable=0, right=0)):
        assert not less.words_hold
        region = replace(BY_HAND.regions["WT"], left_out=less)
        assert not replace(BY_HAND, regions={"WT": region}).usable("WT", 0.97, True)
    assert BY_HAND.usable("WT", 0.97, True)
    assert not replace(HELD, held=5).intervals_hold


def test_a_file_beside_the_weights(tmp_path):
    path = calibration_file(tmp_path / "own.pt")
    assert path.name == "own_calibration.json"
    calibration = calibrate([simulated(6)], "12ab")
    write_calibration(calibration, path)
    read = read_calibration(path)
    assert read.regions == calibration.regions
    for text in ("", "[]", "{}", path.read_text().replace('"widening"', '"other"'), "\x00\udcff",
                 path.read_text().replace('"dice": [', '"dice": ["x",')):  # fmt: skip
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=r"own_calibration\.json: not a calibration"):
            read_calibration(path)


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="different decision"):
        calibrate([simulated(), simulated(decision="expected_dice")], "12ab")
    with pytest.raises(ValueError, match="of 2 patients; expected at least 3"):
        calibrate([simulated(2)], "12ab")


def test_the_verb(tmp_path, capsys):
    weights = tmp_path / "own.pt"
    weights.write_bytes(b"weights")
    write_evaluation(simulated(6, weights=file_digest(weights)), tmp_path / "evaluation")
    (tmp_path / "heads" / "one").mkdir(parents=True)
    path, made_with = tmp_path / "heads" / "one" / "summary.json", f"own.pt, SHA-256 {file_digest(weights)}"
    summary = {"scores": {"WT": 0.3}, "weights": made_with, "asked": {"decision": "threshold"}}
    words, others = ("calibrate", weights, tmp_path / "evaluation"), f"own.pt, SHA-256 {'0' * 64}"
    for change, message in (
        ({"weights": others}, f"made with the weights {others}; segment"),
        ({"asked": {"decision": "expected_dice"}}, "made with the decision expected_dice; segment this study with"),
        ({"asked": None}, "expected a score of WT, weights and decision"),
        ({"scores": {}}, "expected a score of WT, weights and decision (KeyError('WT'))"),
    ):
        path.write_text(json.dumps(summary | change))
        assert f"{path}: {message}" in run(*words, "--without_tumour", tmp_path / "heads")
        assert not (tmp_path / "own_calibration.json").exists()
    path.write_text(json.dumps(summary))
    assert run(*words, "--without_tumour", tmp_path / "heads") is None
    assert "Fitted on 6 patients" in capsys.readouterr().out
    assert read_calibration(tmp_path / "own_calibration.json").passed == (0, 1)
    weights.write_bytes(b"others")
    assert "not an evaluation of" in run(*words)
    assert "No evaluation" in run("calibrate", weights)


@pytest.mark.parametrize(
    ("n", "coverage", "expected"),
    [(4, 0.8, 4), (3, 0.8, inf), (4, 0.9, inf), (9, 0.8, 8), (9, 0.9, 9), (8, 0.9, inf), (99, 0.9, 90), (99, 0.55, 55)],
)
def test_quantile_by_hand(n, coverage, expected):
    assert conformal_quantile(np.random.default_rng(0).permutation(n) + 1.0, coverage) == expected


SAME = (0.0, 1.0, 0.0)  # the score itself
CALIBRATION = Calibration(
    "12ab", "threshold", 14, 0.4, (0, 3), (1, 100),
    {region: RegionCalibration(SAME, SAME, 1.0, HELD) for region in ("WT", "TC", "ET")},
)  # fmt: skip
VOLUMES = {"WT": 60.0, "TC": 20.0, "ET": 10.0}


def words(scores, used=("t1c", "t2"), volumes=VOLUMES, calibration=CALIBRATION, code=""):
    scores, remarks = dict(zip(volumes, scores, strict=True)), [Remark(code, Gravity.DOUBT, "")] if code else []
    found = presence(volumes, scores, calibration)
    return [each.text for each in verdicts(volumes, scores, used, calibration, found, remarks).values()]


TOO_FEW = replace(HELD, usable=10, right=7)
IN_TURN = ["usable for review", "doubtful: the network is unsure", "not reliable: the network is unsure"]


def test_a_verdict_is_a_word_and_a_reason():
    assert words((0.9, 0.6, 0.3)) == IN_TURN
    assert words((0.9, 0.6, 0.3), used=["t2"]) == [
        "usable for review", "doubtful: no T1c, only T2", "not reliable: no T1c, only T2"
    ]  # fmt: skip
    assert words((0.9, 0.6, 0.0), ["t1", "t2"], VOLUMES | {"ET": 0.0})[2] == "doubtful: none found, no T1c"


def test_a_region_whose_outlines_were_seldom_good_has_another_reason_than_the_network():
    few = {name: replace(each, left_out=TOO_FEW) for name, each in CALIBRATION.regions.items()}
    reason = "doubtful: too seldom good in tests"
    assert words((0.9, 0.6, 0.3), calibration=replace(CALIBRATION, regions=few)) == [reason, *IN_TURN[1:]]


def test_an_outline_is_reliable_from_an_expected_dice_of_one_half_on():
    assert words((0.9, 0.501, 0.499)) == IN_TURN
    half = RegionCalibration((-1.0, 1.0, 0.0), SAME, 1.0, HELD)  # 0.73 becomes 0.499, and 0.732 becomes 0.501
    by_half = replace(CALIBRATION, regions=dict.fromkeys(VOLUMES, half))
    assert words((0.9, 0.732, 0.73), calibration=by_half)[1:] == [IN_TURN[0], IN_TURN[2]]


def test_nothing_is_usable_if_all_is_doubted_or_nothing_is_calibrated():
    assert words((0.9, 0.9, 0.3), code="partial")[0] == "doubtful: see the warnings"
    assert words((0.9, 0.9, 0.3), calibration=None) == [*["doubtful: these weights are not calibrated"] * 2, IN_TURN[2]]


def said_of(volumes, scores, calibration) -> tuple[Presence, list[Remark]]:
    found = presence(volumes, scores, calibration)
    return found, [*presence_remarks(found, volumes, scores, calibration)]


def known_of_tumours(scores, calibration) -> dict:
    """Return the intervals."""
    return calibrated(VOLUMES, scores, ["t1c", "t2"], 1500.0, PHANTOM, calibration).get("intervals", {})


def test_no_tumour():
    nothing = dict.fromkeys(VOLUMES, 0.0)
    assert said_of(VOLUMES, VOLUMES | {"WT": 0.4}, CALIBRATION) == ("found", [])
    found, (doubtful,) = said_of(VOLUMES, VOLUMES | {"WT": 0.399}, CALIBRATION)
    assert (found, doubtful.code, doubtful.gravity) == ("none", "no_tumour", "doubt")
    assert doubtful.text.startswith("No tumour found with confidence: what is drawn is doubtful. This does not exclude")
    assert "In tests, 99 of 100 outlines of tumours scored 0.40 or more, and 0 of 3 brains without" in doubtful.text
    uncalibrated = [presence(VOLUMES, VOLUMES | {"WT": score}, None) for score in (0.499, 0.5)]
    assert uncalibrated == ["none", "found"]
    found, (empty,) = said_of(nothing, nothing, CALIBRATION)
    assert (found, "nothing was drawn" in empty.text) == ("none", True)
    none = "no tumour found with confidence"
    assert words((0.39, 0.9, 0.9)) == [f"not reliable: {none}", f"doubtful: {none}", f"doubtful: {none}"]
    assert known_of_tumours(VOLUMES | {"WT": 0.39}, CALIBRATION) == known_of_tumours(VOLUMES, None) == {}
    assert known_of_tumours(VOLUMES | {"WT": 0.41}, CALIBRATION)


@pytest.mark.parametrize(("score", "doubted"), [(0.39, False), (0.41, True), (0.69, True), (0.7, False)])
def test_an_outline_that_scores_as_few_tumours_do_may_be_none(score, doubted):
    """Below 0.4 none is found with confidence, and below 0.7 there may be none."""
    calibration = replace(CALIBRATION, doubted_below=0.7, doubted=(9, 100))
    scores = VOLUMES | {"WT": score}
    found, remarks = said_of(VOLUMES, scores, calibration)
    assert (found == "doubtful") == doubted
    if doubted:
        assert [remark.code for remark in remarks] == ["perhaps_no_tumour"]
        assert "91 of 100 outlines of tumours scored 0.70 or more" in remarks[0].text
        told = words((score, 0.9, 0.3), calibration=calibration)[1:]
        assert told == ["doubtful: there may be no tumour", "not reliable: there may be no tumour"]
        assert known_of_tumours(scores, calibration) == {}


def test_intervals_are_nested_within_the_brain_and_not_wide():
    """Dice of 2/3 and 0.8 allow twice and 1.5 times the volume; 0.5 allows threefold, which spans a factor of nine."""
    scores = {"WT": 0.8, "TC": 2 / 3, "ET": 0.5}
    made = intervals({"WT": 59.0, "TC": 49.0, "ET": 9.0}, scores, True, CALIBRATION, 1500.0, LABELS)
    assert made["WT"] == pytest.approx((39.0, 89.0))
    assert made["TC"] == pytest.approx((24.0, 89.0))  # not 99, which the whole tumour does not hold
    assert "ET" not in made
    small = intervals({"WT": 59.0}, {"WT": 0.8}, True, CALIBRATION, 70.0, LABELS)
    assert small["WT"] == pytest.approx((39.0, 70.0))
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
