"""What is to be said of the choice among a study's series and image files."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.io.geometry import lengths
from common.modalities import display_name
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.image import contradictions, worded
from mmb.clinic.recognise.ranks import advantage, plane
from mmb.clinic.recognise.record import Record
from mmb.clinic.remark import Gravity, Remark

DELAYED = 10  # minutes between two T1c from which the later one may show a delayed uptake, or a second dose


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


def named(used: Mapping[str, Record], modalities: Collection[str] | Mapping[str, str]) -> str:
    """Name modalities with their sources, so that similar remarks form one: ``T2 (series 3: 5 mm), FLAIR (...)``."""
    details = modalities if isinstance(modalities, Mapping) else dict.fromkeys(modalities, "")
    return ", ".join(
        f"{display_name(name)} ({used[name].candidate.source}{': ' * bool(value)}{value})"
        for name, value in details.items()
    )


def remark_on(code: str, record: Record, text: str, gravity: Gravity = Gravity.WARNING, brief: str = "") -> Remark:
    """Return a remark on a candidate."""
    return Remark(code, gravity, text, (record.modality,) if record.modality else (), brief)


def delayed(chosen: Mapping[str, Record], wanted: Sequence[Record]) -> str:
    """Return that the T1c is taken only since it is much later than another one; empty if not."""
    best = chosen.get("t1c")
    others = [each for each in wanted if best and each.modality == "t1c" and each.is_usable and each is not best]
    times = [_minutes(each) for each in others if best and advantage(best, each, chosen) == "later"]
    known, own = [time for time in times if time is not None], _minutes(best) if best else None
    waited = own - min(known) if known and own is not None else 0
    return f"is {waited} minutes later than another T1c: delayed, or after a second dose" if waited >= DELAYED else ""


def _minutes(record: Record) -> int | None:
    time = record.candidate.acquired.partition(".")[0][-6:]
    return int(time[:2]) * 60 + int(time[2:4]) if time.isdecimal() and len(time) == 6 else None


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


def choice_remarks(
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
            yield remark_on("unusable_image", other, f"{other.candidate.source}, {why}.")
        if body := each.other_body:
            what = f"names another part of the body ({body})"
            stop = (Gravity.STOP, f"the header of the {display_name(modality)} {what}") if each.fixed else ()
            yield remark_on("other_body_part", best, f"{name}: its header {what}.", *stop)
    for other in wanted:
        best_one = chosen.get(other.modality or "")
        if other.by_image and other.modality is None:
            yield remark_on("left_out", other, f"Left out: {_described(other)}: {other.reason}.", Gravity.NOTE)
        elif best_one and best_one is not other and other.is_usable and not other.candidate.reformatted:
            better = f"{_described(best_one)} is {advantage(best_one, other, chosen)}"
            text = f"{display_name(other.modality or '')} too, but not used: {_described(other)}, since {better}."
            yield remark_on("rival", other, text, Gravity.NOTE)


def _described(record: Record) -> str:
    sizes = lengths(voxel_sizes(record.candidate.grid[1]))
    return f"{record.candidate.source} ({plane(record)}, {sizes} mm)"
