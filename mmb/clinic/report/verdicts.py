"""The words for how far each region's outline can be used, from the network's raw scores and their calibration."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from common.modalities import SHOWN_BY_T1C, LabelSet, display_name
from mmb.clinic.report.formats import REGIONS, region_phrase
from mmb.predictors.calibration import NO_TUMOUR, WIDEST, Calibration

WORD_USABLE, DOUBTFUL, UNRELIABLE = "usable for review", "doubtful", "not reliable"
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


CONTRADICTED = Verdict(UNRELIABLE, "images and names contradict each other, see the warnings")
UNTRUSTED = Verdict(UNRELIABLE, "not with these weights, see the warnings")


def absent(volumes: Mapping[str, float], scores: Mapping[str, float], calibration: Calibration | None) -> str:
    """Return that no tumour was found with confidence, and why, if that is so; otherwise an empty text.

    It is so if nothing was drawn as the largest region, or if its raw score is below the calibrated limit.
    """
    region = next(iter(volumes))
    nothing = f"No {'tumour' if region in REGIONS else region_phrase(region)} found with confidence: "
    if not volumes[region]:
        return f"{nothing}nothing was drawn. That does not mean that there is none."
    limit = NO_TUMOUR if calibration is None else calibration.no_tumour
    if scores[region] >= limit:
        return ""
    said = f"{nothing}what is drawn is doubtful. This does not exclude one."
    doubtful = f"{said} The network's score of it is {scores[region]:.2f}"
    if calibration is None:
        return f"{doubtful}, less than {limit:.2f}."
    (missed, tumours), (passed, brains) = calibration.missed, calibration.passed
    others = f", and {passed} of {brains} brains without one" if brains else ""
    return (
        f"{doubtful}, less than {limit:.2f}. In tests, {tumours - missed} of {tumours} outlines of tumours scored "
        f"{limit:.2f} or more{others}."
    )


def perhaps_none(volumes: Mapping[str, float], scores: Mapping[str, float], calibration: Calibration | None) -> str:
    """Return that there may be no tumour, and why, if most outlines of tumours score more than the largest region.

    The text is empty where `absent` says that none was found with confidence.
    """
    region = next(iter(volumes))
    if calibration is None or absent(volumes, scores, calibration) or scores[region] >= calibration.doubted_below:
        return ""
    below, tumours = calibration.doubted
    return (
        f"There may be no {'tumour' if region in REGIONS else region_phrase(region)}: the network's score of what is "
        f"drawn is {scores[region]:.2f}. In tests, {tumours - below} of {tumours} outlines of tumours scored "
        f"{calibration.doubted_below:.2f} or more."
    )


def verdicts(
    volumes: Mapping[str, float],
    scores: Mapping[str, float],
    used: Collection[str],
    calibration: Calibration | None,
    untrusted: bool,
    doubted: bool,
    partial: Collection[str] = (),
    contradicted: bool = False,
) -> dict[str, Verdict]:
    """Return the verdict on each region, given its volume (ml), its raw score and the modalities used.

    Outlines of ``untrusted`` weights, or of images that are ``contradicted`` by what they show, are not reliable; nor
    are those that only T1c shows, if it is among the ``partial`` images, which do not show the whole brain. Where the
    images or the whole result are ``doubted``, or the weights are not calibrated, none is usable.
    """
    if untrusted:
        return dict.fromkeys(volumes, UNTRUSTED)
    if contradicted:
        return dict.fromkeys(volumes, CONTRADICTED)
    t1c, only = "t1c" in used, [f"only {display_name(*used)}"] if len(used) == 1 else []
    none = "no tumour found with confidence" if absent(volumes, scores, calibration) else ""
    none = "there may be no tumour" if perhaps_none(volumes, scores, calibration) else none
    given = {}
    for region, volume in volumes.items():
        known = calibration if calibration and region in calibration.regions else None
        expected = known.expected(region, scores[region], t1c) if known else scores[region]
        lacking = ["no T1c"] if region in SHOWN_BY_T1C and not t1c else []
        unsure = [*lacking, *only] or ["the network is unsure"]
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


def intervals(
    volumes: Mapping[str, float],
    scores: Mapping[str, float],
    t1c: bool,
    calibration: Calibration | None,
    brain: float,
    labels: LabelSet,
) -> dict[str, tuple[float, float]]:
    """Return the interval (ml) of each region's true volume, as far as it is known: not wider than `WIDEST`.

    No interval exceeds the brain (ml), or that of a region around it, or is below that of a region within it. There is
    none where no tumour was found with confidence, or where there may be none.
    """
    if calibration is None or absent(volumes, scores, calibration) or perhaps_none(volumes, scores, calibration):
        return {}
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
