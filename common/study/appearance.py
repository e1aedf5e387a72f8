"""Whether images show what they are taken for; where headers leave open what an image is, what it shows decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor

from common.cohorts.check import contradicted, shows
from common.cohorts.cohort import Cohort
from common.cohorts.content import CLASSES, SURE, likelihoods
from common.modalities import display_name
from common.study.alignment import AlignedStudy
from common.study.reading import Study
from common.study.skull import Brain, cut_out

OPEN = 0.9
"""Confidence below which a header leaves open what its series is: those of a T1 that says nothing of contrast agent."""

Found = TypeVar("Found", Study, AlignedStudy, Brain)


def look(
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    cohort: Cohort,
    reference: str,
    modalities: Collection[str] | None = None,
) -> tuple[Study, AlignedStudy, Brain | None, str, list[str]]:
    """Compare what the images of a study show with what they are taken for.

    Images whose headers leave open what they are (`OPEN`) are taken for what they show, or left out if that is none of
    the sequences, where that is sure; of others a contradiction is warned of.

    Args:
        study: what was read.
        aligned: the same on one grid.
        brain: that was found in it; None: it shows brains alone.
        cohort: of the network; nothing is said if it has other sequences or other brains than adults'.
        reference: modality of the reference, which is never left out, nor is that in which the brain was found.
        modalities: that an image may be taken for; None: all of the cohort's.

    Returns:
        Study, aligned study, brain and reference, by the modalities that the images are taken for now; warnings,
        contradictions first.
    """
    if not shows(cohort):
        return study, aligned, brain, reference, []
    shown = (cut_out(aligned, brain.mask) if brain else aligned).images
    volumes = {name: MetaTensor(np.asarray(image.dataobj), affine=image.affine) for name, image in shown.items()}
    said = likelihoods(volumes)
    kept = {reference, brain.modality} if brain else {reference}
    wanted = [name for name in cohort.modalities if modalities is None or name in modalities]
    settled = {name: name for name in study.images} | _settled(study, said, wanted, kept)
    decided = [
        f"{study.sources[name]}: its header leaves open whether it is {display_name(name)} ({study.reasons[name]}); "
        + (
            f"it looks like {display_name(new)}, and is taken for it."
            if new
            else "it looks like none, and is left out."
        )
        for name, new in settled.items()
        if new != name
    ]
    changed = {
        name: f"by what it shows; its header: {study.reasons[name]}" for name in settled if settled[name] != name
    }
    study = replace(study, reasons=study.reasons | changed, confidences=study.confidences | dict.fromkeys(changed))
    study, aligned = _renamed(study, settled, cohort), _renamed(aligned, settled, cohort)
    brain = _renamed(brain, settled, cohort) if brain else None
    warnings = []
    for found in contradicted({settled[name]: logs for name, logs in said.items() if settled[name]}):
        named = " and ".join(f"{display_name(name)} ({study.sources[name]})" for name in found.modalities)
        warnings.append(f"{named}: {found.what}. Do not trust the result before it is known which image is what.")
    return study, aligned, brain, str(settled[reference]), [*warnings, *decided]


def _settled(
    study: Study, said: Mapping[str, torch.Tensor], modalities: Sequence[str], kept: Collection[str]
) -> dict[str, str | None]:
    """Return what images whose headers leave it open are taken for, None: left out; nothing if all stays as it is."""
    opened = [name for name in said if study.confidences[name] is not None and study.confidences[name] < OPEN]
    free = [name for name in modalities if name not in study.images or name in opened]

    def odds(names: Sequence[str]) -> float:
        return sum(float(said[name][CLASSES.index(new)]) for name, new in zip(opened, names, strict=True))

    possible = [
        names
        for names in product((*free, "other"), repeat=len(opened))
        if all(names.count(name) <= 1 for name in free)
        and not any(new == "other" and name in kept for name, new in zip(opened, names, strict=True))
    ]
    best = max(possible, key=odds)
    if odds(best) - odds(opened) < SURE:
        return {}
    return {name: None if new == "other" else new for name, new in zip(opened, best, strict=True)}


def _renamed(found: Found, settled: Mapping[str, str | None], cohort: Cohort) -> Found:
    """Return what is known by modality with these renamed, in the cohort's order, and those left out that are None."""
    changed: dict[str, Any] = {}
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, dict):
            names = {new: name for name, new in settled.items() if name in value and new}
            changed[field.name] = {new: value[names[new]] for new in cohort.modalities if new in names}
        elif field.name == "skulls":
            changed[field.name] = [new for name in value if (new := settled[name])]
        elif field.name == "modality":
            changed[field.name] = settled[value]
    return replace(found, **changed)
