"""Extraction of the brain from a head, in every volume of a study."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, Self, final

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from scipy import ndimage

from common.cohorts.check import whole
from common.modalities import display_name
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import box, connected_pieces, volume_of
from mmb.errors import StudyError
from mmb.extras import required

PREFERRED = ("t1", "t1c", "flair", "t2")
"""Order of preference among masks that agree equally well with the others; deepbet was trained on T1."""
LARGER, SMALLER = 1.25, 0.5
"""Factors on the largest and smallest plausible brain volume beyond which a mask is rejected."""
SECTION = 1.37
"""Maximum ratio of a brain's section to its volume to the power of 2/3; for slabs only the section is known."""
LEAST_SPHERICITY = 0.75
"""Minimum sphericity of a whole brain; masks have 0.86 to 0.90 in seven real heads, 0.65 to 0.68 in three trunks."""
LEAST_CONTRAST = 0.05
"""Minimum median coefficient of variation within `NEIGHBOURHOOD` mm; 0.07 to 0.20 in seven real heads, up to 0.04 in
water."""
NEIGHBOURHOOD = 15.0
LEAST_PIECE = 0.9  # minimum fraction of a mask in its largest piece; it is at least 0.99 in those heads


@final
@dataclass(frozen=True)
class Brain:
    """The brain that was extracted from a head."""

    mask: np.ndarray  # bool ``(X, Y, Z)``
    modality: str  # in whose image it was found
    millilitres: float
    is_whole: bool  # all of it is in the field of view
    agreement: dict[str, float]  # modality -> Dice of the plausible mask found in its image with that of ``modality``
    doubts: dict[str, str]  # modality -> why the mask found in its image is not a brain
    stripped: bool = False  # the image of ``modality`` was skull-stripped, so that the mask is its foreground


class Masks(NamedTuple):
    """Brain masks of images on one grid, by the images' names."""

    heads: Collection[str]  # images that show a head
    masks: dict[str, np.ndarray]  # plausible ones that were found in heads; and the foreground of skull-stripped images
    doubts: dict[str, str]  # head -> why the mask found in it is not that of a brain

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the masks of some images under other names: ``names`` maps old ones to new ones."""
        parts: Any = ({new: part[old] for old, new in names.items() if old in part} for part in self[1:])
        return type(self)([new for old, new in names.items() if old in self.heads], *parts)


def find_masks(
    aligned: AlignedStudy, heads: Collection[str], brain_ml: tuple[float, float], device: torch.device
) -> Masks:
    """Find the brain in images on one grid of cubes: in ``heads`` by deepbet, in others it is what is not 0.

    deepbet: Fisch et al., Computers in Biology and Medicine, 2024, arXiv:2308.07003. ``brain_ml`` are the smallest and
    largest plausible volume of a whole brain in ml.
    """
    spacing, volumes = _volumes(aligned)
    masks = {name: ndimage.binary_fill_holes(volume != 0) for name, volume in volumes.items() if name not in heads}
    predicted = run_deepbet({name: volumes[name] for name in heads}, device)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy releases the interpreter
        reasons = pool.map(lambda name: why_no_brain(predicted[name], volumes[name], spacing, brain_ml), predicted)
        doubts = {name: reason for name, reason in zip(predicted, reasons, strict=True) if reason}
        plausible = [name for name in predicted if name not in doubts]
        masks |= dict(zip(plausible, pool.map(_largest_piece, map(predicted.get, plausible)), strict=True))
    return Masks(heads, masks, doubts)


def agreed(
    aligned: AlignedStudy,
    masks: Masks,
    brain_ml: tuple[float, float],
    modality: Callable[[str], str | None] = str,
    label: Callable[[str], str] = display_name,
) -> Brain:
    """Return the brain on which the images agree; ValueError if no mask is plausible.

    The foreground of a skull-stripped image suffices if no brain was found in the heads. Among the plausible masks, the
    one that agrees best with the others is used. Voxels that more than half of the masks contain are added, so that a
    tumour at the border is kept even if one image leaves it out. ``modality`` and ``label`` return an image's modality
    and its name for messages.
    """
    (heads, plausible, doubts), (spacing, volumes) = masks, _volumes(aligned)
    if len(doubts) == len(heads):
        why = {name: why_no_brain(mask, volumes[name], spacing, brain_ml) for name, mask in plausible.items()}
        plausible = {name: mask for name, mask in plausible.items() if not why[name]}
    if not plausible:
        reasons = "; ".join(f"{label(name)}: {reason}" for name, reason in doubts.items())
        raise StudyError(
            f"No brain was found in images that are not skull-stripped. {reasons}. Look at them. If they "
            "do show a head, strip the skull yourself.",
            code="no_brain",
            command="To segment them as they are: --skull_strip no.",
        )
    agreement = {name: {name: 1.0} for name in plausible}
    for first, second in combinations(plausible, 2):
        one, two = plausible[first], plausible[second]
        dice = 2 * np.count_nonzero(one & two) / (np.count_nonzero(one) + np.count_nonzero(two))
        agreement[first][second] = agreement[second][first] = dice
    ranked = sorted(plausible, key=lambda name: (*PREFERRED, modality(name)).index(modality(name)))
    chosen = max(ranked, key=lambda name: round(sum(agreement[name].values()), 2))
    mask = plausible[chosen] | (2 * sum(mask.astype(np.uint8) for mask in plausible.values()) > len(plausible))
    is_whole = whole(torch.from_numpy(mask))
    return Brain(mask, chosen, volume_of(mask, spacing), is_whole, agreement[chosen], doubts, chosen not in heads)


def brain_mask(aligned: AlignedStudy, brain: Brain | None) -> np.ndarray:
    """Return the mask of the brain; for skull-stripped images, every voxel that any of them shows."""
    return brain.mask if brain else np.any([volume != 0 for volume in _volumes(aligned)[1].values()], axis=0)


def _volumes(aligned: AlignedStudy) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the voxel size in mm, and the volumes by name."""
    spacing = voxel_sizes(next(iter(aligned.images.values())).affine)
    return spacing, {name: np.asarray(image.dataobj, np.float32) for name, image in aligned.images.items()}


def run_deepbet(volumes: Mapping[str, np.ndarray], device: torch.device) -> dict[str, np.ndarray]:
    """Return deepbet's brain mask of each volume ``(X, Y, Z)``, RAS: bool; it may have several pieces or be empty."""
    with required("clinic", "The images show a whole head"):
        from deepbet.bet import BrainExtraction  # slow to import

    extraction = BrainExtraction(no_gpu=True)  # otherwise it would use the first GPU instead of the given device
    extraction.model.to(device)
    extraction.bbox_model.to(device)
    masks = {}
    for name, volume in volumes.items():
        try:
            masks[name] = extraction.run_model(volume.copy()) > 0.5
        except (AssertionError, ValueError):  # deepbet fails if it finds no voxel
            masks[name] = np.zeros(volume.shape, bool)
    return masks


def why_no_brain(
    mask: np.ndarray, volume: np.ndarray, spacing: np.ndarray, brain_ml: tuple[float, float]
) -> str | None:
    """Return why a mask ``(X, Y, Z)`` that was found in a volume is not that of a brain; None if it may be."""
    _, sizes = connected_pieces(mask)
    if not len(sizes):
        return "nothing looks like a brain"
    if sizes.max() < LEAST_PIECE * sizes.sum():
        return f"what looks like a brain is in {len(sizes)} pieces"
    volume_ml, most = volume_of(mask, spacing), LARGER * brain_ml[1]
    faces = [np.prod(np.delete(spacing, axis)) / 100 for axis in range(3)]
    sections = [mask.sum(axis=tuple({0, 1, 2} - {axis})).max() * face for axis, face in enumerate(faces)]
    widest = SECTION * (1000 * most) ** (2 / 3) / 100
    if volume_ml > most or max(sections) > widest:
        return (
            f"what looks like a brain has {volume_ml:.0f} ml and a section of {max(sections):.0f} cm2; expected at "
            f"most {most:.0f} ml and {widest:.0f} cm2"
        )
    if whole(torch.from_numpy(mask)):
        if volume_ml < SMALLER * brain_ml[0]:
            return f"what looks like a brain has only {volume_ml:.0f} ml"
        crossings = (np.abs(np.diff(np.pad(mask, 1).astype(np.int8), axis=axis)).sum() for axis in range(3))
        surface = sum(count * face for count, face in zip(crossings, faces, strict=True)) / 1.5  # corrects for corners
        sphericity = np.pi ** (1 / 3) * (6 * volume_ml) ** (2 / 3) / surface
        if sphericity < LEAST_SPHERICITY:
            return f"what looks like a brain does not have its shape (sphericity {sphericity:.2f})"
    if (contrast := _contrast(mask, volume, spacing)) < LEAST_CONTRAST:
        return f"what looks like a brain is as uniform as water (varies by {contrast:.0%} in {NEIGHBOURHOOD:g} mm)"
    return None


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest piece of a mask ``(X, Y, Z)``, with its holes filled."""
    numbers, sizes = connected_pieces(mask)
    piece = numbers == 1 + sizes.argmax()
    around = box(piece, 1)
    piece[around] = ndimage.binary_fill_holes(piece[around])
    return piece


def _contrast(mask: np.ndarray, volume: np.ndarray, spacing: np.ndarray) -> float:
    """Return the local coefficient of variation of a volume within a mask: the median over neighbourhoods."""
    step = max(round(2 / min(spacing)), 1)  # a resolution of 2 mm suffices
    volume, mask = (array[::step, ::step, ::step] for array in (volume, mask))
    size = np.maximum(np.rint(NEIGHBOURHOOD / (step * np.asarray(spacing))), 1).astype(int)
    inside = ndimage.minimum_filter(mask, tuple(size), mode="nearest")
    if not inside.any():
        return np.inf
    mean, square = (ndimage.uniform_filter(values, tuple(size))[inside] for values in (volume, volume**2))
    return float(np.median(np.sqrt(np.maximum(square - mean**2, 0)) / np.maximum(np.abs(mean), 1e-6)))
