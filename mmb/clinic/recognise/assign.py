"""Which image is which sequence: a pure function of what headers and names say and of what the images show.

Headers and names decide where they can. They leave a question open if there are several T1, one of which does not say
whether it was acquired after contrast agent, or if candidates are equally good; then the images of the candidates
`in_question` decide, and if they leave it open too, the study is refused. An image that was chosen by an ambiguous
header is used as what it clearly shows, or left out if it shows none of the sequences. An image whose header is not
ambiguous stays what that says, and `contradictions` names it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.io.geometry import lengths
from common.modalities import GLIOMA, display_name
from mmb.clinic.intake.field_of_view import WHOLE, centre_within, shares
from mmb.clinic.recognise import image as sequence_check
from mmb.clinic.recognise.evidence import Candidate, Grade, LogProbs
from mmb.clinic.recognise.image import SURE
from mmb.errors import CHOOSE, StudyError

TOLD_APART = 1.0
"""Minimum log-odds of what an image shows against anything else for it to decide where headers leave the choice; to
decide against an ambiguous header they are `mmb.clinic.recognise.image.SURE`."""
UNLIKELY = 0.05  # probability below which it is not said that an image may show something
MIN_EXTENT_MM = 80.0  # minimum extent of a volume of a whole brain; smaller ones are slabs
MIN_OVERLAPPING = 0.5  # minimum share of the other images that one has to lie over, or it lies elsewhere
DELAYED = 10  # minutes between two T1c from which the later one may show a delayed uptake, or a second dose
ALIKE = 1.5
"""Maximum ratio of the voxel sizes of images of one resolution, and of the edges of a voxel that is nearly a cube."""

Option = Callable[..., str]
"""Function ``(modalities, value)`` that says how the user sets them by hand, by default to a candidate."""


class Use(Enum):
    """What becomes of a candidate."""

    TAKEN = "used"
    LEFT_OUT = "left out"  # it is none of the sequences
    UNWANTED = "not used, as requested"
    UNUSABLE = "cannot be used"
    RIVAL = "not used"  # another one is better
    UNDECIDED = ""  # the study is refused


@dataclass(frozen=True, eq=False)
class Record:
    """What a candidate is taken for (None: none of the sequences) and why, and what becomes of it.

    Attributes:
        log_probs: what its image shows; None if it was not judged, or cannot be.
        by_image: whether its image decided what it is.
        elsewhere: whether it does not lie where most others of its study do.
        partial: whether it shows less than `mmb.clinic.intake.field_of_view.WHOLE` of what another one shows.
        instead: the candidate that is taken instead, and why; None if there is none.
    """

    candidate: Candidate
    modality: str | None
    grade: Grade
    reason: str
    log_probs: LogProbs | None = None
    by_image: bool = False
    elsewhere: bool = False
    partial: bool = False
    use: Use = Use.UNDECIDED
    instead: tuple[Candidate, str] | None = None

    @property
    def stated_grade(self) -> Grade | None:
        """The grade; None if it was set by hand or by the site's table, named by its file, or decided by the image."""
        return None if self.candidate.fixed or self.candidate.says.by_table or self.by_image else self.grade

    @property
    def is_usable(self) -> bool:
        """Whether it may be used as its modality."""
        return self.modality is not None and self.candidate.problem is None

    @property
    def is_open(self) -> bool:
        """Whether only its image can tell if it was acquired after contrast agent."""
        return self.candidate.says.contrast_unknown and not self.candidate.fixed

    def clear_class(self, among: Collection[str] = ()) -> str | None:
        """Return the class, ``among`` some or all, that its image clearly shows (`TOLD_APART`); None if none."""
        if self.log_probs is None:
            return None
        first, second = sorted(among or self.log_probs, key=self.log_probs.__getitem__, reverse=True)[:2]
        return first if self.log_probs[first] - self.log_probs[second] >= TOLD_APART else None

    def taken_for(self, modality: str | None, reason: str = "by what it shows") -> Self:
        """Return it as the sequence that its image shows."""
        grade = max(self.grade, Grade.LIKELY) if modality else Grade.NONE
        reason = f"{reason}; its header: {self.reason}"
        return replace(self, modality=modality, grade=grade, reason=reason, by_image=True)

    def line(self) -> str:
        """Return what it was recognised as, what it shows, and whether and why it is taken."""
        broken = f"{self.candidate.problem}; by its header: " if self.candidate.problem else ""
        said = f"{self.candidate.name}: left out: {broken}{self.reason}"
        if self.modality:
            grade = "" if self.stated_grade is None else f", {self.stated_grade.word}"
            said = f"{self.candidate.name}: {display_name(self.modality)}{grade} ({self.reason})"
        if self.log_probs:
            names = [display_name(name) if name in GLIOMA else "none of the four" for name in self.log_probs]
            odds = np.exp([*self.log_probs.values()])
            seen = sorted(zip(odds / odds.sum(), names, strict=True), reverse=True)
            said += f"; its image shows {' or '.join(f'{kind} ({p:.0%})' for p, kind in seen if p >= UNLIKELY)}"
        ends = {Use.TAKEN: "", Use.UNWANTED: "", Use.UNUSABLE: f": {self.candidate.problem}"}
        if self.instead and self.use is Use.RIVAL:
            ends[self.use] = f", since {self.instead[0].name} is {self.instead[1]}"
        return f"{said}; {self.use.value}{ends[self.use]}." if self.use in ends else f"{said}."


class Unused(NamedTuple):
    """A series or file that is no candidate: left out, or not requested.

    ``name`` is for the user, ``source`` for others, and ``modality`` what its description or name says, as in a
    `Candidate`.
    """

    name: str
    source: str
    reason: str
    modality: str | None = None
    use: Use = Use.LEFT_OUT

    def line(self) -> str:
        """Return why it is not used."""
        if self.use is Use.UNWANTED and self.modality:
            return f"{self.name}: {display_name(self.modality)}, {self.reason}; not requested."
        return f"{self.name}: left out: {self.reason}."


@dataclass(frozen=True)
class Assignment:
    """What is used as which modality, in the order of the modalities; and the records of all candidates, in theirs.

    ``notes`` name other originals that could have been used for a modality, by their `Candidate.source`.
    """

    chosen: dict[str, Record]
    records: Sequence[Record]
    warnings: Sequence[str]
    notes: Sequence[str]


def _fits(record: Record, others: Mapping[str, Record]) -> tuple[bool, int]:
    """Return whether a T1c is like the T1 in plane and resolution, and like how many of the others.

    Images are alike if they have similar voxels and, unless these are nearly cubes, slices in one plane.
    """
    alike: dict[str, bool] = {}
    for name, other in others.items() if record.modality == "t1c" else ():
        sizes, theirs = (np.sort(voxel_sizes(each.candidate.grid[1])) for each in (record, other))
        similar = (np.maximum(sizes / theirs, theirs / sizes) <= ALIKE).all()
        alike[name] = bool(similar and (sizes[2] <= ALIKE * sizes[0] or _plane(record) == _plane(other)))
    return alike.get("t1", False), sum(alike.values())


RANKS: Sequence[tuple[str, Callable[[Record, Mapping[str, Record]], Any]]] = (
    ("set by hand or named so", lambda it, _: it.candidate.fixed),
    ("named by the site's table", lambda it, _: it.candidate.says.by_table),
    ("where the other images lie", lambda it, _: not it.elsewhere),
    ("of the whole head", lambda it, _: not it.partial),
    ("not of another part of the body by its header", lambda it, _: not it.candidate.other_body),
    ("the mean of several echoes", lambda it, _: it.candidate.mean),
    ("original and not reformatted", lambda it, _: (not it.candidate.reformatted, not it.candidate.derived)),
    ("recognised more surely", lambda it, _: it.grade >= Grade.LIKELY),
    ("in the plane and resolution of the others", _fits),
    ("3D", lambda it, _: it.candidate.in_3d),
    ("described in known words only", lambda it, _: not it.candidate.odd),
    ("of thinner slices", lambda it, _: -round(float(voxel_sizes(it.candidate.grid[1])[2]), 1)),
    ("of a larger matrix", lambda it, _: it.candidate.grid[0][0] * it.candidate.grid[0][1]),
    ("corrected for distortion, intensity or noise", lambda it, _: it.candidate.corrections),
    ("later", lambda it, _: it.candidate.acquired if it.modality == "t1c" else ""),
    ("recognised with more confidence", lambda it, _: (it.grade, it.candidate.says.rests_on)),
)
"""Criteria by which one of several candidates is preferred, in this order: the reason that is given, and a function of
its record and of those chosen for other modalities. The first difference decides."""


def in_question(candidates: Sequence[Candidate], modalities: Sequence[str]) -> list[Candidate]:
    """Return the candidates whose images have to decide, with those they are compared with; none if headers decide."""
    records = [*map(_by_header, candidates)]
    unclear, equal = _t1_in_question(records, modalities), list[Record]()
    others: dict[str, Record] = {}
    wanted = _located(_wanted(records, modalities))
    for modality in _order(modalities):
        best = _best(wanted, modality, others)
        equal += best
        others |= {modality: best[0]} if best else {}
    asked = [*unclear, *equal] if unclear or len(equal) > len(others) else []
    return [*dict.fromkeys(record.candidate for record in asked)]


def assign_series(
    candidates: Sequence[Candidate],
    modalities: Sequence[str],
    option: Option,
    log_probs: Mapping[str, LogProbs] | None = None,
    not_judged: str = "",
    required: Collection[str] = (),
) -> Assignment:
    """Choose a candidate for each modality: by headers, and by images for those in ``log_probs``.

    If there are several, the criteria in `RANKS` decide, in their order. Raises StudyError if neither headers nor
    images decide, all candidates for a modality are unusable (slices missing, ...), or nothing is recognised. The
    message lists the candidates with what their images show.

    Args:
        modalities: those that may be used, in their order.
        log_probs: name of a candidate -> what its image shows. None: headers alone decide.
        not_judged: reason why the images could not be judged, or empty.
        required: names of candidates that must not be left out because of what they show.
    """
    records = {each: replace(_by_header(each), log_probs=(log_probs or {}).get(each.name)) for each in candidates}
    wanted, refusal = [*records.values()], None
    chosen: dict[str, Record] = {}
    try:
        if log_probs is not None:
            records |= _by_candidate(_settled_t1([*records.values()], modalities, option, not_judged))
        wanted = _located(_wanted([*records.values()], modalities))
        for modality in _order(modalities):
            best, others = _only_best(wanted, modality, chosen, option)
            wanted = [*(_by_candidate(wanted) | _by_candidate(others)).values()]
            chosen |= {modality: best} if best else {}
        if not chosen:
            names = [name for name in modalities if name in GLIOMA]
            known = ", ".join(map(display_name, names))
            text, command = f"Nothing is recognised as one of {known}.", f"Set one: {option(names[:1])}"
            raise StudyError(text, command=command, elsewhere=CHOOSE)
    except ValueError as error:  # an image that cannot be read, too
        refusal = error if isinstance(error, StudyError) else StudyError(str(error))
    kept = _by_candidate(wanted)
    records = {each: _with_use(kept.get(each, record), each in kept, chosen) for each, record in records.items()}
    if refusal:
        raise refusal.followed_by([record.line() for record in records.values()])
    warnings, notes = [*_warnings(wanted, chosen)], [*_notes(wanted, chosen)]
    if why := _delayed(chosen, wanted):
        chosen["t1c"] = replace(chosen["t1c"], grade=min(chosen["t1c"].grade, Grade.OPEN))
        warnings.append(f"{chosen['t1c'].candidate.source} {why}.")
    chosen, excluded, remarks = _by_content(chosen, modalities, required)
    chosen = {name: replace(record, use=Use.TAKEN) for name, record in chosen.items()}
    records |= _by_candidate([*chosen.values(), *(replace(record, use=Use.LEFT_OUT) for record in excluded)])
    return Assignment(chosen, [*records.values()], [*remarks, *warnings], notes)


def seemingly(chosen: Mapping[str, Record]) -> list[dict[str, str]]:
    """Return what images seem to show instead of what they are used as, surest first: modality -> class."""
    return [doubt.seems for doubt in sequence_check.contradictions(_judged(chosen))]


def _judged(chosen: Mapping[str, Record]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([*each.log_probs.values()]) for name, each in chosen.items() if each.log_probs}


def contradictions(chosen: Mapping[str, Record]) -> Iterator[str]:
    """Yield a warning for images that do not show what they are used as."""
    for doubt in sequence_check.doubted_sequences(_judged(chosen)):
        named = " and ".join(f"{display_name(name)} ({chosen[name].candidate.source})" for name in doubt.modalities)
        yield (
            f"{named}: {doubt.what}. Do not use the result, volumes included, before you know which image is which "
            "sequence."
        )


def _by_header(candidate: Candidate) -> Record:
    """Return a candidate as what its header says."""
    return Record(candidate, candidate.says.modality, candidate.says.grade, candidate.says.reason)


def _by_candidate(records: Iterable[Record]) -> dict[Candidate, Record]:
    return {record.candidate: record for record in records}


def _located(records: Sequence[Record]) -> list[Record]:
    """Return records that say which candidates show only a part of what others show, and which lie elsewhere: not over
    most of the others in their frame of reference.

    Nothing is said where no sequence has two candidates, since grids of files take time to read.
    """
    usable = [each for each in records if each.is_usable]
    if len({each.modality for each in usable}) == len(usable):
        return [*records]

    elsewhere = set()
    for each in usable:
        others = [other for other in usable if other is not each and other.candidate.frame == each.candidate.frame]
        pairs = [(each.candidate.grid, other.candidate.grid) for other in others]
        over = sum(centre_within(one, other) or centre_within(other, one) for one, other in pairs)
        if len(others) >= 2 and over < MIN_OVERLAPPING * len(others):
            elsewhere.add(each)
    here = [each.candidate for each in usable if each not in elsewhere and not each.candidate.other_body]
    covered = shares([each.grid for each in here], [each.frame for each in here])
    partial = {each for each, share in zip(here, covered, strict=True) if share < WHOLE}
    return [replace(each, elsewhere=each in elsewhere, partial=each.candidate in partial) for each in records]


def _order(modalities: Sequence[str]) -> list[str]:
    """Return the modalities in the order in which they are chosen: T1c last, since it is to fit the others."""
    return sorted(modalities, key="t1c".__eq__)


def _wanted(records: Sequence[Record], modalities: Sequence[str]) -> list[Record]:
    """Return the candidates that may be used, as far as the user said something on it."""
    fixed = {each.modality for each in records if each.candidate.fixed}
    excluded = ({*GLIOMA} - {*modalities}) | fixed
    return [each for each in records if each.candidate.fixed or each.modality not in excluded]


def _t1_in_question(records: Sequence[Record], modalities: Sequence[str]) -> list[Record]:
    """Return the T1 and T1c if one of them has a rival and its header does not tell which of the two it is."""
    t1 = [each for each in records if each.modality in ("t1", "t1c") and each.is_usable]
    originals = [each for each in t1 if each.candidate.fixed or not each.candidate.reformatted]
    t1 = originals if any(each.candidate.says.contrast_unknown for each in originals) else t1
    rivals = Counter(each.modality for each in t1)
    settled = {each.modality for each in t1 if each.candidate.fixed} | ({"t1", "t1c"} - {*modalities})
    is_open = any(rivals[each.modality] > 1 for each in t1 if each.is_open)
    return t1 if is_open and not {"t1", "t1c"} <= settled else []


def _settled_t1(records: Sequence[Record], modalities: Sequence[str], option: Option, not_judged: str) -> list[Record]:
    """Return each T1 in question whose header does not tell if it shows contrast agent, as what its image shows.

    One whose image does not clearly show either T1 or T1c is left out; ValueError if one of the two is then lacking.
    """
    t1 = _t1_in_question(records, modalities)
    opened = [each for each in t1 if each.is_open]
    fixed = {each.modality for each in t1 if each.candidate.fixed}
    possible = ("t1", "t1c", "other")  # by their headers
    kinds = {each.clear_class(possible) for each in t1} & {"t1", "t1c"}
    # Alike, they decide nothing unless a header says the same: of 50 open cases, 5 to 8 had such images that were taken
    # for the other.
    alike = len(kinds) == 1 and kinds != {each.modality for each in t1 if each not in opened}
    seen = {each: None if alike else each.clear_class(possible) for each in opened}
    unclear = [each for each in opened if seen[each] not in ("t1", "t1c")]
    clear = {seen.get(each, each.modality) for each in t1 if each not in unclear}
    if unclear and not fixed and not {"t1", "t1c"} & {*modalities} <= clear:
        why = f" (they could not be compared: {not_judged.rstrip('.')})" if not_judged else ""
        if alike:
            why = " (nothing that looks otherwise is there to compare with)"
        names = ", ".join(each.candidate.name for each in unclear)
        raise StudyError(
            f"{names}: neither header nor image tells whether this T1 was acquired before or after contrast "
            f"agent{why}. Look at the T1 listed here.",
            command=f"Choose: {option(('t1', 't1c'))}",
            elsewhere=CHOOSE,
        )
    reasons = {each: "by what it shows" if seen[each] else "its image shows nothing clearly" for each in opened}
    return [each.taken_for(None if each in unclear else seen[each], reasons[each]) for each in opened]


def _best(wanted: Sequence[Record], modality: str, others: Mapping[str, Record]) -> list[Record]:
    """Return the usable candidates for a modality that are equally good, and better than the rest."""
    usable = [each for each in wanted if each.modality == modality and each.is_usable]
    if len(usable) < 2:
        return usable
    ranks = [[value(each, others) for _, value in RANKS] for each in usable]
    return [each for each, rank in zip(usable, ranks, strict=True) if rank == max(ranks)]


def _only_best(
    wanted: Sequence[Record], modality: str, others: Mapping[str, Record], option: Option
) -> tuple[Record | None, list[Record]]:
    """Return the best candidate for a modality, or None, and equally good ones whose images show something else.

    Raises StudyError if none can be used, or several are equal.
    """
    candidates, equal = [each for each in wanted if each.modality == modality], _best(wanted, modality, others)
    if candidates and not equal:
        first, what = candidates[0].candidate, display_name(modality)
        rest = f"; the other {len(candidates) - 1} cannot either" if candidates[1:] else ""
        which = f"the first of {len(candidates)}" if candidates[1:] else "the only"
        text = f"{first.name} is {which} {what} and cannot be used: {first.problem}{rest}."
        command = option((modality,), "none")
        raise StudyError(text, command=f"To go on without it: {command}", elsewhere="To go on, leave it out.")
    excluded: list[Record] = []
    if len(equal) > 1 and (fitting := [each for each in equal if each.clear_class() in (None, modality)]):
        excluded = [each.taken_for(None, "its image shows something else") for each in equal if each not in fitting]
        equal = fitting
    if len(equal) > 1:
        text = f"{', '.join(each.candidate.name for each in equal)}: all are {display_name(modality)}"
        command = f"Choose: {option((modality,))}"
        raise StudyError(f"{text} and cannot be told apart.", command=command, elsewhere=CHOOSE)
    return (equal[0] if equal else None), excluded


def _by_content(
    chosen: Mapping[str, Record], modalities: Sequence[str], required: Collection[str]
) -> tuple[dict[str, Record], list[Record], list[str]]:
    """Use images that were chosen by ambiguous headers as the modality that they clearly show.

    Returns what is used, what is left out, and remarks on what changed. An image that shows none of the modalities is
    left out, unless it is the only one. One that clearly shows what its header says is no longer ambiguous.
    """
    opened = {
        name: each
        for name, each in chosen.items()
        if each.log_probs and each.stated_grade is not None and each.stated_grade < Grade.SURE
    }
    free = [name for name in modalities if name in opened or name not in chosen]
    possible = [
        names
        for names in product((*free, "other"), repeat=len(opened))
        if all(names.count(name) <= 1 for name in free)
        and names.count("other") < len(chosen)
        and not any(
            new == "other" and each.candidate.name in required for each, new in zip(opened.values(), names, strict=True)
        )
    ]

    shown = {name: each.log_probs or {} for name, each in opened.items()}

    def likelihood(names: Sequence[str]) -> float:
        return sum(seen[name] for seen, name in zip(shown.values(), names, strict=True))

    best = max(possible, key=likelihood)
    moves = dict(zip(opened, best if likelihood(best) - likelihood([*opened]) >= SURE else opened, strict=True))
    remarks, renamed, excluded = [], {name: each for name, each in chosen.items() if name not in opened}, []
    for name, new in moves.items():
        each = opened[name]
        if new != name:
            used = f"looks like {display_name(new)}, and is used as {display_name(new)}"
            what = "looks like none, and is left out" if new == "other" else used
            why = f"its header leaves open whether it is {display_name(name)} ({each.reason})"
            remarks.append(f"{each.candidate.source}: {why}; it {what}.")
        rest = max(shown[name][other] for other in shown[name] if other != name)
        if new == "other":
            excluded.append(each.taken_for(None))
        elif new != name or shown[name][name] - rest >= SURE:
            renamed[new] = each.taken_for(new)
        else:
            renamed[name] = each
    return {name: renamed[name] for name in modalities if name in renamed}, excluded, remarks


def _delayed(chosen: Mapping[str, Record], wanted: Sequence[Record]) -> str:
    """Return that the T1c is taken only since it is much later than another one; empty if not."""
    best = chosen.get("t1c")
    others = [each for each in wanted if best and each.modality == "t1c" and each.is_usable and each is not best]
    times = [_minutes(each) for each in others if best and _advantage(best, each, chosen) == "later"]
    waited = _minutes(best) - min(times) if best and times else 0
    return f"is {waited} minutes later than another T1c: delayed, or after a second dose" if waited >= DELAYED else ""


def _minutes(record: Record) -> int:
    time = record.candidate.acquired.partition(".")[0][-6:]
    return int(time[:2]) * 60 + int(time[2:4]) if time.isdecimal() and len(time) == 6 else 0


def _plane(record: Record) -> str:
    normal = np.cross(*record.candidate.grid[1][:3, :2].T)
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _warnings(wanted: Sequence[Record], chosen: Mapping[str, Record]) -> Iterator[str]:
    for modality, best in chosen.items():
        for each in (each.candidate for each in wanted if each.modality == modality and each.candidate.problem):
            yield f"{each.source}, by its header {display_name(modality)}, is not used: {each.problem}."
        if best.candidate.reformatted:
            yield f"{best.candidate.source} is reformatted; there is no original."
        if best.candidate.doubt:
            yield f"{best.candidate.source}: {best.candidate.doubt}."
        if body := best.candidate.other_body:
            yield f"{best.candidate.source}: its header names another part of the body ({body})."


def _notes(wanted: Sequence[Record], chosen: Mapping[str, Record]) -> Iterator[str]:
    for each in wanted:
        best = chosen.get(each.modality or "")
        if each.by_image and each.modality is None:
            yield f"Left out: {_described(each)}: {each.reason}."
        elif best and each.modality and best is not each and each.is_usable and not each.candidate.reformatted:
            yield (
                f"{display_name(each.modality)} too, but not used: {_described(each)}, since {_described(best)} is "
                f"{_advantage(best, each, chosen)}."
            )


def _described(record: Record) -> str:
    sizes = lengths(voxel_sizes(record.candidate.grid[1]))
    return f"{record.candidate.source} ({_plane(record)}, {sizes} mm)"


def _advantage(best: Record, other: Record, chosen: Mapping[str, Record]) -> str:
    others = {name: each for name, each in chosen.items() if each is not best}
    return next(reason for reason, value in RANKS if value(best, others) != value(other, others))


def _with_use(record: Record, is_wanted: bool, chosen: Mapping[str, Record]) -> Record:
    """Return a record with what becomes of it."""
    best = chosen.get(record.modality or "")
    if record.modality is None:
        return replace(record, use=Use.LEFT_OUT)
    if not is_wanted:
        return replace(record, use=Use.UNWANTED)
    if record.candidate.problem:
        return replace(record, use=Use.UNUSABLE)
    if best is None or best is record:
        return replace(record, use=Use.TAKEN if best else Use.UNDECIDED)
    return replace(record, use=Use.RIVAL, instead=(best.candidate, _advantage(best, record, chosen)))
