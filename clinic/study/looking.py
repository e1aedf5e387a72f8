"""What images of one head show, judged by `sequence_check` after aligning them and removing the skull."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from monai.data import MetaTensor

from clinic.study.alignment import align
from clinic.study.grid import Image, finest
from clinic.study.skull import find_brain
from common.cohorts.check import findings, has_known_sequences, zero_background
from common.cohorts.cohort import Cohort
from common.cohorts.sequence_check import log_probabilities


def judge_images(
    images: Mapping[str, Image], cohort: Cohort, t1: Collection[str] = (), extracted: bool = False
) -> dict[str, torch.Tensor]:
    """Return the `log_probabilities` of skull-stripped volumes on one grid, by name.

    Those in ``t1`` are T1 or T1c by their headers; ``extracted`` says whether `find_brain` found the brain. A volume
    that shows too little is left out. The result is empty if the images of the cohort cannot be judged (see
    `has_known_sequences`).
    """
    if not has_known_sequences(cohort):
        return {}
    volumes = {name: MetaTensor(np.asarray(image.dataobj), affine=image.affine) for name, image in images.items()}
    return log_probabilities(volumes, t1, extracted)


def look_at(
    images: Mapping[str, Image],
    frames: Mapping[str, str],
    cohort: Cohort,
    device: torch.device,
    t1: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Return the `log_probabilities` of volumes as they were read, by name, without those that are unusable.

    ``images`` are volumes of one head by any name, ``frames`` their frames of reference. Those in ``t1`` are T1 or T1c
    by their headers. The brain is extracted on ``device``. Raises ValueError if the volumes cannot be put on one grid,
    or no brain is found in them.
    """
    volumes = {
        name: zero_background(MetaTensor(np.asarray(image.dataobj), affine=image.affine))
        for name, image in images.items()
    }
    found = [*findings(volumes, cohort, sequences=False)]
    unusable = {name for one in found if one.fatal and len(one.modalities) == 1 for name in one.modalities}
    images = {name: Image(volume.numpy(), images[name].affine) for name, volume in volumes.items()}
    images = {name: image for name, image in images.items() if name not in unusable}
    if not images:
        return {}
    aligned = align(images, {name: frames[name] for name in images}, finest(images))
    heads = [name for one in found if one.skull for name in one.modalities]
    brain = find_brain(aligned, heads, cohort.brain_ml, device) if heads else None
    return judge_images(aligned.cut_out(brain and brain.mask).images, cohort, t1, brain is not None)
