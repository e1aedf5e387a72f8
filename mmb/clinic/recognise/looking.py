"""What the images of candidates show: they are read, aligned and skull-stripped once, and judged together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from common.cohorts.check import Finding, findings, without_ripples, zero_background
from common.cohorts.cohort import Cohort
from common.modalities import display_name
from mmb.clinic.head.alignment import AlignedStudy, align
from mmb.clinic.head.grid import Image, finest, whole
from mmb.clinic.head.skull import Masks, agreed, find_masks
from mmb.clinic.recognise.certainty import LogProbs
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.image import CLASSES, has_known_sequences, log_probabilities


class Volumes(NamedTuple):
    """Volumes with background 0, by the names of their candidates, doubts about their files, and what is wrong.

    Which sequences they show is judged when all are on one grid.
    """

    images: dict[str, Image]
    doubts: dict[str, dict[str, str]]
    flaws: list[Finding]


class ImageEvidence(NamedTuple):
    """What images of one head show.

    An image that cannot be used is not among them. ``log_probs`` lacks those that show too little, lie beneath a skull,
    or do not lie over the others.
    """

    reference: str  # name of the candidate on whose grid the others lie
    aligned: AlignedStudy  # the images on one grid, by the names of their candidates
    masks: Masks | None  # of the brain; None if none was looked for
    log_probs: dict[str, LogProbs]


def read_volumes(candidates: Iterable[Candidate], cohort: Cohort) -> Volumes:
    """Read candidates' volumes; set their background to 0 (see `zero_background`) and check them (see `findings`)."""
    read = {each.name: each.read() for each in candidates}
    tensors = {name: zero_background(_tensor(image)) for name, (image, _) in read.items()}
    images = {name: Image(tensor.numpy(), read[name][0].affine) for name, tensor in tensors.items()}
    doubts = {name: doubts for name, (_, doubts) in read.items()}
    return Volumes(images, doubts, [*findings(tensors, cohort)])


def judge_images(
    candidates: Mapping[Candidate, str],
    volumes: Volumes,
    reference: str | None,
    cohort: Cohort,
    device: torch.device,
    strip: str = "auto",
    t1_are_open: bool = False,
) -> ImageEvidence:
    """Align images of one head, find the brain in them, and judge what they show.

    ``candidates`` maps each to the modality that it is taken for, or an empty text. ``reference`` names the one on
    whose grid they are put; None: of those that show the whole head, the only T1c, else the finest.
    ``strip`` is one of `mmb.clinic.options.MODES`. ``t1_are_open``: those taken for T1 or T1c are known to be one of
    the two. Raises MisfitError if the volumes cannot be put on one grid; StudyError if no brain is found in them.
    """
    unusable = {name for flaw in volumes.flaws if flaw.fatal and len(flaw.modalities) == 1 for name in flaw.modalities}
    used = {each.name: each for each in candidates if each.name not in unusable}
    images = {name: volumes.images[name] for name in used}
    modalities = {name: candidates[each] for name, each in used.items()}
    times = Counter(modalities.values())
    labels = {name: display_name(modality) for name, modality in modalities.items()}
    labels |= {name: f"{labels[name]} ({each.source})" for name, each in used.items() if times[modalities[name]] > 1}
    if not images:
        return ImageEvidence("", AlignedStudy({}, {}), None, {})
    frames = {name: each.frame for name, each in used.items()}
    if reference is None:
        shown = whole(images, frames)
        t1c = [name for name in shown if modalities[name] == "t1c"]
        reference = t1c[0] if len(t1c) == 1 else finest(shown)
    aligned = align(images, frames, reference, label=labels.__getitem__)
    skulls = [name for flaw in volumes.flaws if flaw.skull for name in flaw.modalities if name in images]
    heads = {"auto": skulls, "yes": list(images), "no": []}[strip]
    masks = find_masks(aligned, heads, cohort.brain_ml, device) if heads else None
    brain = agreed(aligned, masks, cohort.brain_ml, modalities.get, labels.__getitem__) if masks else None
    log_probs: dict[str, LogProbs] = {}
    if has_known_sequences(cohort) and (brain or not skulls):
        in_place = aligned.renamed({name: name for name in images if name not in aligned.failed})
        cut = in_place.cut_out(brain and brain.mask).images
        tensors = {name: MetaTensor(without_ripples(_tensor(it)), affine=it.affine) for name, it in cut.items()}
        t1 = [name for name, modality in modalities.items() if t1_are_open and modality in ("t1", "t1c")]
        judged = log_probabilities(tensors, t1, brain is not None)
        log_probs = {name: dict(zip(CLASSES, logs.tolist(), strict=True)) for name, logs in judged.items()}
    return ImageEvidence(reference, aligned, masks, log_probs)


def _tensor(image: Image) -> MetaTensor:
    return MetaTensor(np.asarray(image.dataobj), affine=image.affine)
