"""What images of one head show: flaws, skull around the brain, and the sequence of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data import MetaTensor

from clinic.study.alignment import AlignedStudy, align
from clinic.study.grid import Image, finest
from clinic.study.skull import Brain, find_brain
from common.cohorts.check import Finding, findings, has_known_sequences, zero_background
from common.cohorts.cohort import Cohort
from common.cohorts.sequence_check import CLASSES, log_probabilities

if TYPE_CHECKING:
    from clinic.dicom import Candidate


def check_images(images: Mapping[str, Image], cohort: Cohort) -> tuple[dict[str, Image], list[Finding]]:
    """Return volumes with background 0 (see `zero_background`), and the `findings` on them.

    Which sequences they show is not among these, since it is judged when all are on one grid.
    """
    volumes = {name: zero_background(_tensor(image)) for name, image in images.items()}
    found = [*findings(volumes, cohort)]
    return {name: Image(volume.numpy(), images[name].affine) for name, volume in volumes.items()}, found


def judge_images(
    aligned: AlignedStudy, brain: Brain | None, cohort: Cohort, t1: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Return the `log_probabilities` of skull-stripped volumes, by name.

    The brain is cut out of them first if it was extracted. Those in ``t1`` are T1 or T1c by their headers. A volume
    that shows too little is left out. The result is empty if the images of the cohort cannot be judged (see
    `has_known_sequences`).
    """
    if not has_known_sequences(cohort):
        return {}
    images = aligned.cut_out(brain and brain.mask).images
    return log_probabilities({name: _tensor(image) for name, image in images.items()}, t1, brain is not None)


def look_at(candidates: Sequence[Candidate], cohort: Cohort, device: torch.device) -> list[dict[str, float] | None]:
    """Return what the images of candidates for one head show, as they were read (`Candidate.shows`).

    It is None for an image that is unusable or shows too little. The brain is extracted on ``device``. Raises
    ValueError if the volumes cannot be put on one grid, or no brain is found in them.
    """
    named = {f"image {number} ({one.name})": one for number, one in enumerate(candidates, start=1)}
    images, found = check_images({name: one.read() for name, one in named.items()}, cohort)
    unusable = {name for one in found if one.fatal and len(one.modalities) == 1 for name in one.modalities}
    images = {name: image for name, image in images.items() if name not in unusable}
    judged: dict[str, torch.Tensor] = {}
    if images:
        aligned = align(images, {name: named[name].frame for name in images}, finest(images))
        heads = [name for one in found if one.skull for name in one.modalities]
        brain = find_brain(aligned, heads, cohort.brain_ml, device) if heads else None
        t1 = [name for name, one in named.items() if one.verdict.modality in ("t1", "t1c")]
        judged = judge_images(aligned, brain, cohort, t1)
    return [dict(zip(CLASSES, judged[name].tolist(), strict=True)) if name in judged else None for name in named]


def _tensor(image: Image) -> MetaTensor:
    return MetaTensor(np.asarray(image.dataobj), affine=image.affine)
