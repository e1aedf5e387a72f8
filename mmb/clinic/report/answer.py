"""The answer to a study in a sentence or two, for a radiologist: what console, page and table begin with."""

from collections.abc import Mapping, Sequence

from mmb.clinic.report.formats import REGIONS, millilitres, region_phrase
from mmb.clinic.report.lesions import UNKNOWN, Lesion
from mmb.clinic.report.verdicts import WORD_USABLE, Presence, Verdict
from mmb.predictors.calibration import Calibration

SMALL = 0.1
"""Share of the largest lesion's volume below which another lesion is not where the tumour is, but a further piece."""


def answer(
    volumes: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    verdicts: Mapping[str, Verdict],
    lesions: Sequence[Lesion],
    found: Presence,
    stops: Sequence[str],
    calibration: Calibration | None,
) -> str:
    """Return the answer, e.g. ``Tumour on the right: whole tumour 55 ml (46 to 67)``.

    Small further pieces (`SMALL`) are told last, after where the tumour is and its volumes. ``volumes`` and
    ``intervals`` are those of the regions in ml, the largest region first; ``stops`` are reasons not to use the result
    at all.
    """
    outermost = next(iter(volumes))
    what = "tumour" if outermost in REGIONS else region_phrase(outermost)
    if stops:
        return f"Do not use: {'; '.join(stops)}."
    if found is Presence.NONE:
        drawn = f" with confidence; what is drawn ({millilitres(volumes[outermost])} ml) is doubtful"
        ill, results = calibration.found if calibration else (0, 0)
        tested = f": in tests, none was found in {results - ill} of {results} results of patients with one"
        said = f"No {what} found{drawn if volumes[outermost] else ''}. This does not exclude one"
        return f"{said}{tested if results else ''}."
    if found is Presence.DOUBTFUL:
        below, tumours = calibration.doubted if calibration else (0, 0)
        return (
            f"There may be no {what}: what is drawn{_where(lesions)} ({millilitres(volumes[outermost])} ml) is "
            f"doubtful. In tests, {tumours - below} of {tumours} outlines of tumours scored more.{_further(lesions)}"
        )
    parts = [_region(region, volume, intervals.get(region), verdicts.get(region)) for region, volume in volumes.items()]
    return f"{what.capitalize()}{_where(lesions)}: {', '.join(parts)}.{_further(lesions)}"


def _region(region: str, volume: float, ends: tuple[float, float] | None, verdict: Verdict | None) -> str:
    """Return a region's volume with what is to be said of it: ``whole tumour 55 ml (46 to 67, doubtful)``."""
    if not volume:
        return f"no {region_phrase(region)} seen"
    doubts = [" to ".join(map(millilitres, ends))] if ends else []
    doubts += [verdict.word] if verdict and verdict.word != WORD_USABLE else []
    remarks = f" ({', '.join(doubts)})" if doubts else ""
    return f"{region_phrase(region)} {millilitres(volume)} ml{remarks}"


def _where(lesions: Sequence[Lesion]) -> str:
    """Return the sides of the lesions without the small ones; lobes are not told, as nothing here knows them surely."""
    main, _ = _by_size(lesions)
    places = f" in {len(main)} places" if len(main) > 1 else ""
    return f"{places}{_side(main)}" if main else ""


def _further(lesions: Sequence[Lesion]) -> str:
    """Return a sentence on the small lesions, e.g. `` A small further piece (0.4 ml) is on the left.``, or nothing."""
    _, small = _by_size(lesions)
    if not small:
        return ""
    pieces = "A small further piece" if len(small) == 1 else f"{len(small)} small further pieces"
    ml, verb = millilitres(sum(each.volume for each in small)), "is" if len(small) == 1 else "are"
    if small[0].side == UNKNOWN:
        return f" There {verb} {pieces[:1].lower()}{pieces[1:]} ({ml} ml)."
    return f" {pieces} ({ml} ml) {verb}{_side(small)}."


def _by_size(lesions: Sequence[Lesion]) -> tuple[list[Lesion], list[Lesion]]:
    """Return the lesions that say where the tumour is, and the small ones."""
    least = SMALL * max((each.volume for each in lesions), default=0.0)
    return [each for each in lesions if each.volume >= least], [each for each in lesions if each.volume < least]


def _side(lesions: Sequence[Lesion]) -> str:
    sides = {each.side for each in lesions}
    if sides == {UNKNOWN}:
        return " (side not known)"
    return f" on the {sides.pop()}" if len(sides) == 1 and sides <= {"left", "right"} else " on both sides"
