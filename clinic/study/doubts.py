"""Reasons to doubt a segmentation that can be seen without a reference segmentation."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from clinic.choice import RELIABLE
from clinic.study.alignment import AlignedStudy
from clinic.study.formats import in_words, millilitres
from clinic.study.grid import connected_pieces, volume_of
from clinic.study.inference import Segmentation
from clinic.study.reading import Study
from clinic.study.skull import Brain, brain_mask
from common.cohorts.check import coarse, lengths, tilted
from common.cohorts.cohort import Cohort
from common.evaluation.metrics.case import uncertainty
from common.modalities import LabelSet, display_name

MINIMUM_COVERAGE = 0.95  # fraction of the reference's foreground covered by a series below which the user is warned
MINIMUM_INFORMATION = 1.02
"""Normalised mutual information of a registered series below which the user is warned. For T1, T2 and FLAIR registered
to the T1c in 17 open cases, 50 of 51 have more, and 47 of 51 registered to another patient's T1c have less."""

MINIMUM_AGREEMENT = 0.85
"""Dice of two images' brain masks below which the user is warned; 4 real brains in one real head have 0.92 to 0.98."""
RIM = 2  # width in voxels of 1 mm of the rim of the extracted brain
LARGEST_LESION = 0.2
"""Fraction of the brain's volume above which the user is warned; whole tumours of the 50 open_glioma cases take at most
0.18 of it."""

MOST_IN_RIM = 0.02
"""Fraction of the lesion within the rim above which the user is warned. For the true lesions of four open cases in a
head it was at most 0.011, although these are the cases that touch the border most."""

MINIMUM_LARGEST_PIECE = 0.95  # fraction of a lesion's volume in its largest piece below which the user is warned
UNSURE = 0.5
"""Mean entropy (nats) of a region's probabilities, where it was segmented, above which the user is warned: that of a
probability of 0.80 in every voxel. For the predictions on the nine test cases of open_glioma from all 15 subsets, it
selects 196 of M3AE's 394 regions, including 159 of the 193 with a Dice below 0.5, and 153 of GSS's 405, including 141
of 214. With all four sequences it says less: it selects 11 of 54 of both, including 5 of the 13 with a Dice below
0.5."""


def result_warnings(
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    segmentation: Segmentation,
    cohort: Cohort,
    trained: Sequence[float],
) -> Iterator[str]:
    """Yield reasons to doubt a result: first those that affect all of it, last those that make it less exact.

    The segmentation lies on the grid of ``aligned``; ``trained`` is the voxel size of the training images in mm.
    """
    spacing = voxel_sizes(next(iter(aligned.images.values())).affine)
    yield from image_warnings(study, aligned, brain, cohort.brain_ml)
    yield from study_warnings(study)
    lesion = segmentation.masks.any(axis=0)
    if cohort.skull_stripped:
        yield from size_warnings(lesion, brain_mask(aligned, brain))
    if brain:
        yield from border_warnings(lesion, brain.mask)
    yield from segmentation_warnings(segmentation, study.images, cohort.labels, spacing)
    yield from geometry_warnings(study, aligned, trained)


def image_warnings(
    study: Study, aligned: AlignedStudy, brain: Brain | None, brain_ml: tuple[float, float]
) -> Iterator[str]:
    """Yield reasons why the images may not be what the network expects; ``brain_ml`` bounds the volume of a brain."""
    for name, problem in aligned.misplaced.items():
        yield f"{_named(study, [name])}: {problem}"
    if study.skulls and brain is None:
        yield (
            f"{_named(study, study.skulls)}: not skull-stripped, but the network knows only skull-stripped brains: "
            "do not trust the result. Strip the skull first, or leave out --skull_strip."
        )
    if brain and (doubts := _brain_doubts(study, brain, *brain_ml)):
        yield f"The brain that was cut out of the head is doubtful, see its outline in the pictures: {doubts}."
    strange = [name for name, match in aligned.registered.items() if match.quality < MINIMUM_INFORMATION]
    if strange:
        yield (
            f"{_named(study, strange)}: after registration it still agrees poorly with the reference; check in the "
            "pictures that it shows the same head, in the right place."
        )


def study_warnings(study: Study) -> Iterator[str]:
    """Yield the remarks made while the study was read, with the sequences' final names."""
    unsure = {
        name: f"{each.confidence:.2f}, {each.verdict.reason}"
        for name, each in study.used.items()
        if each.confidence is not None and each.confidence < RELIABLE
    }
    if unsure:
        first = next(iter(unsure))
        right = (
            f"--series {first}=none, or the SeriesNumber of the right one"
            if study.series
            else f"name the file after it, e.g. x_{first}.nii.gz"
        )
        yield f"Recognised with little confidence: {_named(study, unsure)}. If one is another sequence: {right}."
    for remark in study.remarks:
        yield f"{_named(study, remark.modalities)}: {remark.text}" if remark.modalities else remark.text


def _brain_doubts(study: Study, brain: Brain, least: float, most: float) -> str:
    """Return reasons to doubt an extracted brain; empty if there are none."""
    doubts = [f"{_named(study, [name])}: {reason}" for name, reason in brain.doubts.items()]
    if brain.is_whole and not least <= brain.millilitres <= most:
        doubts.append(f"it has {brain.millilitres:.0f} ml; expected {least:.0f} to {most:.0f} ml")
    others = {name: f"{value:.2f}" for name, value in brain.agreement.items() if value < MINIMUM_AGREEMENT}
    if others:
        doubts.append(f"Dice of its mask in {display_name(brain.modality)} with those in {_named(study, others)}")
    return "; ".join(doubts)


def size_warnings(lesion: np.ndarray, brain: np.ndarray) -> Iterator[str]:
    """Warn if a lesion is implausibly large, as when a network meets brains unlike those of its training."""
    share = np.count_nonzero(lesion) / max(np.count_nonzero(brain), 1)
    if share > LARGEST_LESION:
        yield (
            f"The lesion takes up {share:.0%} of the brain, more than any tumour that this limit "
            f"({LARGEST_LESION:.0%}) was set on. Most of it is probably healthy tissue that looks unlike the training "
            "images."
        )


def border_warnings(lesion: np.ndarray, brain: np.ndarray) -> Iterator[str]:
    """Warn if a lesion may have been cut off with the skull, or if a remnant of the head may be taken for one."""
    rim = brain & ~ndimage.binary_erosion(brain, iterations=RIM, border_value=1)  # not at the image's edge
    share = np.count_nonzero(rim & lesion) / max(np.count_nonzero(lesion), 1)
    if share > MOST_IN_RIM:
        yield (
            f"{share:.0%} of the lesion lies at the border of the brain that was cut out of the head: part of it may "
            "have been cut off, or a remnant of the head was mistaken for it. See the outline in the pictures."
        )


def geometry_warnings(study: Study, aligned: AlignedStudy, trained: Sequence[float]) -> Iterator[str]:
    """Yield reasons why the result is less exact: what the images do not cover, and voxels coarser than ``trained``."""
    partial = {name: f"{share:.0%}" for name, share in aligned.covered.items() if share < MINIMUM_COVERAGE}
    if partial:
        yield f"{_named(study, partial)}: covers only this part of what the reference shows; the rest is empty."
    thick = {
        name: f"{lengths(voxel_sizes(image.affine))} mm"
        for name, image in study.images.items()
        if coarse(image.affine, trained)
    }
    if thick:
        yield (
            f"{_named(study, thick)}: voxels coarser than the {lengths(trained)} mm that the network was trained "
            "at; small parts may be missed, and volumes are less exact."
        )
    if tilt := tilted(next(iter(aligned.images.values())).affine):
        yield f"The reference: {tilt}."


def _named(study: Study, modalities: Collection[str] | Mapping[str, str]) -> str:
    """Name modalities with their sources, so that similar warnings form one: ``T2 (series 3: 5 mm), FLAIR (...)``."""
    details = modalities if isinstance(modalities, Mapping) else dict.fromkeys(modalities, "")
    return ", ".join(
        f"{display_name(name)} ({study.sources[name]}{': ' * bool(value)}{value})" for name, value in details.items()
    )


def segmentation_warnings(
    segmentation: Segmentation, used: Collection[str], labels: LabelSet, spacing: Sequence[float]
) -> Iterator[str]:
    """Yield reasons why a prediction may be wrong that can be seen without a reference segmentation.

    It is in RAS, with voxels of ``spacing`` mm; ``used`` are the modalities that it was made from.
    """
    masks, lesion = dict(zip(labels.regions, segmentation.masks, strict=True)), segmentation.masks.any(axis=0)
    if not lesion.any():
        yield "Nothing was segmented. That does not mean that there is no lesion."
    if "ET" in masks and "t1c" not in used:
        enhancing = volume_of(masks["ET"], spacing)
        if enhancing:
            volume = millilitres(enhancing)
            yield f"No T1c: the enhancing tumour ({volume} ml) is a guess from sequences that do not show it."
        else:
            yield "No T1c: no enhancing tumour was found, but without contrast it cannot be ruled out."
    drawn = [(region, p[mask]) for (region, mask), p in zip(masks.items(), segmentation.probabilities, strict=True)]
    entropies = {region: uncertainty(p, np.nan)["entropy"] for region, p in drawn if len(p)}
    unsure = [f"{in_words(region)} ({value:.2f})" for region, value in entropies.items() if value > UNSURE]
    if unsure:
        yield (
            f"The network is unsure of what it segmented as {', '.join(unsure)}. The number is the mean entropy: 0 is "
            f"certain, 0.69 is a coin toss, and above {UNSURE:.2f} this warning is given."
        )
    ends = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
    sides = [
        side
        for axis, pair in enumerate(ends)
        for side, end in zip(pair, (0, -1), strict=True)
        if lesion.take(end, axis).any()
    ]
    if sides:
        yield f"The lesion reaches the edge of the image ({', '.join(sides)}): what lies beyond is not measured."
    sizes = connected_pieces(lesion)[1]
    if len(sizes) and sizes.max() < MINIMUM_LARGEST_PIECE * sizes.sum():
        yield (
            f"The lesion is in {len(sizes)} separate pieces, the largest with {100 * sizes.max() / sizes.sum():.0f} % "
            "of its volume: a multifocal tumour, or false positives. Check the small ones."
        )
