"""Checks of whether images show what they are used as; the content decides where headers are ambiguous."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from common.cohorts.check import contradicted, shows
from common.cohorts.cohort import Cohort
from common.cohorts.content import CLASSES, SURE, log_probabilities
from common.modalities import display_name
from common.study.alignment import AlignedStudy
from common.study.reading import Remark, Study
from common.study.skull import Brain, cut_out

TOLD_APART = 1.0
"""Minimum log-odds of the pair T1 and T1c against any other pair of classes for two T1 to be distinguished by their
content. If the same T1 is given twice, once noisier and brighter, 32 open cases have at most 0.5."""
OPEN = 0.9
"""Confidence below which a header is ambiguous: that of a T1 whose header does not mention contrast agent."""


def look(aligned: AlignedStudy, brain: Brain | None, cohort: Cohort) -> dict[str, torch.Tensor]:
    """Return the `log_probabilities` of the images, by the modality that they are used as; some may be left out.

    Args:
        aligned: volumes on one grid.
        brain: brain that was found in them; None if they are skull-stripped.
        cohort: cohort of the network; the result is empty if its sequences are others, or its brains not adults'.
    """
    if not shows(cohort):
        return {}
    shown = (cut_out(aligned, brain.mask) if brain else aligned).images
    return log_probabilities(
        {name: MetaTensor(np.asarray(image.dataobj), affine=image.affine) for name, image in shown.items()}
    )


def contradictions(study: Study, said: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield a warning for images that do not show what they are used as.

    Args:
        study: the study as read.
        said: result of `look`.
    """
    for found in contradicted(said):
        named = " and ".join(f"{display_name(name)} ({study.sources[name]})" for name in found.modalities)
        yield (
            f"{named}: {found.what}. Do not use the result, volumes included, before you know which image is which "
            "sequence."
        )


def settle(
    study: Study, said: Mapping[str, torch.Tensor], cohort: Cohort, modalities: Collection[str], kept: Collection[str]
) -> tuple[Study, dict[str, str]]:
    """Use images with ambiguous headers (`OPEN`) as the modality that they show, if that is sure.

    An image that shows none of the sequences is left out, unless it is the only one. An image that surely shows what
    its header says is no longer ambiguous. T1 and T1c that may be exchanged (`Study.undecided`) are used as what they
    show or, if that is unclear, by `decided_by_headers`.

    Args:
        study: the study as read.
        said: result of `look`.
        cohort: cohort whose order of modalities the study has.
        modalities: modalities that an image may be used as.
        kept: modalities whose images must not be left out.

    Returns:
        The study with the images' new modalities, and a remark on each change; and a dict from each old modality to
        the new one, which is empty if nothing changed.

    Raises:
        ValueError: in the same cases as `decided_by_headers`.
    """
    before = {name: name for name in study.images}
    if study.undecided:
        study, before = _decided(study, said, cohort)
        said = {new: said[name] for name, new in before.items() if new and name in said}
    confirmed = [name for name in _opened(study, said) if _is_sure(said[name], name)]
    settled = _settled(study, said, [name for name in cohort.modalities if name in modalities], kept)
    changed = {name: new for name, new in settled.items() if new != name}
    remarks = []
    for name, new in changed.items():
        what = f"looks like {display_name(new)}, and is taken for it" if new else "looks like none, and is left out"
        doubt = f"its header leaves open whether it is {display_name(name)} ({study.reasons[name]})"
        remarks.append(Remark((), f"{study.sources[name]}: {doubt}; it {what}."))
    found = _by_what_is_shown(study, [*changed, *confirmed])
    found = replace(found, remarks=[*remarks, *found.remarks])
    if changed:
        after = {name: name for name in study.images} | settled
        found = _renamed(found, after, cohort)
        before = {name: new and after[new] for name, new in before.items()}
    same = all(name == new for name, new in before.items())
    return found, {} if same else {name: new for name, new in before.items() if new}


def _by_what_is_shown(study: Study, names: Collection[str]) -> Study:
    reasons = {name: f"by what it shows; its header: {study.reasons[name]}" for name in names}
    confidences = study.confidences | dict.fromkeys(reasons)
    return replace(study, reasons=study.reasons | reasons, confidences=confidences)


def decided_by_headers(study: Study, cohort: Cohort) -> Study:
    """Return a study without the second T1 that is used as T1c (`Study.undecided`), with a remark on it.

    Raises:
        ValueError: if the headers do not tell which of the two would be the T1.
    """
    if not study.undecided:
        return study
    if study.undecided.refused:
        raise ValueError(study.undecided.said)
    remarks = [*study.remarks, Remark((), study.undecided.said)]
    left = {name: None if name == "t1c" else name for name in study.images}
    return _renamed(replace(study, remarks=remarks, undecided=None), left, cohort)


def _decided(study: Study, said: Mapping[str, torch.Tensor], cohort: Cohort) -> tuple[Study, dict[str, str | None]]:
    """Distinguish T1 and T1c, both T1 by their headers, by their content (`Study.undecided`), or else by the headers.

    They are distinguished if no other pair of classes, such as T1 twice, is nearly as likely (`TOLD_APART`).

    Returns:
        The study; and a dict from each old modality to the new one, None if left out.
    """
    pair = ("t1", "t1c")
    names: dict[str, str | None] = {name: name for name in study.images}
    if set(pair) <= {*_opened(study, said)}:
        odds = {
            two: sum(_log(said, *shown) for shown in zip(pair, two, strict=True)) for two in product(CLASSES, repeat=2)
        }
        best, second = sorted(odds, key=odds.__getitem__, reverse=True)[:2]
        if set(best) == set(pair) and odds[best] - odds[second] >= TOLD_APART:
            names |= zip(pair, best, strict=True)
            found = _by_what_is_shown(replace(study, undecided=None), pair)
            return _renamed(found, names, cohort), names
    found = decided_by_headers(study, cohort)
    return found, {name: name if name in found.images else None for name in names}


def _log(said: Mapping[str, torch.Tensor], name: str, shown: str) -> float:
    """Return the log-probability that an image shows a class."""
    return float(said[name][CLASSES.index(shown)])


def _opened(study: Study, said: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name in said if study.confidences[name] is not None and study.confidences[name] < OPEN]


def _is_sure(logs: torch.Tensor, name: str) -> bool:
    """Return whether an image shows a sequence rather than any other class, with log-odds of at least `SURE`."""
    others = [float(log) for other, log in zip(CLASSES, logs, strict=True) if other != name]
    return float(logs[CLASSES.index(name)]) - max(others) >= SURE


def _settled(
    study: Study, said: Mapping[str, torch.Tensor], modalities: Sequence[str], kept: Collection[str]
) -> dict[str, str | None]:
    """Return the new modalities of images with ambiguous headers, None to leave out; empty if nothing changes."""
    opened = _opened(study, said)
    free = [name for name in modalities if name not in study.images or name in opened]

    def odds(names: Sequence[str]) -> float:
        return sum(_log(said, name, new) for name, new in zip(opened, names, strict=True))

    possible = [
        names
        for names in product((*free, "other"), repeat=len(opened))
        if all(names.count(name) <= 1 for name in free)
        and names.count("other") < len(study.images)
        and not any(new == "other" and name in kept for name, new in zip(opened, names, strict=True))
    ]
    best = max(possible, key=odds)
    if odds(best) - odds(opened) < SURE:
        return {}
    return {name: None if new == "other" else new for name, new in zip(opened, best, strict=True)}


def _renamed(study: Study, settled: Mapping[str, str | None], cohort: Cohort) -> Study:
    """Return a study with new modalities, in the cohort's order, without those that are None."""
    changed: dict[str, Any] = {
        "skulls": [new for name in study.skulls if (new := settled[name])],
        "remarks": [
            Remark(tuple(new for name in names if (new := settled[name])), said)
            for names, said in study.remarks
            if not names or any(settled[name] for name in names)
        ],
    }
    for field in fields(study):
        value = getattr(study, field.name)
        if isinstance(value, dict):
            names = {new: name for name, new in settled.items() if name in value and new}
            changed[field.name] = {new: value[names[new]] for new in cohort.modalities if new in names}
    return replace(study, **changed)
