"""Calibration of what a network says of its own outlines: its fit, its file beside the weights, and how good it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil, exp, inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logit

from common.cohorts.registry import names_of, owners, patient
from common.evaluation.metrics.results import Evaluation
from common.io.documents import read_json
from common.io.files import replacing

GOOD_DICE = 0.8
"""Dice from which on an outline is good."""
MIN_CHANCE = 0.7
"""Chance of a good outline from which on it is called usable. For `single.pt` of M3AE this is the lowest limit in steps
of 0.05 at which, of the outlines of left-out patients that are called usable, 80 % (`LEAST_RIGHT`) are good, in each
region of which any are."""
LEAST_RIGHT = 0.8
"""Share of the outlines called usable, in left-out patients, that have to be good for the word to be used at all."""
NOMINAL_COVERAGE = 0.8
"""Share of left-out outlines whose true volume the intervals are to hold."""
LEAST_HELD = 0.6
"""Share of the intervals, in left-out patients, that have to hold the true volume for any to be given."""
WIDEST = 4.0
"""Ratio of an interval's ends above which the volume counts as unknown."""
NO_TUMOUR = 0.5
"""Raw score of the largest region below which it counts as not seen, if no brains without a tumour were given; less if
that would be said of more than `MOST_MISSED` of the outlines of tumours."""
MOST_MISSED = 0.02
MOST_DOUBTED = 0.1
"""Largest share of the outlines of tumours of which it is said that there may be no tumour."""
LIMITS = np.arange(0, 1, 0.05).round(2)
"""Limits that are tried."""
RIDGE = 1.0
"""Weight of the fit's pull towards the raw score, in outlines; with 0.3 to 3 the results are nearly the same."""
CLIPPED = 0.02
"""Scores are taken to be this far from 0 and 1, so that their logits are finite."""
FEWEST = 3
"""Fewest patients that anything is calibrated on, also while a source or a patient is left out."""
OFFSET = 1.0
"""Volume in ml that is added before ratios are taken, so that errors of small volumes count as absolute ones."""


@dataclass(frozen=True)
class LeftOut:
    """What the calibration says of the outlines of patients that it was not fitted on, against the truth.

    Attributes:
        outlines, good: number of outlines, and of those with a Dice of at least `GOOD_DICE`.
        usable, right: number of outlines called usable, and of the good ones among them.
        raw_usable, raw_right: likewise for a raw score of at least `GOOD_DICE`, without calibration.
        raw, expected, dice: mean expected Dice before and after the calibration, and mean true Dice.
        intervals, held: number of intervals that are not wider than `WIDEST`, and of those that hold the true volume.
        sources: number of sources that were left out, one at a time; 0 if it was one patient at a time.
    """

    outlines: int
    good: int
    usable: int
    right: int
    raw_usable: int
    raw_right: int
    raw: float
    expected: float
    dice: float
    intervals: int
    held: int
    sources: int = 0

    @property
    def words_hold(self) -> bool:
        """Whether outlines called usable were good often enough (`LEAST_RIGHT`)."""
        return 0 < LEAST_RIGHT * self.usable <= self.right

    @property
    def intervals_hold(self) -> bool:
        """Whether intervals held the true volume often enough (`LEAST_HELD`)."""
        return 0 < LEAST_HELD * self.intervals <= self.held


@dataclass(frozen=True)
class RegionCalibration:
    """The calibration of a region's outlines, given the raw score s: the Dice that the probabilities predict.

    Attributes:
        dice: (a, b, c) of the expected Dice ``expit(a + b logit(s) + c (T1c used) / 2)``; c is subtracted without T1c.
        chance: (a, b, c) of the chance that the Dice is at least `GOOD_DICE`, of the same form.
        widening: factor w of the interval; see `Calibration.interval`.
        left_out: how good it is.
    """

    dice: tuple[float, float, float]
    chance: tuple[float, float, float]
    widening: float
    left_out: LeftOut


@dataclass(frozen=True)
class Calibration:
    """What belongs to weights and a decision; no outline depends on it.

    Attributes:
        weights: SHA-256 of the weights' file.
        patients: number of patients that it was fitted on.
        no_tumour: raw score of the largest region below which no tumour was found with confidence.
        passed: numbers of outlines without tumour that reach this limit, and of all of them.
        missed: numbers of outlines of a tumour (Dice of at least 0.5) that do not reach it, and of all of them.
        regions: region -> its calibration, larger regions first.
        doubted_below: raw score of the largest region below which there may be no tumour.
        doubted: numbers of outlines of a tumour that do not reach this limit, and of all of them.
        found: numbers of results, drawn or not, of patients with a tumour in which one was found with confidence, and
            of all of them.
    """

    weights: str
    decision: str
    patients: int
    no_tumour: float
    passed: tuple[int, int]
    missed: tuple[int, int]
    regions: Mapping[str, RegionCalibration]
    doubted_below: float = 0.0
    doubted: tuple[int, int] = (0, 0)
    found: tuple[int, int] = (0, 0)

    def expected(self, region: str, score: float, t1c: bool) -> float:
        """Return the calibrated expected Dice, in [0, 1], of an outline with this raw score."""
        return float(_mapped(self.regions[region].dice, score, t1c))

    def chance(self, region: str, score: float, t1c: bool) -> float:
        """Return the probability that the outline's Dice is at least `GOOD_DICE`."""
        return float(_mapped(self.regions[region].chance, score, t1c))

    def usable(self, region: str, score: float, t1c: bool) -> bool:
        """Return whether the outline is called usable for review."""
        return self.chance(region, score, t1c) >= MIN_CHANCE and self.regions[region].left_out.words_hold

    def interval(self, region: str, volume: float, score: float, t1c: bool) -> tuple[float, float]:
        """Return an interval (ml) for the true volume of a region, whose outline has this volume (ml) and raw score.

        A volume v and the true one r that overlap with a Dice of d have a ratio of at most ``(2 - d) / d``. The
        interval is all r with ``|log((r + 1 ml) / (v + 1 ml))| <= w log((2 - d) / d)``, where d is the calibrated
        expected Dice and w the `NOMINAL_COVERAGE` quantile of this quotient over outlines of left-out patients. Unlike
        in `reliability` nothing is guaranteed, since the outlines of one patient are not independent.
        """
        return _interval(volume, self.expected(region, score, t1c), self.regions[region].widening)


def calibrate(
    evaluations: Sequence[Evaluation], weights: str, without_tumour: Sequence[float] | None = None
) -> Calibration:
    """Fit the calibration of the weights with this SHA-256 to evaluations of them, with one decision.

    All cases with a reference count, those of the test and of the calibration (validation) part; outlines without any
    voxel do not. ``without_tumour`` are raw scores of the largest region in brains without a tumour, 0 where nothing
    was outlined. Raises ValueError if the evaluations are of different decisions or regions, or if there are fewer
    than `FEWEST` patients with the raw score and the true Dice of an outline.
    """
    first = evaluations[0]
    decision = _common("decision", [str(each.facts.get("decision", "threshold")) for each in evaluations])
    _common("regions", [each.regions for each in evaluations])
    rows = pd.concat([rows for each in evaluations for rows in (each.calibration, each.results)])
    outlines = _outlines(rows)
    patients = outlines["patient"].nunique()
    if patients < FEWEST:
        raise ValueError(
            f"The evaluations have the metrics expected_dice, dice, volume and reference_volume of {patients} "
            f"patients; expected at least {FEWEST}. Evaluate the test part with the validation part as calibrate_on."
        )
    of_region = {region: outlines[outlines["region"] == region] for region in first.regions}
    limit, passed, missed = _no_tumour(of_region[first.regions[0]], without_tumour)
    doubted_below, doubted = _doubted(of_region[first.regions[0]])
    return Calibration(
        weights=weights,
        decision=decision,
        patients=patients,
        no_tumour=limit,
        passed=passed,
        missed=missed,
        regions={name: _region(rows) for name, rows in of_region.items() if rows["patient"].nunique() >= FEWEST},
        doubted_below=doubted_below,
        doubted=doubted,
        found=_found(rows, first.regions[0], limit),
    )


def calibration_file(weights: str | Path) -> Path:
    """Return the path of the calibration beside weights: ``model_calibration.json`` for ``model.pt``."""
    return Path(weights).with_name(f"{Path(weights).stem}_calibration.json")


def write_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration; raises ValueError if the file is not one."""
    try:
        return read_json(path, Calibration, "Expected one that `mmb calibrate` made, or none.")
    except ValueError as error:
        raise ValueError(f"{path}: not a calibration ({error})") from error


def _outlines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return an outline in each row, with the columns patient, modalities, region, t1c and those of four metrics."""
    keys, metrics = ["case", "modalities", "region"], ["dice", "expected_dice", "volume", "reference_volume"]
    chosen = rows[rows["metric"].isin(metrics)].drop_duplicates([*keys, "metric"]).astype({"value": float})
    wide = chosen.pivot(index=keys, columns="metric", values="value").reindex(columns=metrics).dropna().reset_index()
    wide = wide[wide["volume"] > 0]
    return wide.assign(patient=wide["case"].map(patient), t1c=["t1c" in name.split("+") for name in wide["modalities"]])


def _region(outlines: pd.DataFrame) -> RegionCalibration:
    """Fit to the outlines of a region, and judge by fits that leave out one source at a time, or else one patient.

    New patients come from elsewhere, so the outlines of a data set are judged by those of others.
    """
    score, t1c = outlines["expected_dice"].to_numpy(), outlines["t1c"].to_numpy()
    dice, volume = outlines["dice"].to_numpy(), outlines["volume"].to_numpy()
    true, sources = outlines["reference_volume"].to_numpy(), _sources(outlines)
    groups = (outlines["patient"] if sources is None else sources).to_numpy()
    good, left_out = dice >= GOOD_DICE, [groups == name for name in np.unique(groups)]
    expected, chance, widening = np.empty((3, len(dice)))
    for out in left_out:
        expected[out] = _mapped(_fit(score[~out], t1c[~out], dice[~out]), score[out], t1c[out])
        chance[out] = _mapped(_fit(score[~out], t1c[~out], good[~out]), score[out], t1c[out])
    ratios = np.abs(np.log((true + OFFSET) / (volume + OFFSET))) / np.log((2 - expected) / expected)
    for out in left_out:
        widening[out] = _widening(ratios[~out])
    low, high = np.array([_interval(*row) for row in zip(volume, expected, widening, strict=True)]).T
    known, usable = high <= WIDEST * low, chance >= MIN_CHANCE
    return RegionCalibration(
        dice=_rounded(_fit(score, t1c, dice)),
        chance=_rounded(_fit(score, t1c, good)),
        widening=round(_widening(ratios), 4),
        left_out=LeftOut(
            outlines=len(dice),
            good=int(good.sum()),
            usable=int(usable.sum()),
            right=int((usable & good).sum()),
            raw_usable=int((score >= GOOD_DICE).sum()),
            raw_right=int(((score >= GOOD_DICE) & good).sum()),
            raw=round(float(score.mean()), 4),
            expected=round(float(expected.mean()), 4),
            dice=round(float(dice.mean()), 4),
            intervals=int(known.sum()),
            held=int((known & (low <= true) & (true <= high)).sum()),
            sources=0 if sources is None else len(left_out),
        ),
    )


def _sources(outlines: pd.DataFrame) -> pd.Series | None:
    """Return the publishers of each outline's case; None if a name tells none, or too few patients are of others."""
    sources = outlines["case"].map(lambda case: names_of(owners(case)))
    patients = outlines.groupby(sources)["patient"].nunique()
    told = "" not in patients.index and patients.sum() - patients.max() >= FEWEST
    return sources if told else None


def _fit(score: np.ndarray, t1c: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return (a, b, c) of a logistic regression on targets in [0, 1].

    See Papke and Wooldridge, Journal of Applied Econometrics 11, 1996. b is drawn towards 1 and c towards 0,
    that is, towards the raw score up to a constant.
    """
    columns, prior = _columns(score, t1c), np.array([0.0, 1, 0])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        z, pull = columns @ values, RIDGE * (values - prior) * (0, 1, 1)
        value = np.sum(np.logaddexp(0, z) - target * z) + pull @ pull / (2 * RIDGE)
        return value, columns.T @ (expit(z) - target) + pull

    return minimize(loss, prior, jac=True).x


def _columns(score: np.ndarray | float, t1c: np.ndarray | bool) -> np.ndarray:
    """Return the variables of the fit, ``(..., 3)``."""
    return np.stack([np.ones_like(score), _logit(score), np.asarray(t1c) - 0.5], axis=-1)


def _mapped(values: ArrayLike, score: np.ndarray | float, t1c: np.ndarray | bool) -> np.ndarray | float:
    mapped = expit(_columns(score, t1c) @ np.asarray(values, float))
    return float(mapped) if np.ndim(mapped) == 0 else mapped


def _logit(share: np.ndarray | float) -> np.ndarray | float:
    return logit(np.clip(share, CLIPPED, 1 - CLIPPED))


def _interval(volume: float, expected: float, widening: float) -> tuple[float, float]:
    half = exp(widening * log((2 - expected) / expected))
    return max((volume + OFFSET) / half - OFFSET, 0.0), (volume + OFFSET) * half - OFFSET


def _no_tumour(
    outlines: pd.DataFrame, without: Sequence[float] | None
) -> tuple[float, tuple[int, int], tuple[int, int]]:
    """Return the limit, the numbers of brains without tumour that reach it, and of tumours that do not.

    The limit is that of highest balanced accuracy (Youden, Cancer 1950), the highest if several are equal; without such
    brains, see `NO_TUMOUR`.
    """
    tumours = outlines.loc[outlines["dice"] >= 0.5, "expected_dice"].to_numpy()
    others = np.asarray([] if without is None else without, float)
    below = np.array([np.mean(tumours < each) if len(tumours) else 0.0 for each in LIMITS])
    if len(others):
        errors = below + [np.mean(others >= each) for each in LIMITS]
        possible = np.isclose(errors, errors.min())
    else:
        possible = (below <= MOST_MISSED) & (LIMITS <= NO_TUMOUR)
    limit = float(LIMITS[possible].max())
    passed, missed = int((others >= limit).sum()), int((tumours < limit).sum())
    return limit, (passed, len(others)), (missed, len(tumours))


def _found(rows: pd.DataFrame, region: str, limit: float) -> tuple[int, int]:
    """Return in how many results of patients with a tumour one was drawn that reaches the limit, and their number."""
    of_region = rows[rows["region"] == region].drop_duplicates(["case", "modalities", "metric"])
    wide = of_region.pivot(index=["case", "modalities"], columns="metric", values="value").astype(float)
    ill = wide[wide["reference_volume"] > 0]
    return int(((ill["volume"] > 0) & (ill["expected_dice"] >= limit)).sum()), len(ill)


def _doubted(outlines: pd.DataFrame) -> tuple[float, tuple[int, int]]:
    """Return the highest limit that `MOST_DOUBTED` of the tumours' outlines do not reach, and how many do not."""
    tumours = outlines.loc[outlines["dice"] >= 0.5, "expected_dice"].to_numpy()
    below = np.array([(tumours < each).sum() for each in LIMITS])
    limit = np.flatnonzero(below <= MOST_DOUBTED * len(tumours)).max() if len(tumours) else 0
    return float(LIMITS[limit]), (int(below[limit]), len(tumours))


def _common(what: str, values: Sequence) -> Any:
    """Return what all evaluations have in common."""
    if any(value != values[0] for value in values):
        raise ValueError(f"The evaluations have different {what}: {values[0]} and {values[-1]}; give those of one.")
    return values[0]


def _widening(ratios: np.ndarray) -> float:
    return min(conformal_quantile(ratios, NOMINAL_COVERAGE), float(ratios.max()))


def _rounded(values: np.ndarray) -> tuple[float, float, float]:
    first, second, third = (round(float(value), 4) for value in values)
    return first, second, third


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """Return the ``ceil((n + 1) coverage)``-th smallest of n scores, or infinity if that is more than n."""
    rank = ceil((len(scores) + 1) * Fraction(str(coverage)))  # exact: in floats, 100 * 0.55 is more than 55
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else inf
