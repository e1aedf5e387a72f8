"""Selection of a study's series: at most one for each sequence, with the reason for each series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from common.modalities import canonical, display_name
from common.study.dicom.headers import quiet, text
from common.study.dicom.sequences import (
    Undecided,
    Verdict,
    agent_named,
    contrast,
    contrast_words,
    image_type,
    recognise,
    reformatted,
)
from common.study.dicom.series import Series

MODALITIES = ("t1", "t1c", "t2", "flair")
ENOUGH = 0.5
"""Minimum confidence of a series that is used."""
SURE = 0.8
"""A series with at least this confidence is preferred to one with less, whatever their resolution."""
COVERAGE = 80.0
"""Minimum extent in mm of a volume of a whole brain; smaller ones are slabs."""

RANKS = (
    "recognised more surely",
    "original and not reformatted",
    "3D",
    "of thinner slices",
    "of a larger matrix",
    "corrected for distortion or intensity",
    "later",
)
"""Criteria by which one of several series is preferred, in this order; the first difference decides."""


@dataclass(frozen=True)
class Selection:
    """The series that are used.

    Attributes:
        modalities: modality -> series, in the order t1, t1c, t2, flair, for the modalities found.
        verdicts: modality -> result of the recognition, considering the other series; confidence 1 if set by hand.
        explanations: a line for each series of the study: what it is used as and why, or why it is left out.
        warnings: what the user should check.
        undecided: set if T1 and T1c may be exchanged, because their headers do not tell which is which.
    """

    modalities: dict[str, Series]
    verdicts: dict[str, Verdict]
    explanations: list[str]
    warnings: list[str]
    undecided: Undecided | None = None


@quiet()
def choose(series: Sequence[Series], by_hand: Mapping[str, Any] | None = None) -> Selection:
    """Choose a series for each sequence.

    Of several series the one is preferred that is recognised for sure, is original and not reformatted, is 3D, has
    thinner slices, has a larger matrix, is corrected for distortion or intensity, and, for T1c, is later. If no T1c is
    found, and two T1 do not mention contrast agent, the second best of them is used as T1c; see `Selection.undecided`.

    Args:
        series: series of one study.
        by_hand: modality -> `Series.key`: the SeriesNumber, or text such as ``3-1`` if several volumes have this
            number. It overrides the recognition; None leaves the modality out.

    Raises:
        ValueError: if two candidates are equally good, all candidates of a sequence are unusable (slices missing,
            ...), nothing is recognised, or a series set by hand does not exist.
    """
    fixed = _set_by_hand(series, by_hand or {})
    verdicts = {one.key: verdict for one, verdict in zip(series, _in_context(series), strict=True)}
    for modality, one in fixed.items():
        if one is not None:
            verdicts[one.key] = Verdict(modality, 1.0, "set by hand")
    notes = {key: _note(verdict) for key, verdict in verdicts.items()}
    chosen: dict[str, Series] = {}
    warnings: list[str] = []
    undecided = None
    if "t1c" not in fixed and fixed.get("t1", "") is not None:
        second, undecided = _perhaps_after_contrast(series, verdicts, fixed.get("t1"))
        if second:
            verdicts[second.key] = replace(verdicts[second.key], modality="t1c")
            notes[second.key] += ", or T1c"
    for modality in MODALITIES:
        candidates = [one for one in series if verdicts[one.key].modality == modality]
        if modality in fixed:
            candidates = [one for one in candidates if one is fixed[modality]]
        if candidates:
            try:
                chosen[modality] = _best(candidates, verdicts, modality, notes)
            except ValueError as error:
                raise ValueError("\n".join([str(error), *_explanations(series, notes)])) from None
            warnings += _doubts(chosen[modality], candidates, verdicts)
    for one in series:
        modality = verdicts[one.key].modality
        if modality in fixed and fixed[modality] is not one:
            notes[one.key] += "; not used, as requested"
    explanations = _explanations(series, notes)
    if not chosen:
        wanted = [name for name in MODALITIES if name not in fixed]
        names, listed = ", ".join(map(display_name, wanted)), "\n".join(explanations)
        raise ValueError(
            f"No series is recognised as one of {names}. Set by SeriesNumber: {_by_hand(wanted[0], '7')}\n{listed}"
        )
    if undecided and undecided.refused:
        undecided = replace(undecided, said="\n".join([undecided.said, *explanations]))
    taken = {name: verdicts[one.key] for name, one in chosen.items()}
    return Selection(chosen, taken, explanations, warnings, undecided)


def _set_by_hand(series: Sequence[Series], by_hand: Mapping[str, Any]) -> dict[str, Series | None]:
    """Return the series that are set by hand, after checking them."""
    fixed: dict[str, Series | None] = {}
    for name, key in by_hand.items():
        modality = canonical(str(name))
        if modality not in MODALITIES:
            raise ValueError(f"--series: unknown modality {name!r}; expected one of {', '.join(MODALITIES)}.")
        if key is None:
            fixed[modality] = None
            continue
        matches = [one for one in series if str(key) in (one.key, str(one.number))]
        if len(matches) != 1:
            keys = ", ".join(one.key for one in matches or series)
            what = "several volumes have this number" if matches else "there is no such series"
            raise ValueError(f"--series: {modality}: {key}: {what}; expected one of {keys}.")
        if matches[0].problem:
            raise ValueError(f"--series: {modality}: {matches[0].name} cannot be used: {matches[0].problem}.")
        if matches[0] in fixed.values():
            raise ValueError(f"--series: {matches[0].name} is set for two modalities.")
        fixed[modality] = matches[0]
    if [fixed.get(modality, "") for modality in MODALITIES] == [None] * len(MODALITIES):
        raise ValueError("--series: every modality is left out; expected at least one to be used.")
    return fixed


def _in_context(series: Sequence[Series]) -> list[Verdict]:
    """Return what each series is recognised as, considering the other series of the study.

    Contrast agent stays in the body, so a T1 without information was acquired after it if an earlier series was. An
    agent named in every series was named for the whole study, and does not tell which T1 was acquired after it.
    """
    agents = [agent_named(one.header) for one in series]
    times = [_acquired(one.header) for one in series]
    after = [time for one, time in zip(series, times, strict=True) if time and contrast(one.header)[0]]
    verdicts = []
    for one, agent, time in zip(series, agents, times, strict=True):
        verdict = recognise(one.header)
        silent = verdict.modality in ("t1", "t1c") and contrast_words(one.header) is None
        extent = min(size * step for size, step in zip(one.shape, one.spacing, strict=True))
        if verdict.modality and one.problem is None and extent < COVERAGE:
            verdict = Verdict(None, 0.0, f"a slab of {extent:.0f} mm, not a whole brain ({verdict.reason})")
        elif silent and agent and len(series) > 1 and all(agents):
            reason = f"{verdict.reason}, as for every series of the study, which is weak evidence"
            verdict = Verdict("t1c", round(0.75 * verdict.confidence, 2), reason)
        elif silent and not agent and any(time > earlier for earlier in after):
            reason = f"{verdict.reason}, but it was acquired after a series with contrast agent"
            verdict = Verdict("t1c", round(0.8 * verdict.confidence, 2), reason)
        if verdict.modality and verdict.confidence < ENOUGH:
            name = display_name(verdict.modality)
            verdict = Verdict(None, 0.0, f"perhaps {name}, confidence only {verdict.confidence:.2f} ({verdict.reason})")
        verdicts.append(verdict)
    return verdicts


def _best(
    candidates: Sequence[Series], verdicts: Mapping[str, Verdict], modality: str, notes: dict[str, str]
) -> Series:
    """Return the series to use for a modality, and append to each candidate's note why it is used or not."""
    name = display_name(modality)
    usable = [one for one in candidates if one.problem is None]
    for one in candidates:
        if one.problem:
            notes[one.key] += f"; cannot be used: {one.problem}"
    if not usable:
        first, *others = candidates
        which = f"first of {1 + len(others)} {name}, none of which can" if others else f"only {name} and cannot"
        raise ValueError(
            f"{first.name} is the {which} be used: {first.problem}. To go on without it: {_by_hand(modality, None)}"
        )
    ranks = {one.key: _rank(one, verdicts[one.key], modality) for one in usable}
    best, *others = sorted(usable, key=lambda one: ranks[one.key], reverse=True)
    equal = [one.key for one in usable if ranks[one.key] == ranks[best.key]]
    if len(equal) > 1:
        raise ValueError(
            f"series {' and '.join(equal)} are all {name} and cannot be told apart. "
            f"Choose by SeriesNumber: {_by_hand(modality, equal[-1])}"
        )
    notes[best.key] += "; taken"
    for one in others:
        decisive = next(
            k for k, pair in enumerate(zip(ranks[best.key], ranks[one.key], strict=True)) if len({*pair}) > 1
        )
        notes[one.key] += f"; not taken, since {best.name} is {RANKS[decisive]}"
    return best


def _rank(series: Series, verdict: Verdict, modality: str) -> tuple:
    """Return the criteria by which series are compared, in the order of `RANKS`."""
    header = series.header
    return (
        verdict.confidence >= SURE,
        not reformatted(header),
        text(header, "MRAcquisitionType") == "3D",
        -round(series.spacing[2], 1),
        series.shape[0] * series.shape[1],
        len({"NORM", "DIS2D", "DIS3D"} & set(image_type(header))),
        _acquired(header) if modality == "t1c" else "",
    )


def _doubts(best: Series, candidates: Sequence[Series], verdicts: Mapping[str, Verdict]) -> list[str]:
    verdict = verdicts[best.key]
    name = display_name(verdict.modality)
    doubts = [f"{one.name}, by its header {name}, is not used: {one.problem}." for one in candidates if one.problem]
    if reformatted(best.header):
        doubts.append(f"{best.name} is reformatted; there is no original.")
    return doubts


def _perhaps_after_contrast(
    series: Sequence[Series], verdicts: Mapping[str, Verdict], by_hand: Series | None
) -> tuple[Series | None, Undecided | None]:
    """Return the second best of several T1 that do not mention contrast agent, if there is no T1c, and the doubt.

    The best one is that set ``by_hand``, if any. The result is (None, None) if the second and third are equally good.
    """
    usable = [one for one in series if one.problem is None]
    silent = [
        one
        for one in usable
        if verdicts[one.key].modality == "t1"
        and not (reformatted(one.header) or agent_named(one.header) or contrast_words(one.header))
    ]
    if len(silent) < 2 or any(verdicts[one.key].modality == "t1c" for one in usable):
        return None, None
    ranks = {one.key: (one is by_hand, *_rank(one, verdicts[one.key], "t1")) for one in silent}
    first, second, *others = sorted(silent, key=lambda one: ranks[one.key], reverse=True)
    if others and ranks[others[0].key] == ranks[second.key]:
        return None, None
    keys = " and ".join(one.key for one in silent)
    if ranks[first.key] == ranks[second.key]:
        said = (
            f"series {keys} are all T1 and cannot be told apart. Choose by SeriesNumber: {_by_hand('t1', second.key)}"
        )
        return second, Undecided(True, said)
    return second, Undecided(
        False,
        f"series {keys} are all T1 by their headers, none of which says anything of contrast agent; one of them may be "
        f"after it. If so: {_by_hand('t1c', second.key)}",
    )


def _explanations(series: Sequence[Series], notes: Mapping[str, str]) -> list[str]:
    return [f"{one.name}: {notes[one.key]}." for one in series]


def _note(verdict: Verdict) -> str:
    if verdict.modality is None:
        return f"left out: {verdict.reason}"
    return f"{display_name(verdict.modality)}, confidence {verdict.confidence:.2f} ({verdict.reason})"


def _by_hand(modality: str, key: str | None) -> str:
    """Return the option to type; a key with a part has to be quoted, a number does not."""
    return f"--series \"{{'{modality}': {repr(key) if key and '-' in key else key}}}\""


def _acquired(header: Dataset) -> str:
    """Return the time of acquisition as text that sorts by time; empty if unknown."""
    date, time = (text(header, name) for name in ("AcquisitionDate", "AcquisitionTime"))
    return date + time if date and time else text(header, "AcquisitionDateTime")
