"""Reasons to doubt a segmentation that can be seen without a reference segmentation."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, repeat

import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

from common.cohorts.check import coarse, lengths, tilted
from common.cohorts.cohort import Cohort
from common.modalities import display_name
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import Grid, box, connected_pieces, in_field_of_view
from mmb.clinic.head.skull import Brain
from mmb.clinic.intake.field_of_view import WHOLE
from mmb.clinic.recognise.reading import Study
from mmb.clinic.recognise.remarks import named
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.formats import in_percent, millilitres, region_phrase
from mmb.clinic.report.lesions import cut_off

LACKING = {"partial": (Gravity.DOUBT, 0.0, WHOLE), "covers_less": (Gravity.WARNING, WHOLE, 0.95)}
"""Code of a remark on images that do not show the whole brain -> its gravity, and the share that they show: [a, b)."""
MINIMUM_INFORMATION = 1.02
"""Normalised mutual information of a registered series below which the user is warned. For T1, T2 and FLAIR registered
to the T1c in 17 open cases, 50 of 51 have more, and 47 of 51 registered to another patient's T1c have less."""

LEAST_MM = 5  # mm missing at an end of the brain from which on they are named
MINIMUM_AGREEMENT = 0.85
"""Dice of two images' brain masks below which the user is warned; 4 real brains in one real head have 0.92 to 0.98."""
RIM = 2  # width in voxels of 1 mm of the rim of the extracted brain
LARGEST_LESION = 0.2
"""Fraction of the brain's volume above which the user is warned; whole tumours of the 50 open_glioma cases take at most
0.18 of it."""
COARSE_LESION = 0.15
"""The same where an image is coarser than those of the training, from which lesions come out too large."""

MOST_IN_RIM = 0.02
"""Fraction of the lesion within the rim above which the user is warned. For the true lesions of four open cases in a
head it was at most 0.011, although these are the cases that touch the border most."""

MINIMUM_LARGEST_PIECE = 0.95  # fraction of a lesion's volume in its largest piece below which the user is warned
MINIMUM_LARGEST_PART = 0.8
"""The same for a region within the whole tumour, which often has small islands."""


def partial_images(
    aligned: AlignedStudy, brain: np.ndarray, least: float = 0.0, most: float = WHOLE, oriented: bool = True
) -> dict[str, str]:
    """Return modality -> what is missing in an image of a share in [least, most) of a brain ``(X, Y, Z)``.

    An example is ``58 % of the brain; 61 mm missing at the top``.
    """
    affine, lacking = next(iter(aligned.images.values())).affine, {}
    for name, image in aligned.placed.items():
        seen = brain & in_field_of_view(Grid(image.shape, image.affine), Grid(brain.shape, affine))
        share = np.count_nonzero(seen) / max(int(np.count_nonzero(brain)), 1)
        if least <= share < most:
            ends = f"; {_ends_lacking(brain, seen, voxel_sizes(affine))}" if oriented else ""
            lacking[name] = f"{in_percent(share)} of the brain{ends}"
    return lacking


def _ends_lacking(brain: np.ndarray, seen: np.ndarray, spacing: np.ndarray) -> str:
    """Return how much of a brain is missing at which of its ends, given what is seen: ``61 mm missing at the top``."""
    ends = (("left", "right"), ("back", "front"), ("bottom", "top"))
    if not seen.any():
        return "all of it"
    parts = []
    for (low, high), whole, part, size in zip(ends, box(brain), box(seen), spacing, strict=True):
        missing = {low: part.start - whole.start, high: whole.stop - part.stop}
        at = "on" if low == "left" else "at"
        parts += [
            f"{count * size:.0f} mm missing {at} the {end}"
            for end, count in missing.items()
            if count * size >= LEAST_MM
        ]
    return " and ".join(parts) or "the rest lies between its slices"


def doubts(
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    head: np.ndarray,
    masks: Mapping[str, np.ndarray],
    volumes: Mapping[str, float],
    cohort: Cohort,
    trained: Sequence[float],
    drawn: bool,
) -> Iterator[Remark]:
    """Yield reasons to doubt a result, last those that make it less exact.

    Args:
        head: mask of the brain, see `brain_mask`.
        masks: region -> mask, bool ``(X, Y, Z)``, the outermost first; ``volumes`` are in ml.
        trained: voxel size of the training images in mm.
        drawn: whether a tumour was found with confidence. If not, nothing is said of what was drawn.
    """
    lesion = np.logical_or.reduce([*masks.values()])
    for code, (gravity, least, most) in LACKING.items():
        if lacking := partial_images(aligned, head, least, most, study.is_oriented):
            text = f"{named(study.used, lacking)}: not the whole head. What lies outside is segmented without it."
            yield Remark(code, gravity, text, tuple(lacking))
    if cohort.skull_stripped and study.is_oriented and (cut := cut_off(head)):
        text = f"The images end within the brain on the {cut}: on which side a lesion lies is not known."
        yield Remark("cut_off", Gravity.DOUBT, text)
    yield from image_warnings(study, aligned, brain, cohort.brain_ml)
    if cohort.skull_stripped:
        yield from size_warnings(lesion, head, any(coarse(image.affine, trained) for image in study.images.values()))
    yield from study.remarks
    if drawn:
        if brain:
            yield from border_warnings(lesion, brain.mask)
        yield from segmentation_warnings(lesion, volumes, study.images, study.is_oriented)
        yield from pieces_warnings(masks)
    yield from geometry_warnings(study, aligned, trained)


def image_warnings(
    study: Study, aligned: AlignedStudy, brain: Brain | None, brain_ml: tuple[float, float]
) -> Iterator[Remark]:
    """Yield reasons why the images may not be what the network expects; ``brain_ml`` bounds the volume of a brain."""
    stops = {"mirrored": (aligned.mirrored, "seems", "seem", "mirrored")}
    stops["not_registered"] = (aligned.failed, "does not lie", "do not lie", "over the reference")
    for code, (names, one, several, what) in stops.items():
        brief = f"the {' and '.join(map(display_name, names))} {one if len(names) == 1 else several} {what}"
        for name in names:
            text = f"{named(study.used, [name])}: {aligned.misplaced[name]}"
            yield Remark(code, Gravity.STOP, text, (name,), brief)
    for name, problem in aligned.misplaced.items():
        if name not in aligned.mirrored and name not in aligned.failed:
            yield Remark("misplaced", Gravity.DOUBT, f"{named(study.used, [name])}: {problem}", (name,))
    if study.skulls and brain is None:
        yield Remark(
            "not_skull_stripped",
            Gravity.STOP,
            f"{named(study.used, study.skulls)}: not skull-stripped. The network knows only skull-stripped brains. Do "
            "not trust the result: strip the skull, or leave it to this program (option skull_strip).",
            tuple(study.skulls),
            "the images show the skull, and the network knows only brains",
        )
    if brain and (reasons := _brain_doubts(study, brain, *brain_ml)):
        text = f"The brain that was cut out of the head is doubtful, see its outline in the pictures: {reasons}."
        yield Remark("doubtful_brain", Gravity.DOUBT, text)
    if strange := [name for name, match in aligned.registered.items() if match.quality < MINIMUM_INFORMATION]:
        yield Remark(
            "poorly_registered",
            Gravity.DOUBT,
            f"{named(study.used, strange)}: after registration it still agrees poorly with the reference; check in the "
            "pictures that it shows the same head, in the right place.",
            tuple(strange),
        )


def _brain_doubts(study: Study, brain: Brain, least: float, most: float) -> str:
    """Return reasons to doubt an extracted brain; empty if there are none."""
    doubts = [f"{named(study.used, [name])}: {reason}" for name, reason in brain.doubts.items()]
    if brain.is_whole and not least <= brain.millilitres <= most:
        doubts.append(f"it has {brain.millilitres:.0f} ml; expected {least:.0f} to {most:.0f} ml")
    if others := {name: f"{value:.2f}" for name, value in brain.agreement.items() if value < MINIMUM_AGREEMENT}:
        doubts.append(f"Dice of its mask in {display_name(brain.modality)} with those in {named(study.used, others)}")
    return "; ".join(doubts)


def size_warnings(lesion: np.ndarray, brain: np.ndarray, thick: bool = False) -> Iterator[Remark]:
    """Warn if a lesion is implausibly large, as when a network meets brains unlike those of its training.

    The limit is lower if an image is ``thick``, that is, coarser than those of the training.
    """
    limit = COARSE_LESION if thick else LARGEST_LESION
    share = np.count_nonzero(lesion) / max(int(np.count_nonzero(brain)), 1)
    if share > limit:
        seen = "as coarse images make it, or " if thick else ""
        yield Remark(
            "implausibly_large",
            Gravity.DOUBT,
            f"The lesion takes up {in_percent(share)} of the brain; a tumour rarely takes more than "
            f"{in_percent(limit)}. Part of it is probably healthy tissue, {seen}because it looks unlike that of the "
            "training images.",
        )


def border_warnings(lesion: np.ndarray, brain: np.ndarray) -> Iterator[Remark]:
    """Warn if a lesion may have been cut off with the skull, or if a remnant of the head may be taken for one."""
    rim = brain & ~ndimage.binary_erosion(brain, iterations=RIM, border_value=1)  # not at the image's edge
    share = np.count_nonzero(rim & lesion) / max(int(np.count_nonzero(lesion)), 1)
    if share > MOST_IN_RIM:
        yield Remark(
            "at_the_border",
            Gravity.WARNING,
            f"{in_percent(share)} of the lesion lies at the border of the brain that was cut out of the head: part of "
            "it may have been cut off, or a remnant of the head was mistaken for it. See the outline in the pictures.",
        )


def geometry_warnings(study: Study, aligned: AlignedStudy, trained: Sequence[float]) -> Iterator[Remark]:
    """Yield reasons why the result is less exact: voxels coarser than ``trained``, and a tilted reference."""
    thick = {
        name: f"{lengths(voxel_sizes(image.affine))} mm"
        for name, image in study.images.items()
        if coarse(image.affine, trained)
    }
    if thick:
        yield Remark(
            "coarse_voxels",
            Gravity.WARNING,
            f"{named(study.used, thick)}: voxels coarser than the {lengths(trained)} mm that the network was trained "
            "at; small parts may be missed, and volumes are less exact.",
            tuple(thick),
        )
    if tilt := tilted(next(iter(aligned.images.values())).affine):
        yield Remark("tilted", Gravity.WARNING, f"The reference: {tilt}.")


def pieces_warnings(masks: Mapping[str, np.ndarray]) -> Iterator[Remark]:
    """Warn of the first region, bool ``(X, Y, Z)``, the outermost first, much of which is not in its largest piece."""
    for region, least in zip(masks, chain([MINIMUM_LARGEST_PIECE], repeat(MINIMUM_LARGEST_PART)), strict=False):
        sizes = connected_pieces(masks[region])[1]
        if len(sizes) > 1 and sizes.max() < least * sizes.sum():
            yield Remark(
                "several_pieces",
                Gravity.WARNING,
                f"The {region_phrase(region)} is in {len(sizes)} separate pieces, specks included, the largest with "
                f"{in_percent(sizes.max() / sizes.sum())} of its volume: several tumours, or normal structures that "
                "were mistaken for one, such as the choroid plexus. Check each.",
            )
            return


def segmentation_warnings(
    lesion: np.ndarray, volumes: Mapping[str, float], used: Collection[str], oriented: bool = True
) -> Iterator[Remark]:
    """Yield reasons why a prediction may be wrong, given its mask in RAS, volumes in ml, and the modalities used."""
    if "ET" in volumes and "t1c" not in used:
        estimate = "is an estimate from sequences in which enhancement is not visible"
        none = "no enhancing tumour was found, but without contrast it cannot be ruled out"
        volume = volumes["ET"]
        text = f"No T1c: {f'the enhancing tumour ({millilitres(volume)} ml) {estimate}' if volume else none}."
        yield Remark("no_t1c", Gravity.WARNING, text, ("t1c",))
    ends = {"left": 0, "right": 0, "posterior": 1, "anterior": 1, "inferior": 2, "superior": 2}
    sides = [side for side, at in zip(ends, (0, -1) * 3, strict=True) if lesion.take(at, ends[side]).any()]
    if sides:
        where = f" ({', '.join(sides)})" if oriented else ""
        text = f"The lesion reaches the edge of the image{where}: what lies beyond is not measured."
        yield Remark("at_the_edge", Gravity.WARNING, text)
