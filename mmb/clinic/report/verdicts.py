"""The words for how far each region's outline can be used, from the network's raw scores and their calibration."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.modalities import SHOWN_BY_T1C, LabelSet, display_name
from mmb.clinic.remark import Gravity, Remark, stop_reasons
from mmb.clinic.report.formats import REGIONS, region_phrase
from mmb.predictors.calibration import MIN_CHANCE, NO_TUMOUR, WIDEST, Calibration

WORD_USABLE, DOUBTFUL, UNRELIABLE = "usable for review", "doubtful", "not reliable"
WORDS = (WORD_USABLE, DOUBTFUL, UNRELIABLE)
TOO_FEW_GOOD = "too seldom good in tests"  # so that none of the region is called usable
UNRELIABLE_BELOW_DICE = 0.5  # expected Dice below which an outline is not reliable


@dataclass(frozen=True)
class Verdict:
    """How far a region's outline can be used: a word (usable for review, doubtful, not reliable), and why if not."""

    word: str
    why: str = ""

    @property
    def text(self) -> str:
        """The verdict in one line, e.g. ``not reliable: no T1c``."""
        return f"{self.word}: {self.why}" if self.why else self.word

    @property
    def rank(self) -> int:
        """How bad it is, from 0 on."""
        return WORDS.index(self.word)


class Presence(StrEnum):
    """Whether a result shows a tumour."""

    FOUND = "found"
    DOUBTFUL = "doubtful"  # most outlines of tumours score more
    NONE = "none"  # nothing was drawn, or what was drawn is below the calibrated limit


def presence(volumes: Mapping[str, float], scores: Mapping[str, float], calibration: Calibration | None) -> Presence:
    """Return whether there is a tumour, from volume (ml) and raw score of the largest region, the first."""
    region = next(iter(volumes))
    limit = NO_TUMOUR if calibration is None else calibration.no_tumour
    if not volumes[region] or scores[region] < limit:
        return Presence.NONE
    doubtful = calibration is not None and scores[region] < calibration.doubted_below
    return Presence.DOUBTFUL if doubtful else Presence.FOUND


def presence_remarks(
    found: Presence, volumes: Mapping[str, float], scores: Mapping[str, float], calibration: Calibration | None
) -> Iterator[Remark]:
    """Yield why no tumour was found with confidence, or why there may be none."""
    region = next(iter(volumes))
    what, score = "tumour" if region in REGIONS else region_phrase(region), scores[region]
    if found is Presence.DOUBTFUL and calibration:
        below, tumours = calibration.doubted
        yield Remark(
            "perhaps_no_tumour",
            Gravity.DOUBT,
            f"There may be no {what}: the network's score of what is drawn is {score:.2f}. In tests, "
            f"{tumours - below} of {tumours} outlines of tumours scored {calibration.doubted_below:.2f} or more.",
        )
    if found is not Presence.NONE:
        return
    nothing = f"No {what} found with confidence:"
    if not volumes[region]:
        text = f"{nothing} nothing was drawn. That does not mean that there is none."
    else:
        text = (
            f"{nothing} what is drawn is doubtful. This does not exclude one. The network's score of it is {score:.2f}"
        )
        text += f", less than {NO_TUMOUR if calibration is None else calibration.no_tumour:.2f}."
        if calibration:
            (missed, tumours), (passed, brains) = calibration.missed, calibration.passed
            others = f", and {passed} of {brains} brains without one" if brains else ""
            reached = f"scored {calibration.no_tumour:.2f} or more{others}"
            text += f" In tests, {tumours - missed} of {tumours} outlines of tumours {reached}."
    yield Remark("no_tumour", Gravity.DOUBT, text)


def verdicts(
    volumes: Mapping[str, float],
    scores: Mapping[str, float],
    used: Collection[str],
    calibration: Calibration | None,
    found: Presence,
    remarks: Sequence[Remark],
) -> dict[str, Verdict]:
    """Return the verdict on each region, given its volume (ml), its raw score and the modalities used.

    No outline of a result that is not to be used is reliable; nor are those that only T1c shows, if it does not show
    the whole brain. If a remark doubts the whole result, or the weights are not calibrated, none is usable.
    """
    if stops := stop_reasons(remarks):
        return dict.fromkeys(volumes, Verdict(UNRELIABLE, stops[0]))
    partial = {name for remark in remarks if remark.code == "partial" for name in remark.about}
    doubted = any(remark.gravity is Gravity.DOUBT for remark in remarks)
    t1c, only = "t1c" in used, [f"only {display_name(*used)}"] if len(used) == 1 else []
    none = {Presence.NONE: "no tumour found with confidence", Presence.DOUBTFUL: "there may be no tumour"}.get(
        found, ""
    )
    given = {}
    for region, volume in volumes.items():
        known = calibration if calibration and region in calibration.regions else None
        expected = known.expected(region, scores[region], t1c) if known else scores[region]
        lacking = ["no T1c"] if region in SHOWN_BY_T1C and not t1c else []
        sure = known is not None and known.chance(region, scores[region], t1c) >= MIN_CHANCE
        held_back = sure and known is not None and not known.regions[region].left_out.words_hold
        unsure = [*lacking, *only] or [TOO_FEW_GOOD if held_back else "the network is unsure"]
        if none:
            reasons = [none]
        elif not volume:
            reasons = ["none found", *lacking]
        else:
            reasons = ["see the warnings"] * doubted + ["these weights are not calibrated"] * (known is None)
        if region in SHOWN_BY_T1C and "t1c" in partial:
            given[region] = Verdict(UNRELIABLE, "the T1c does not show the whole brain")
        elif volume and expected < UNRELIABLE_BELOW_DICE:
            given[region] = Verdict(UNRELIABLE, none or ", ".join(unsure))
        elif known and not reasons and known.usable(region, scores[region], t1c):
            given[region] = Verdict(WORD_USABLE)
        else:
            given[region] = Verdict(DOUBTFUL, ", ".join(reasons or unsure))
    return given


def class_verdicts(given: Mapping[str, Verdict], labels: LabelSet) -> dict[str, Verdict]:
    """Return class -> the worse verdict of the two regions between whose borders it lies, e.g. WT and TC for oedema."""
    found = {}
    for name in labels.values:
        regions = sorted(given, key=lambda region: len(labels.regions[region]))
        if around := next((region for region in regions if name in labels.regions[region]), None):
            within = [region for region in regions if {*labels.regions[region]} < {*labels.regions[around]}]
            found[name] = max((given[region] for region in (around, *within[-1:])), key=lambda each: each.rank)
    return found


def intervals(
    volumes: Mapping[str, float],
    scores: Mapping[str, float],
    t1c: bool,
    calibration: Calibration,
    brain: float,
    labels: LabelSet,
) -> dict[str, tuple[float, float]]:
    """Return the interval (ml) of each region's true volume, as far as it is known: not wider than `WIDEST`.

    No interval exceeds the brain (ml), or that of a region around it, or is below that of a region within it.
    """
    held = [region for region, each in calibration.regions.items() if each.left_out.intervals_hold]
    drawn = [region for region, volume in volumes.items() if volume and region in held]
    made = {region: calibration.interval(region, volumes[region], scores[region], t1c) for region in drawn}
    low, high = ({region: ends[side] for region, ends in made.items()} for side in (0, 1))
    nested = {
        region: (
            max([low[other] for other in made if classes >= {*labels.regions[other]}]),
            min([brain, *(high[other] for other in made if classes <= {*labels.regions[other]})]),
        )
        for region, classes in ((region, {*labels.regions[region]}) for region in made)
    }
    return {region: ends for region, ends in nested.items() if ends[1] <= WIDEST * ends[0]}
