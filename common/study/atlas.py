"""The mean brain of the training cases, and the rotation of a tilted study to its axes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec, voxel_sizes

from common.modalities import display_name
from common.study.alignment import AlignedStudy
from common.study.grid import Grid, Image, resample
from common.study.registration import MINIMUM_OVERLAP, PEAK_DISTANCE, Registration, find_rigid
from common.study.skull import Brain, cut_out

MEAN_BRAIN = Path(__file__).parent / "data" / "mean_brain.nii.gz"
"""Mean of the 36 training cases of open_glioma (split fixed50): one volume per modality, uint8, 2 mm."""
MODALITIES = ("t1", "t1c", "t2", "flair")
SPACING = 2.0
MINIMUM_PEAK = 1.1
"""Minimum peak ratio as in `registration.register`, but lower, since a mean of many brains says less about a brain than
its own sequences do. The five validation cases, turned by 0 to 25 degrees, were all found within 3 degrees except one,
which is cut off; the ratio was 1.2 to 2.6. Where the registration failed, with another sequence of it, it was 0.8."""


def turn_upright(aligned: AlignedStudy, reference: str, brain: Brain | None) -> tuple[AlignedStudy, Brain | None]:
    """Resample a study along the axes of the mean brain, to which the training cases are aligned.

    The mean brain is registered rigidly to the reference's brain. The new grid covers the whole brain, with the same
    spacing.

    Args:
        aligned: volumes on one isotropic grid.
        reference: modality that is registered.
        brain: brain to be cut out of the volumes; None if they are skull-stripped.

    Returns:
        The study and the brain on the new grid.

    Raises:
        ValueError: if the mean brain lacks the reference's modality, or cannot be registered to it.
        ModuleNotFoundError: if itk-elastix is not installed.
    """
    if reference not in MODALITIES:
        raise ValueError(
            f"--upright: the mean brain has {', '.join(map(display_name, MODALITIES))}, but the reference is "
            f"{display_name(reference)}."
        )
    atlas = nib.load(MEAN_BRAIN)
    volume = np.asarray(atlas.dataobj)[..., MODALITIES.index(reference)]
    stripped = cut_out(aligned, brain.mask).images if brain else aligned.images
    found = find_rigid(Image(volume, atlas.affine), stripped[reference], f"{display_name(reference)} to the mean brain")
    if found.peak < MINIMUM_PEAK or found.overlap < MINIMUM_OVERLAP:
        raise ValueError(
            f"--upright: {found.text}. Expected at least {MINIMUM_PEAK:g} times and {MINIMUM_OVERLAP:.0%}: the mean "
            "brain could not be registered. Leave out --upright, and look at the pictures."
        )
    grid = _covering(stripped, found.transform)
    images = {name: Image(resample(image, grid), grid.affine) for name, image in aligned.images.items()}
    if brain:
        mask = Image(brain.mask.astype(np.float32), aligned.images[reference].affine)
        brain = replace(brain, mask=resample(mask, grid) > 0)
    return replace(aligned, images=images, upright=found), brain


def upright_note(found: Registration) -> str:
    """Return a note on the rotation of a study, and on how well the mean brain fits it."""
    return (
        f"The study was turned by {found.angle:.0f} degrees, to lie as the training cases do. Its normalised mutual "
        f"information with their mean brain is {found.quality:.3f}, {found.peak:.1f} times the value "
        f"{PEAK_DISTANCE:g} mm away, and the two overlap by {found.overlap:.0%}."
    )


def mean_brain(cases: Collection[Mapping[str, Image]]) -> Image:
    """Return the mean of cases that were registered to one atlas, in the form of `MEAN_BRAIN`.

    Each volume is scaled so that the 99th percentile of its brain is 1.

    Args:
        cases: the skull-stripped volumes of each case by modality, all of the same shape after reorientation to RAS.
            The origins in their headers are ignored.

    Returns:
        ``(X, Y, Z, 4)`` uint8, 200 for the 99th percentile, on a grid of 2 mm, RAS, with its origin in the middle.
    """
    means = [np.mean([_scaled(case[name]) for case in cases], axis=0) for name in MODALITIES]
    mean = Image((np.stack(means, axis=-1) * 200).clip(0, 255).round().astype(np.uint8), _centred(means[0].shape))
    mean.header.set_xyzt_units("mm")
    return mean


def _scaled(image: Image) -> np.ndarray:
    straight = nib.as_closest_canonical(image)
    spacing = voxel_sizes(straight.affine)
    shape = tuple(np.ceil(np.array(straight.shape) * spacing / SPACING).astype(int).tolist())
    centred = Image(straight.dataobj, _centred(straight.shape, spacing))
    shown = resample(centred, Grid(shape, _centred(shape))).clip(0)
    return shown / np.percentile(shown[shown > 0], 99)


def _centred(shape: Sequence[int], spacing: Sequence[float] = (SPACING,) * 3) -> np.ndarray:
    """Return the affine of an axis-aligned grid with the origin in its middle."""
    return from_matvec(np.diag(spacing), -(np.array(shape) - 1) / 2 * spacing)


def _covering(images: Mapping[str, Image], transform: np.ndarray) -> Grid:
    """Return the grid along the transform's axes that covers all non-zero voxels, with a margin of one voxel."""
    affine = next(iter(images.values())).affine
    spacing = float(voxel_sizes(affine)[0])
    shown = np.any([np.asarray(image.dataobj) != 0 for image in images.values()], axis=0)
    upright = apply_affine(np.linalg.inv(transform) @ affine, np.argwhere(shown)) / spacing
    low, high = np.floor(upright.min(axis=0)) - 1, np.ceil(upright.max(axis=0)) + 1
    return Grid(
        tuple((high - low + 1).astype(int).tolist()), transform @ from_matvec(np.eye(3) * spacing, low * spacing)
    )
