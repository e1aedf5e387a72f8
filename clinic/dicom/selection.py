"""Selection of a study's series: at most one for each sequence, with the reason for each series.

Image files are chosen by the same rules (`best_of`, `second_t1`, `if_enough`) in `clinic.study.image_files`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pydicom.dataset import Dataset

from clinic.dicom.headers import quiet, text
from clinic.dicom.sequences import Verdict, agent_named, contrast, contrast_words, image_type, recognise, reformatted
from clinic.dicom.series import Series
from common.modalities import GLIOMA, canonical, display_name

ENOUGH = 0.5  # minimum confidence of a candidate that is used
SURE = 0.8  # a candidate with at least this confidence is preferred to one with less, whatever else they are
COVERAGE = 80.0  # minimum extent in mm of a volume of a whole brain; smaller ones are slabs
RANKS = (
    "set by hand",
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
class SecondT1:
    """A T1 that is used as T1c for now: two images are T1 by their headers, which do not mention contrast agent.

    Their content decides which one is the T1c; see `clinic.study.appearance.reassign_by_image`.

    Attributes:
        tied: whether the headers do not even tell which one would be the T1; then the study is refused if the content
            does not decide. Otherwise only the better one is kept, as T1.
        message: message of the refusal, or the warning.
    """

    tied: bool
    message: str


class Candidate(Protocol):
    """A series or an image file, and the modality that it was recognised as."""

    @property
    def verdict(self) -> Verdict:
        """The modality, and how sure it is."""

    @property
    def rank(self) -> tuple[Any, ...]:
        """Criteria by which one of several candidates for a modality is preferred; the first difference decides."""


C = TypeVar("C", bound=Candidate)


class TieError(Exception):
    """Candidates for a modality that cannot be told apart."""

    def __init__(self, equal: Sequence[Any]) -> None:
        self.equal = equal


def best_of(candidates: Iterable[C], modality: str) -> C | None:
    """Return the best candidate for a modality, None if there is none; raise `TieError` if several are equally good."""
    ranked = _best_first(one for one in candidates if one.verdict.modality == modality)
    equal = [one for one in ranked if one.rank == ranked[0].rank]
    if len(equal) > 1:
        raise TieError(equal)
    return equal[0] if equal else None


def second_t1(candidates: Iterable[C]) -> tuple[C | None, bool]:
    """Return the second best of several T1, any of which may be after contrast agent, and if it ties with the best.

    It is to be used as T1c if there is no other. There is none (None) if the second and third are equally good.
    """
    first, second, third, *_ = [*_best_first(candidates), None, None, None]
    if second is None or (third is not None and third.rank == second.rank):
        return None, False
    return second, first.rank == second.rank


def as_t1c(verdict: Verdict) -> Verdict:
    """Return the verdict on a T1 that is used as T1c."""
    return replace(verdict, modality="t1c")


def if_enough(verdict: Verdict) -> Verdict:
    """Return a verdict, or one of no modality if its confidence is below `ENOUGH`."""
    if verdict.modality is None or verdict.confidence >= ENOUGH:
        return verdict
    perhaps = f"perhaps {display_name(verdict.modality)}, confidence only {verdict.confidence:.2f}"
    return Verdict(None, 0.0, f"{perhaps} ({verdict.reason})")


def _best_first(candidates: Iterable[C]) -> list[C]:
    return sorted(candidates, key=lambda one: one.rank, reverse=True)


@dataclass(frozen=True)
class Selection:
    """The series that are used.

    Attributes:
        modalities: modality -> series, in the order t1, t1c, t2, flair, for the modalities found.
        verdicts: modality -> result of the recognition, considering the other series; confidence 1 if set by hand.
        explanations: a line for each series of the study: what it is used as and why, or why it is left out.
        warnings: what the user should check.
        second_t1: set if T1 and T1c may be exchanged, because their headers do not tell which is which.
    """

    modalities: dict[str, Series]
    verdicts: dict[str, Verdict]
    explanations: list[str]
    warnings: list[str]
    second_t1: SecondT1 | None = None


@quiet()
def choose(series: Sequence[Series], by_hand: Mapping[str, Any] | None = None) -> Selection:
    """Choose a series for each sequence.

    Of several series the one is preferred that is recognised for sure, is original and not reformatted, is 3D, has
    thinner slices, has a larger matrix, is corrected for distortion or intensity, and, for T1c, is later. If no T1c is
    found, and two T1 do not mention contrast agent, the second best of them is used as T1c; see `Selection.second_t1`.
    Raises ValueError if two candidates are equally good, all candidates for a modality are unusable (slices missing,
    ...), nothing is recognised, or a series set by hand does not exist. ``by_hand`` overrides the recognition: modality
    -> `Series.key`, the SeriesNumber or text such as ``3-1`` if several volumes have this number, or None, which leaves
    the modality out.
    """
    fixed = _set_by_hand(series, by_hand or {})
    found = [_Candidate(one, verdict) for one, verdict in zip(series, _in_context(series), strict=True)]
    for one in found:
        for modality in (name for name, set_by_hand in fixed.items() if set_by_hand is one.series):
            one.verdict, one.by_hand = Verdict(modality, 1.0, "set by hand"), True
    uncertain = _take_second_t1(found) if "t1c" not in fixed and fixed.get("t1", "") is not None else None
    wanted = [one for one in found if fixed.get(one.verdict.modality, one.series) is one.series]
    usable = [one for one in wanted if one.series.problem is None]
    chosen, refusal = {}, None
    try:
        for modality in GLIOMA:
            _require_usable(wanted, modality)
            if best := best_of(usable, modality):
                chosen[modality] = best
    except TieError as tie:
        keys = [one.series.key for one in tie.equal]
        refusal = (
            f"series {' and '.join(keys)} are all {display_name(modality)} and cannot be told apart. Choose by "
            f"SeriesNumber: {_by_hand(modality, keys[-1])}"
        )
    except ValueError as error:
        refusal = str(error)
    explanations = _explanations(found, wanted, chosen)
    if refusal:
        raise ValueError("\n".join([refusal, *explanations]))
    if not chosen:
        left = [name for name in GLIOMA if name not in fixed]
        names, listed = ", ".join(map(display_name, left)), "\n".join(explanations)
        raise ValueError(
            f"No series is recognised as one of {names}. Set by SeriesNumber: {_by_hand(left[0], '7')}\n{listed}"
        )
    if uncertain and uncertain.tied:
        uncertain = replace(uncertain, message="\n".join([uncertain.message, *explanations]))
    return Selection(
        {name: one.series for name, one in chosen.items()},
        {name: one.verdict for name, one in chosen.items()},
        explanations,
        [*_warnings(wanted, chosen)],
        uncertain,
    )


@dataclass(eq=False)
class _Candidate:
    """A series as a `Candidate`."""

    series: Series
    verdict: Verdict
    by_hand: bool = False
    is_second_t1: bool = False

    @property
    def rank(self) -> tuple[Any, ...]:
        """The criteria in the order of `RANKS`."""
        header = self.series.header
        return (
            self.by_hand,
            self.verdict.confidence >= SURE,
            not reformatted(header),
            text(header, "MRAcquisitionType") == "3D",
            -round(self.series.spacing[2], 1),
            self.series.shape[0] * self.series.shape[1],
            len({"NORM", "DIS2D", "DIS3D"} & set(image_type(header))),
            _acquired(header) if self.verdict.modality == "t1c" else "",
        )

    @property
    def is_silent_t1(self) -> bool:
        """Whether it is a usable T1 whose header does not say anything of contrast agent."""
        header = self.series.header
        return (
            self.series.problem is None
            and self.verdict.modality == "t1"
            and not (reformatted(header) or agent_named(header) or contrast_words(header))
        )


def _set_by_hand(series: Sequence[Series], by_hand: Mapping[str, Any]) -> dict[str, Series | None]:
    """Return the series that are set by hand, after checking them."""
    fixed: dict[str, Series | None] = {}
    for name, key in by_hand.items():
        modality = canonical(str(name))
        if modality not in GLIOMA:
            raise ValueError(f"--series: unknown modality {name!r}; expected one of {', '.join(GLIOMA)}.")
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
    if [fixed.get(modality, "") for modality in GLIOMA] == [None] * len(GLIOMA):
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
        verdicts.append(if_enough(verdict))
    return verdicts


def _take_second_t1(found: Sequence[_Candidate]) -> SecondT1 | None:
    """Make the second best of several T1 that do not mention contrast agent the T1c, if there is none."""
    silent = [one for one in found if one.is_silent_t1]
    if any(one.verdict.modality == "t1c" and one.series.problem is None for one in found):
        return None
    second, tied = second_t1(silent)
    if second is None:
        return None
    second.verdict, second.is_second_t1 = as_t1c(second.verdict), True
    keys = " and ".join(one.series.key for one in silent)
    if tied:
        choice = _by_hand("t1", second.series.key)
        return SecondT1(True, f"series {keys} are all T1 and cannot be told apart. Choose by SeriesNumber: {choice}")
    return SecondT1(
        False,
        f"series {keys} are all T1 by their headers, none of which says anything of contrast agent; one of them may be "
        f"after it. If so: {_by_hand('t1c', second.series.key)}",
    )


def _require_usable(wanted: Sequence[_Candidate], modality: str) -> None:
    """Refuse a study in which all candidates for a modality are unusable."""
    series = [one.series for one in wanted if one.verdict.modality == modality]
    if series and all(one.problem for one in series):
        (first, *others), name = series, display_name(modality)
        which = f"first of {len(series)} {name}, none of which can" if others else f"only {name} and cannot"
        raise ValueError(
            f"{first.name} is the {which} be used: {first.problem}. To go on without it: {_by_hand(modality, None)}"
        )


def _warnings(wanted: Sequence[_Candidate], chosen: Mapping[str, _Candidate]) -> Iterable[str]:
    for modality, best in chosen.items():
        for one in (one.series for one in wanted if one.verdict.modality == modality and one.series.problem):
            yield f"{one.name}, by its header {display_name(modality)}, is not used: {one.problem}."
        if reformatted(best.series.header):
            yield f"{best.series.name} is reformatted; there is no original."


def _explanations(
    found: Sequence[_Candidate], wanted: Sequence[_Candidate], chosen: Mapping[str, _Candidate]
) -> list[str]:
    """Return a line for each series: what it was recognised as, and whether and why it is taken."""
    lines = []
    for one in found:
        verdict, best = one.verdict, chosen.get(one.verdict.modality)
        if verdict.modality is None:
            lines.append(f"{one.series.name}: left out: {verdict.reason}.")
            continue
        modality = "t1" if one.is_second_t1 else verdict.modality
        line = f"{one.series.name}: {display_name(modality)}, confidence {verdict.confidence:.2f} ({verdict.reason})"
        line += ", or T1c" * one.is_second_t1
        if one not in wanted:
            line += "; not used, as requested"
        elif one.series.problem:
            line += f"; cannot be used: {one.series.problem}"
        elif one is best:
            line += "; taken"
        elif best:
            decisive = next(k for k, (more, less) in enumerate(zip(best.rank, one.rank, strict=True)) if more != less)
            line += f"; not taken, since {best.series.name} is {RANKS[decisive]}"
        lines.append(f"{line}.")
    return lines


def _by_hand(modality: str, key: str | None) -> str:
    """Return the option to type; a key with a part has to be quoted, a number does not."""
    return f"--series \"{{'{modality}': {repr(key) if key and '-' in key else key}}}\""


def _acquired(header: Dataset) -> str:
    """Return the time of acquisition as text that sorts by time; empty if unknown."""
    date, time = (text(header, name) for name in ("AcquisitionDate", "AcquisitionTime"))
    return date + time if date and time else text(header, "AcquisitionDateTime")
