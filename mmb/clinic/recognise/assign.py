"""Which image is which sequence: a pure function of what headers and names say and of what the images show.

Headers and names decide where they can. If one of several T1 does not say whether it was acquired after contrast agent,
or candidates are equally good, the images of those `to_look_at` decide; if they leave it open too, the study is
refused. An image with an ambiguous header is used as what it clearly shows, or left out; one with another header stays
what that says, and `contradicted` names it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from common.modalities import GLIOMA, display_name
from mmb.clinic.intake.field_of_view import WHOLE, centre_within, shares
from mmb.clinic.recognise.certainty import RATHER, SURE, Grade, LogProbs, margin
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.ranks import RANKS, advantage
from mmb.clinic.recognise.record import Assignment, Record, Use
from mmb.clinic.recognise.remarks import choice_remarks, delayed, remark_on
from mmb.clinic.remark import Gravity, Remark
from mmb.errors import CHOOSE, StudyError

MIN_OVERLAPPING = 0.5  # minimum share of the other images that one has to lie over, or it lies elsewhere


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
        refusal.found = [record.found() for record in records.values()]
        refusal.lines = [record.line() for record in records.values()]
        raise refusal
    remarks = [*choice_remarks(records, [*kept.values()], chosen)]
    if why := delayed(chosen, wanted):
        chosen["t1c"] = replace(chosen["t1c"], grade=min(chosen["t1c"].grade, Grade.OPEN))
        remarks.append(remark_on("later_than_another", chosen["t1c"], f"{chosen['t1c'].candidate.source} {why}."))
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
    return replace(record, use=Use.RIVAL, instead=(best.candidate, advantage(best, record, chosen)))
