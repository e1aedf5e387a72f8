"""What the images show: a warning if it contradicts their use, a decision where the header is ambiguous.

A modality is *open* if its header is ambiguous: recognised with less confidence than `OPEN`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import torch

from clinic.study.reading import Remark, Study
from common.cohorts.check import doubted_sequences
from common.cohorts.cohort import Cohort
from common.cohorts.sequence_check import CLASSES, SURE
from common.modalities import display_name

OPEN = 0.9  # confidence below which a header is ambiguous: that of a T1 whose header does not mention contrast agent


def contradiction_warnings(study: Study, judged: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield a warning for images that, by the result of `judge_images`, do not show what they are used as."""
    for found in doubted_sequences(judged):
        named = " and ".join(f"{display_name(name)} ({study.sources[name]})" for name in found.modalities)
        yield (
            f"{named}: {found.what}. Do not use the result, volumes included, before you know which image is which "
            "sequence."
        )


def reassign_by_image(
    study: Study,
    judged: Mapping[str, torch.Tensor],
    cohort: Cohort,
    allowed: Collection[str],
    required: Collection[str],
) -> tuple[Study, dict[str, str]]:
    """Use images with ambiguous headers as the modality that they clearly show.

    An image that shows none of the modalities is left out, unless it is the only one. An image that clearly shows what
    its header says is no longer ambiguous. For example, a T1 with confidence 0.7 that looks like T1c becomes the T1c;
    one with confidence 0.95 stays, and `contradiction_warnings` names it. Returns the study with the new modalities and
    a remark on each change; and a mapping from old modalities to new ones, empty if nothing changed.

    Args:
        study: the study as read.
        judged: result of `judge_images`.
        cohort: cohort whose order of modalities the study has.
        allowed: modalities that an image may be used as.
        required: modalities whose images must not be left out.
    """
    confirmed = [name for name in _open(study, judged) if _is_sure(judged[name], name)]
    best = _best_assignment(study, judged, [name for name in cohort.modalities if name in allowed], required)
    changed = {name: new for name, new in best.items() if new != name}
    remarks = []
    for name, new in changed.items():
        what = f"looks like {display_name(new)}, and is taken for it" if new else "looks like none, and is left out"
        why = f"its header leaves open whether it is {display_name(name)} ({study.reasons[name]})"
        remarks.append(Remark((), f"{study.sources[name]}: {why}; it {what}."))
    found = _with_image_as_reason(study, [*changed, *confirmed])
    found = replace(found, remarks=[*remarks, *found.remarks])
    if not changed:
        return found, {}
    moves = {name: name for name in study.images} | best
    return _renamed(found, moves, cohort), {name: new for name, new in moves.items() if new}


def _best_assignment(
    study: Study, judged: Mapping[str, torch.Tensor], allowed: Sequence[str], required: Collection[str]
) -> dict[str, str | None]:
    """Return the new modalities of images with ambiguous headers, None to leave out; empty if nothing changes."""
    opened = _open(study, judged)
    free = [name for name in allowed if name not in study.images or name in opened]
    possible = [
        dict(zip(opened, names, strict=True))
        for names in product((*free, "other"), repeat=len(opened))
        if all(names.count(name) <= 1 for name in free)
        and names.count("other") < len(study.images)
        and not any(new == "other" and name in required for name, new in zip(opened, names, strict=True))
    ]
    best = max(possible, key=lambda shown: _log_probability(judged, shown))
    if _log_probability(judged, best) - _log_probability(judged, {name: name for name in opened}) < SURE:
        return {}
    return {name: None if new == "other" else new for name, new in best.items()}


def _log_probability(judged: Mapping[str, torch.Tensor], shown: Mapping[str, str]) -> float:
    """Return the log-probability that images show these classes."""
    return sum(float(judged[name][CLASSES.index(new)]) for name, new in shown.items())


def _open(study: Study, judged: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name in judged if study.confidences[name] is not None and study.confidences[name] < OPEN]


def _is_sure(logs: torch.Tensor, name: str) -> bool:
    """Return whether an image shows a modality rather than any other class, with log-odds of at least `SURE`."""
    others = [float(log) for other, log in zip(CLASSES, logs, strict=True) if other != name]
    return float(logs[CLASSES.index(name)]) - max(others) >= SURE


def _with_image_as_reason(study: Study, names: Collection[str]) -> Study:
    reasons = {name: f"by what it shows; its header: {study.reasons[name]}" for name in names}
    return replace(study, reasons=study.reasons | reasons, confidences=study.confidences | dict.fromkeys(reasons))


def _renamed(study: Study, moves: Mapping[str, str | None], cohort: Cohort) -> Study:
    """Return a study with new modalities, in the cohort's order, without those that are None."""
    changed: dict[str, Any] = {
        "skulls": [new for name in study.skulls if (new := moves[name])],
        "remarks": [
            Remark(tuple(new for name in names if (new := moves[name])), text)
            for names, text in study.remarks
            if not names or any(moves[name] for name in names)
        ],
    }
    for field in fields(study):
        value = getattr(study, field.name)
        if isinstance(value, dict):
            names = {new: name for name, new in moves.items() if name in value and new}
            changed[field.name] = {new: value[names[new]] for new in cohort.modalities if new in names}
    return replace(study, **changed)
