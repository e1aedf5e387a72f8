"""Which image is which sequence: a pure function of what headers and names say and of what the images show.

Headers and names decide where they can. If one of several T1 does not say whether it was acquired after contrast agent,
or candidates are equally good, the images of those `to_look_at` decide; if they leave it open too, the study is
refused. An image with an ambiguous header is used as what it clearly shows, or left out; one with another header stays
what that says, and `contradicted` names it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.io.geometry import lengths
from common.modalities import GLIOMA, display_name
from mmb.clinic.intake.field_of_view import WHOLE, centre_within, shares
from mmb.clinic.recognise.certainty import RATHER, SURE, Grade, LogProbs, clearly, margin
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence
from mmb.clinic.recognise.image import contradictions, worded
from mmb.clinic.remark import Gravity, Remark
from mmb.errors import CHOOSE, StudyError

UNLIKELY = 0.05  # probability below which it is not said that an image may show something
MIN_EXTENT_MM = 80.0  # minimum extent of a volume of a whole brain; smaller ones are slabs
MIN_OVERLAPPING = 0.5  # minimum share of the other images that one has to lie over, or it lies elsewhere
DELAYED = 10  # minutes between two T1c from which the later one may show a delayed uptake, or a second dose
ALIKE = 1.5
"""Maximum ratio of the voxel sizes of images of one resolution, and of the edges of a voxel that is nearly a cube."""


class Use(StrEnum):
    """What becomes of a candidate."""

    TAKEN = "taken"
    LEFT_OUT = "left_out"  # it is none of the sequences
    UNWANTED = "unwanted"  # not requested
    UNUSABLE = "unusable"
    RIVAL = "rival"  # another one is better
    UNDECIDED = "undecided"  # the study is refused


@dataclass(frozen=True)
class FoundImage:
    """A series or image file of the study, what it was recognised as, and what became of it.

    Attributes:
        source: e.g. ``series 7``, as in ``used``; a file is not named.
        header: modality that its header or name says, or that was set by hand or by the site's table; None if it says
            none.
        confidence: how surely its header or name says so: none, open, likely or sure; None if it was set by hand or by
            the site's table, named by its file, or is no MR image.
        shows: class -> probability that the image shows it; empty if the image was not looked at.
        modality: what it is taken for; None if for none of the sequences.
        use: taken, left_out (it is none of the sequences), unwanted (not requested), unusable, rival (another one is
            better), or undecided.
        reason: why it is taken for that.
        problem: why it cannot be used; empty if it can.
        instead: source of the one that is used instead, and why; empty if there is none.
        files: number of files that were read for it.
    """

    source: str
    header: str | None
    confidence: str | None
    shows: Mapping[str, float]
    modality: str | None
    use: str
    reason: str
    problem: str = ""
    instead: str = ""
    files: int = 1


@dataclass(frozen=True, eq=False)
class Record:
    """What a candidate is taken for (None: none of the sequences) and why, and what becomes of it."""

    candidate: Candidate
    modality: str | None
    grade: Grade
    reason: str
    log_probs: LogProbs | None = None  # what its image shows; None if it was not judged, or cannot be
    by_image: bool = False  # its image decided what it is
    elsewhere: bool = False  # it does not lie where most others of its study do
    partial: bool = False  # it shows less than `WHOLE` of what another one shows
    use: Use = Use.UNDECIDED
    instead: tuple[Candidate, str] | None = None  # the candidate that is taken instead, and why

    @property
    def stated_grade(self) -> Grade | None:
        """The grade; None if it was set by hand or by the site's table, named by its file, or decided by the image."""
        return None if self.candidate.fixed or self.candidate.says.by_table or self.by_image else self.grade

    @property
    def better(self) -> str:
        """Which candidate is taken instead, and why; empty if none is."""
        return f"{self.instead[0].name} is {self.instead[1]}" if self.instead else ""

    @property
    def is_usable(self) -> bool:
        """Whether it may be used as its modality."""
        return self.modality is not None and self.candidate.problem is None

    @property
    def is_open(self) -> bool:
        """Whether only its image can tell if it was acquired after contrast agent."""
        return self.candidate.says.contrast_unknown and not self.candidate.fixed

    def clear_class(self, among: Collection[str] = ()) -> str | None:
        """Return the class, ``among`` some or all, that its image clearly shows; None if none."""
        return None if self.log_probs is None else clearly(self.log_probs, among)

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
            seen = sorted(((p, name) for name, p in self.shown().items()), reverse=True)
            kinds = [(display_name(name) if name in GLIOMA else "none of the four", p) for p, name in seen]
            said += f"; its image shows {' or '.join(f'{kind} ({p:.0%})' for kind, p in kinds if p >= UNLIKELY)}"
        ends = {
            Use.TAKEN: "; used",
            Use.UNWANTED: "; not used, as requested",
            Use.UNUSABLE: f"; cannot be used: {self.candidate.problem}",
            Use.RIVAL: f"; not used, since {self.better}",
        }
        return f"{said}{ends.get(self.use, '')}."

    def shown(self) -> dict[str, float]:
        """Return class -> probability that its image shows it; empty if it was not judged."""
        odds = np.exp([*(self.log_probs or {}).values()])
        return dict(zip(self.log_probs or {}, (odds / odds.sum()).tolist(), strict=True))

    def found(self) -> FoundImage:
        """Return it without what only the study's owner may see."""
        each, better = self.candidate, f"{self.instead[0].source} is {self.instead[1]}" if self.instead else ""
        return FoundImage(
            source=each.source,
            header=each.says.modality,
            confidence=None if each.fixed or each.says.by_table else each.says.grade.word,
            shows={name: round(p, 3) for name, p in self.shown().items()},
            modality=self.modality,
            use=self.use,
            reason=self.reason,
            problem=each.problem or "",
            instead=better if self.use is Use.RIVAL else "",
            files=each.files,
        )


def unused(
    name: str, source: str, reason: str, said: str | None = None, use: Use = Use.LEFT_OUT, files: int = 1
) -> Record:
    """Return the record of a series or file that is no candidate; ``said``: modality by its description or name."""
    candidate = Candidate(name, source, says=HeaderEvidence(said, Grade.NONE, reason), fixed=True, files=files)
    return Record(candidate, said if use is Use.UNWANTED else None, Grade.NONE, reason, use=use)


@dataclass(frozen=True)
class Assignment:
    """What is used as which modality, in their order; all candidates, in theirs; and what is to be said of this."""

    chosen: dict[str, Record]
    records: Sequence[Record] = ()
    remarks: Sequence[Remark] = ()

    def undone(self, error: StudyError) -> StudyError:
        """Return an error of images that would have been used, with what was found."""
        records = [replace(each, use=Use.UNDECIDED) if each.use is Use.TAKEN else each for each in self.records]
        error.candidates, error.lines = [each.found() for each in records], [each.line() for each in records]
        return error


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


def to_look_at(candidates: Sequence[Candidate], modalities: Sequence[str]) -> tuple[dict[Candidate, str], bool]:
    """Return the candidates that headers and names leave, with what these say, and whether images have to decide."""
    records = [*map(_by_header, candidates)]
    again = _made_again(records)
    records = [each for each in records if each.candidate not in again]
    unclear, equal = _t1_in_question(records, modalities), list[Record]()
    others: dict[str, Record] = {}
    wanted = _located(_wanted(records, modalities))
    for modality in _order(modalities):
        best = _best(wanted, modality, others)
        equal += best
        others |= {modality: best[0]} if best else {}
    left = {record.candidate: record.modality or "" for record in (*unclear, *equal)}
    return left, bool(unclear) or len(equal) > len(others)


def assign_series(
    candidates: Sequence[Candidate],
    modalities: Sequence[str],
    log_probs: Mapping[str, LogProbs] | None = None,
    not_judged: str = "",
    required: Collection[str] = (),
) -> Assignment:
    """Choose a candidate for each modality: by headers, and by images for those in ``log_probs``.

    If there are several, the criteria in `RANKS` decide, in their order. Images that were looked at, but could not be
    judged, leave questions open, for the reason ``not_judged``. ``required`` names candidates that are never left out
    because of what they show.

    Raises StudyError if neither headers nor images decide (codes ``equal`` and ``undecided``), all candidates for a
    modality are unusable (``unusable``), nothing is recognised (``not_recognised``), or an image cannot be read. The
    error is about the modalities to set by hand, and lists the candidates with what their images show.
    """
    every = {each: replace(_by_header(each), log_probs=(log_probs or {}).get(each.name)) for each in candidates}
    again = _made_again([*every.values()])
    records = {each: record for each, record in every.items() if each not in again}
    wanted, refusal = [*records.values()], None
    why_open = f" (they could not be compared: {not_judged.rstrip('.')})" if not_judged else ""
    chosen: dict[str, Record] = {}
    try:
        if log_probs is not None:
            records |= _by_candidate(_settled_t1([*records.values()], modalities, why_open))
        wanted = _located(_wanted([*records.values()], modalities))
        for modality in _order(modalities):
            best, others = _only_best(wanted, modality, chosen, why_open)
            wanted = [*(_by_candidate(wanted) | _by_candidate(others)).values()]
            chosen |= {modality: best} if best else {}
        if not chosen:
            text = f"Nothing is recognised as one of {', '.join(map(display_name, modalities))}."
            raise StudyError(text, code="not_recognised", about=modalities[:1], elsewhere=CHOOSE)
    except StudyError as error:  # also of an image that cannot be read
        refusal = error
    kept = _by_candidate(wanted)
    for each, instead in again.items():
        records[each] = replace(every[each], modality=records[instead].modality, grade=records[instead].grade)
        kept |= {each: records[each]} if instead in kept else {}
    records = {each: records[each] for each in every}
    records = {each: _with_use(kept.get(each, record), each in kept, chosen) for each, record in records.items()}
    if refusal:
        refusal.candidates = [record.found() for record in records.values()]
        refusal.lines = [record.line() for record in records.values()]
        raise refusal
    remarks = [*_remarks(records, [*kept.values()], chosen)]
    if why := _delayed(chosen, wanted):
        chosen["t1c"] = replace(chosen["t1c"], grade=min(chosen["t1c"].grade, Grade.OPEN))
        remarks.append(_of("later_than_another", chosen["t1c"], f"{chosen['t1c'].candidate.source} {why}."))
    chosen, excluded, moved = _by_content(chosen, modalities, required)
    chosen = {name: replace(_opened(record), use=Use.TAKEN) for name, record in chosen.items()}
    records |= _by_candidate([*chosen.values(), *(replace(record, use=Use.LEFT_OUT) for record in excluded)])
    return Assignment(chosen, [*records.values()], [*moved, *remarks])


def _opened(record: Record) -> Record:
    """Return a T1 or T1c as one that its header leaves open, unless its image shows it, or clearly the other."""
    other = {"t1": "t1c", "t1c": "t1"}.get(record.modality or "")
    if other is None or not record.log_probs:
        return record
    if not -SURE < margin(record.log_probs, record.modality or "", [other]) < RATHER:
        return record
    reason = f"{record.reason}; its image leaves open whether it is {display_name(other)}"
    return replace(record, grade=min(record.grade, Grade.OPEN), reason=reason)


def named(used: Mapping[str, Record], modalities: Collection[str] | Mapping[str, str]) -> str:
    """Name modalities with their sources, so that similar remarks form one: ``T2 (series 3: 5 mm), FLAIR (...)``."""
    details = modalities if isinstance(modalities, Mapping) else dict.fromkeys(modalities, "")
    return ", ".join(
        f"{display_name(name)} ({used[name].candidate.source}{': ' * bool(value)}{value})"
        for name, value in details.items()
    )


def contradicted(chosen: Mapping[str, Record]) -> Iterator[Remark]:
    """Yield remarks on images that do not show what they are used as, surest first."""
    judged = {name: torch.tensor([*each.log_probs.values()]) for name, each in chosen.items() if each.log_probs}
    for doubt in contradictions(judged):
        (name, seems), *others = doubt.seems.items()
        like = "" if seems == "other" else f", but like {display_name(seems)}"
        brief = f"the {display_name(name)} does not look like {display_name(name)}{like}"
        brief = f"{display_name(name)} and {display_name(seems)} seem exchanged" if others else brief
        pair = " and ".join(named(chosen, [each]) for each in doubt.seems)
        todo = "Do not use the result, volumes included, before you know which image is which sequence."
        text = f"{pair}: {worded(doubt, judged).what}. {todo}"
        yield Remark("exchanged" if others else "unlike_its_name", Gravity.STOP, text, tuple(doubt.seems), brief)


def _of(code: str, record: Record, text: str, gravity: Gravity = Gravity.WARNING, brief: str = "") -> Remark:
    """Return a remark on a candidate."""
    return Remark(code, gravity, text, (record.modality,) if record.modality else (), brief)


def _by_header(candidate: Candidate) -> Record:
    """Return a candidate as what its header says."""
    return Record(candidate, candidate.says.modality, candidate.says.grade, candidate.says.reason)


def _by_candidate(records: Iterable[Record]) -> dict[Candidate, Record]:
    return {record.candidate: record for record in records}


def _made_again(records: Sequence[Record]) -> dict[Candidate, Candidate]:
    """Return each usable candidate that was reconstructed of the same acquisition as a better one -> that one."""
    acquired: dict[tuple, list[Record]] = defaultdict(list)
    for each in records:
        if each.is_usable and each.candidate.acquired and not each.candidate.fixed:
            acquired[each.modality, each.candidate.acquired, each.candidate.frame].append(each)
    again: dict[Candidate, Candidate] = {}
    for group in (group for group in acquired.values() if len(group) > 1):
        places: dict[tuple, list[Record]] = defaultdict(list)
        for each in group:
            shape, affine = each.candidate.grid
            places[*shape, affine.round(2).tobytes()].append(each)
        for alike in places.values():
            best = _best(alike, alike[0].modality or "", {})
            again |= {each.candidate: best[0].candidate for each in alike if each not in best}
    return again


def _located(records: Sequence[Record]) -> list[Record]:
    """Return records that say which are partial, and which lie elsewhere: not over most others of their frame.

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


def _settled_t1(records: Sequence[Record], modalities: Sequence[str], why_open: str) -> list[Record]:
    """Return each T1 in question whose header does not tell if it shows contrast agent, as what its image shows.

    One whose image does not clearly show either T1 or T1c is a T1 if it is earlier than a sure T1c, else it is left
    out; ValueError if one of the two is then lacking.
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
    lacking = unclear and not fixed and not {"t1", "t1c"} & {*modalities} <= clear
    late = any(each.clear_class(possible) == "t1c" for each in opened)
    by_time = [each for each in unclear if lacking and not late and each.candidate.says.earlier]
    if lacking and len(by_time) < len(unclear):
        why = " (nothing that looks otherwise is there to compare with)" if alike else why_open
        names = ", ".join(each.candidate.name for each in unclear)
        what = "neither header nor image tells whether this T1 was acquired before or after contrast agent"
        text = f"{names}: {what}{why}. Look at the T1 listed here."
        raise StudyError(text, code="undecided", about=("t1", "t1c"), elsewhere=CHOOSE)
    reasons = {each: "by what it shows" if seen[each] else "its image shows nothing clearly" for each in opened}
    reasons |= dict.fromkeys(by_time, "earlier than a sure T1c")
    taken = seen | dict.fromkeys(unclear, None) | dict.fromkeys(by_time, "t1")
    return [each.taken_for(taken[each], reasons[each]) for each in opened]


def _best(wanted: Sequence[Record], modality: str, others: Mapping[str, Record]) -> list[Record]:
    """Return the usable candidates for a modality that are equally good, and better than the rest."""
    usable = [each for each in wanted if each.modality == modality and each.is_usable]
    if len(usable) < 2:
        return usable
    ranks = [[value(each, others) for _, value in RANKS] for each in usable]
    return [each for each, rank in zip(usable, ranks, strict=True) if rank == max(ranks)]


def _only_best(
    wanted: Sequence[Record], modality: str, others: Mapping[str, Record], why_open: str
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
        raise StudyError(text, code="unusable", about=(modality,), elsewhere="To go on, leave it out.")
    excluded: list[Record] = []
    if len(equal) > 1 and (fitting := [each for each in equal if each.clear_class() in (None, modality)]):
        excluded = [each.taken_for(None, "its image shows something else") for each in equal if each not in fitting]
        equal = fitting
    if len(equal) > 1:
        names = ", ".join(each.candidate.name for each in equal)
        text = f"{names}: all are {display_name(modality)} and cannot be told apart{why_open}."
        raise StudyError(text, code="equal", about=(modality,), elsewhere=CHOOSE)
    return (equal[0] if equal else None), excluded


def _by_content(
    chosen: Mapping[str, Record], modalities: Sequence[str], required: Collection[str]
) -> tuple[dict[str, Record], list[Record], list[Remark]]:
    """Use images that were chosen by ambiguous headers as the modality that they clearly show.

    Returns what is used, what is left out, and remarks on what changed. An image that shows none of the modalities is
    left out, unless it is the only one. One that clearly shows what its header says is no longer ambiguous.
    """
    opened = {
        name: each
        for name, each in chosen.items()
        if each.log_probs and each.stated_grade is not None and each.stated_grade < Grade.SURE
    }
    shown = {name: each.log_probs or {} for name, each in opened.items()}
    kept = {name for name, each in opened.items() if each.candidate.name in required}
    free = [name for name in modalities if name in opened or name not in chosen]

    def is_possible(names: Sequence[str]) -> bool:
        out = {old for old, new in zip(opened, names, strict=True) if new == "other"}
        return all(names.count(name) <= 1 for name in free) and len(out) < len(chosen) and not out & kept

    def likelihood(names: Sequence[str]) -> float:
        return sum(seen[name] for seen, name in zip(shown.values(), names, strict=True))

    best = max(filter(is_possible, product((*free, "other"), repeat=len(opened))), key=likelihood)
    moves = dict(zip(opened, best if likelihood(best) - likelihood([*opened]) >= SURE else opened, strict=True))
    remarks: list[Remark] = []
    renamed, excluded = {name: each for name, each in chosen.items() if name not in opened}, []
    for name, new in moves.items():
        each = opened[name]
        if new != name:
            used = f"looks like {display_name(new)}, and is used as {display_name(new)}"
            what = "looks like none, and is left out" if new == "other" else used
            why = f"its header leaves open whether it is {display_name(name)} ({each.reason})"
            about, text = () if new == "other" else (new,), f"{each.candidate.source}: {why}; it {what}."
            remarks.append(Remark("decided_by_image", Gravity.WARNING, text, about))
        if new == "other":
            excluded.append(each.taken_for(None))
        elif new != name or margin(shown[name], name) >= SURE:
            renamed[new] = each.taken_for(new)
        else:
            renamed[name] = each
    return {name: renamed[name] for name in modalities if name in renamed}, excluded, remarks


def _delayed(chosen: Mapping[str, Record], wanted: Sequence[Record]) -> str:
    """Return that the T1c is taken only since it is much later than another one; empty if not."""
    best = chosen.get("t1c")
    others = [each for each in wanted if best and each.modality == "t1c" and each.is_usable and each is not best]
    times = [_minutes(each) for each in others if best and _advantage(best, each, chosen) == "later"]
    known, own = [time for time in times if time is not None], _minutes(best) if best else None
    waited = own - min(known) if known and own is not None else 0
    return f"is {waited} minutes later than another T1c: delayed, or after a second dose" if waited >= DELAYED else ""


def _minutes(record: Record) -> int | None:
    time = record.candidate.acquired.partition(".")[0][-6:]
    return int(time[:2]) * 60 + int(time[2:4]) if time.isdecimal() and len(time) == 6 else None


def _plane(record: Record) -> str:
    return ("sagittal", "coronal", "axial")[record.candidate.across]


def _prepared(candidates: Iterable[Candidate], chosen: Mapping[str, Record]) -> bool:
    """Return whether all series are derived, and several are used, on one grid: as a data set's are."""
    (shape, affine), *others = [each.candidate.grid for each in chosen.values()]
    on_one = all(tuple(size) == tuple(shape) and np.allclose(other, affine) for size, other in others)
    return bool(others) and on_one and all(each.reformatted for each in candidates)


def _alike(used: Sequence[Record], trait: str) -> Iterator[tuple[Any, str, tuple[str, ...]]]:
    """Yield each value of candidates' traits that is not empty, with the sources and the modalities that have it."""
    values = {each: getattr(each.candidate, trait) for each in used}
    for value in dict.fromkeys(filter(None, values.values())):
        alike = [each for each in used if values[each] == value]
        first, *others = [each.candidate.source for each in alike]
        *more, last = [first, *(source.removeprefix("series ") for source in others)]
        yield value, " and ".join([", ".join(more), last][not more :]), tuple(each.modality or "" for each in alike)


def _remarks(
    candidates: Collection[Candidate], wanted: Sequence[Record], chosen: Mapping[str, Record]
) -> Iterator[Remark]:
    """Yield remarks on what is used, and on what could have been; equal ones are one."""
    used = sorted(chosen.values(), key=lambda each: [*candidates].index(each.candidate))
    for _, sources, about in _alike(used, "reformatted"):
        if _prepared(candidates, chosen):
            text = f"All series are derived, on one grid ({sources}): their descriptions say which sequence each is."
            yield Remark("prepared", Gravity.NOTE, text, about)
        else:
            said = "are reformatted; there are no originals" if about[1:] else "is reformatted; there is no original"
            yield Remark("reformatted", Gravity.WARNING, f"{sources} {said}.", about)
    for doubt, sources, about in _alike(used, "doubt"):
        yield Remark("doubtful_images", Gravity.WARNING, f"{sources}{', each' * (len(about) > 1)}: {doubt}.", about)
    for modality, best in chosen.items():
        name, each = best.candidate.source, best.candidate
        for other in (it for it in wanted if it.modality == modality and it.candidate.problem):
            why = f"by its header {display_name(modality)}, is not used: {other.candidate.problem}"
            yield _of("unusable_image", other, f"{other.candidate.source}, {why}.")
        if body := each.other_body:
            what = f"names another part of the body ({body})"
            stop = (Gravity.STOP, f"the header of the {display_name(modality)} {what}") if each.fixed else ()
            yield _of("other_body_part", best, f"{name}: its header {what}.", *stop)
    for other in wanted:
        best_one = chosen.get(other.modality or "")
        if other.by_image and other.modality is None:
            yield _of("left_out", other, f"Left out: {_described(other)}: {other.reason}.", Gravity.NOTE)
        elif best_one and best_one is not other and other.is_usable and not other.candidate.reformatted:
            better = f"{_described(best_one)} is {_advantage(best_one, other, chosen)}"
            text = f"{display_name(other.modality or '')} too, but not used: {_described(other)}, since {better}."
            yield _of("rival", other, text, Gravity.NOTE)


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
