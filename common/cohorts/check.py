"""Checking a data folder: what is there, what is missing, and whether it can be used, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy import ndimage
from tqdm import tqdm

from common.cohorts.brats import Item, find_cases
from common.cohorts.cohort import Cohort
from common.cohorts.content import SEQUENCES, contradictions, likelihoods
from common.io.geometry import corner_distance, lengths
from common.io.images import read_volume
from common.modalities import display_name

GRID_TOLERANCE = 1e-2
"""Largest distance in mm between corresponding corners of two images that count as one grid."""

BACKGROUND_FRACTION = 0.3
"""A skull-stripped image has its background's value in more than this share of its voxels (BraTS: about 0.8)."""

CUT = 0.5
"""Where a brain ends at a cross-section of more than this share of its largest, the image shows a part of it."""

COARSER = 1.5
"""Voxels longer than those of the training by more than this factor are doubtful."""

MOST_TILTED = 15.0
"""Degrees between an image's axes and the patient's from which on it is doubtful: atlas space has none."""

COLUMNS = (
    "case", "modalities", "missing", "shape", "spacing_mm", "orientation", "offset_mm", "label_values", "problems",
)  # fmt: skip


def check_folder(cohort: Cohort, dataset_dir: str | os.PathLike) -> pd.DataFrame:
    """Read every image in a folder and return one row per case.

    Columns: ``case``; ``modalities`` there and ``missing`` (joined by +); ``shape``, ``spacing_mm`` and ``orientation``
    (e.g. LPS) of the first modality; ``offset_mm``, how far at most another file's grid of that shape lies from it,
    corner to corner; ``label_values`` that occur (empty without a label); ``problems``, empty if the case can be used:
    unreadable files, grids that differ, NaN or Inf, constant images, no brain alone or one too small though the cohort
    is skull-stripped, images that do not look like the sequence they are named after, one image given twice, label
    values that are not the cohort's. A missing modality or label is no problem.

    Args:
        cohort: whose modalities and label values are expected.
        dataset_dir: a folder as downloaded; see `find_cases`.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: the files cannot be told apart by their names.
    """
    items = find_cases(dataset_dir, cohort)
    rows = [_check_case(item, cohort) for item in tqdm(items, desc="check", unit="case")]
    return pd.DataFrame(rows, columns=COLUMNS)


class Finding(NamedTuple):
    """Something about a subject's images that makes them unusable, or, if not fatal, doubtful.

    Attributes:
        modalities: those that it is about.
        what: was found.
        remedy: what to do.
        fatal: False if the images can be used all the same.
        skull: True if it is that there is more than a brain.
    """

    modalities: tuple[str, ...]
    what: str
    remedy: str
    fatal: bool = True
    skull: bool = False


def findings(images: Mapping[str, MetaTensor], cohort: Cohort, content: bool = True) -> Iterator[Finding]:
    """Look at volumes ``(X, Y, Z)`` that are meant to be one subject's modalities; the one place with these rules.

    Args:
        images: modality -> volume, with its affine to mm.
        cohort: whose images they are; if skull-stripped, they are meant to be brains of its ``brain_ml``.
        content: whether to look if they show what they are named after, see `contradicted`.
    """
    brains = dict(images)
    for name, image in images.items():
        voxels = image.as_tensor()
        bad = int((~torch.isfinite(voxels)).sum())
        if bad:
            del brains[name]
            yield Finding((name,), f"{bad} voxels are NaN or Inf", "Repair the file, or leave this modality out.")
        elif voxels.min() == voxels.max():
            del brains[name]
            remedy = "An empty image is not a modality; leave it out: absent modalities are handled."
            yield Finding((name,), f"every voxel is {voxels.min():g}", remedy)
        elif cohort.skull_stripped:
            for found in _unlike_a_brain(name, image, *cohort.brain_ml):
                if found.skull:
                    brains.pop(name)
                yield found
    if content and shows(cohort):
        yield from contradicted(likelihoods(brains))
    for pair in combinations(images, 2):
        one, other = (images[name].as_tensor() for name in pair)
        if torch.equal(one, other):
            remedy = "Give each image once and leave the missing modality out."
            yield Finding(pair, "the same image", remedy)


def zero_background(image: MetaTensor) -> MetaTensor:
    """Return a volume ``(X, Y, Z)`` whose background is 0: one with another constant background is shifted by it.

    Such are -1000, or what a z-score makes of 0. The background has the value of a corner, and that of more than
    `BACKGROUND_FRACTION` of the voxels, but not of all. Normalisation over the brain does not depend on the shift. A
    background that is brighter than most of the brain, or NaN, as some programs leave it, is made 0 without one; of NaN
    only what hangs together with the corner, since others in the brain are bad data.
    """
    voxels = image.as_tensor()
    value = voxels[0, 0, 0]
    around = voxels.isnan() if value.isnan() else voxels == value
    if value == 0 or not BACKGROUND_FRACTION < float(around.float().mean()) < 1:
        return image
    if value.isnan():
        pieces, _ = ndimage.label(around.numpy(), np.ones((3, 3, 3)))
        around = torch.from_numpy(pieces == pieces[0, 0, 0])
    elif voxels[~around].median() > value:
        return image - value
    return torch.where(around, 0.0, image)


def shows(cohort: Cohort) -> bool:
    """Return whether a cohort's images are such that `common.cohorts.content` can say which sequence they are."""
    return cohort.skull_stripped and set(SEQUENCES) <= set(cohort.modalities)


def contradicted(said: Mapping[str, torch.Tensor]) -> Iterator[Finding]:
    """Find modalities whose images seem to show others; nothing fatal.

    Args:
        said: of each modality, see `common.cohorts.content.likelihoods`.
    """
    for doubt in contradictions(said):
        (name, seems), *others = doubt.seems.items()
        if others:
            what = f"by what they show, {display_name(name)} and {display_name(seems)} are exchanged"
        elif seems == "other":
            what = f"it does not look like {display_name(name)}, but like a subtraction, a map or no image of a brain"
        else:
            what = f"it does not look like {display_name(name)}, but like {display_name(seems)}"
        yield Finding(tuple(doubt.seems), what, "Look at it, and name it rightly or leave it out.", fatal=False)


def _unlike_a_brain(name: str, image: MetaTensor, least: float, most: float) -> Iterator[Finding]:
    """Find a skull, or a whole brain that is too small: voxels that are not 0 count, in ml."""
    there, affine = image.as_tensor() != 0, image.affine.numpy()
    zeros = float((~there).float().mean())
    found = int(there.sum()) * abs(np.linalg.det(affine[:3, :3])) / 1000
    size = lengths(voxel_sizes(affine))
    strip = "Networks here are trained on brains with background 0; strip the skull first."
    if zeros < BACKGROUND_FRACTION:
        yield Finding((name,), f"not skull-stripped ({zeros:.0%} of the voxels are 0)", strip, fatal=False, skull=True)
    elif found > most:  # some scanners set the air around a head to 0
        what = f"not skull-stripped ({found:.0f} ml are not 0; a brain has up to {most:.0f})"
        remedy = f"{strip} Or is its voxel size wrong, {size} mm?"
        yield Finding((name,), what, remedy, fatal=False, skull=True)
    elif found < least and whole(there):
        what = f"a whole brain of only {found:.0f} ml, with voxels of {size} mm; expected are {least:.0f} to {most:.0f}"
        remedy = "Is the voxel size in the file right? If not, correct it: the result and its volumes would be wrong."
        yield Finding((name,), what, remedy, fatal=False)


def whole(there: torch.Tensor) -> bool:
    """Return if a mask ``(X, Y, Z)`` tapers off to all sides, as a brain does and a part of one (slab, slice) not."""
    for axis in range(3):
        areas = there.sum(dim=[other for other in range(3) if other != axis])
        areas = areas[areas > 0]
        if max(areas[0], areas[-1]) > CUT * areas.max():
            return False
    return True


def coarse(affine: np.ndarray, trained: Sequence[float]) -> str | None:
    """Say of a grid that its voxels are coarser than those that a network was trained at; None if they are not.

    Args:
        affine: of the grid, to mm.
        trained: size of the voxels in mm; one below 0 is that of each image itself, and nothing is said.
    """
    sizes = voxel_sizes(affine)
    if min(trained) < 0 or max(sizes) <= COARSER * max(trained):
        return None
    return (
        f"its voxels of {lengths(sizes)} mm are coarser than those of {lengths(trained)} mm that the network was "
        "trained at: small parts may be missed, and volumes are less exact"
    )


def tilted(affine: np.ndarray) -> str | None:
    """Say of a grid that its axes, in whatever order, are not nearly the patient's; None if they are.

    Args:
        affine: of the grid, to mm, RAS.
    """
    directions = np.abs(affine[:3, :3] / voxel_sizes(affine)).max(axis=0)
    tilt = np.degrees(np.arccos(np.clip(directions, 0, 1))).max()
    if tilt <= MOST_TILTED:
        return None
    return f"its axes are tilted by {tilt:.0f} degrees against the patient's; training images lie as in an atlas"


def grid_offset(volume: MetaTensor | Nifti1Image, reference: MetaTensor | Nifti1Image) -> float:
    """Return by how many mm at most the corners of two grids of one shape ``(X, Y, Z)`` lie apart."""
    return corner_distance(np.asarray(volume.affine), np.asarray(reference.affine), reference.shape)


def _check_case(item: Item, cohort: Cohort) -> dict[str, object]:
    problems: list[str] = []
    images, label = _read(item, problems)
    problems += [f"{' and '.join(f.modalities)}: {f.what}" for f in findings(images, cohort)]
    row: dict[str, object] = {
        "case": item["case"],
        "modalities": "+".join(item["modalities"]),
        "missing": "+".join(name for name in cohort.modalities if name not in item["modalities"]),
        "label_values": "",
    }
    if label is not None:
        found = torch.unique(label.as_tensor()).tolist()
        values = [int(value) if value.is_integer() else value for value in found]
        row["label_values"] = " ".join(map(str, values))
        try:
            cohort.labels.check(values, Path(item["label"]).name)
        except ValueError as error:
            problems.append(str(error))
    if images:
        row |= _grid(images if label is None else {**images, "label": label}, problems)
    return row | {"problems": "; ".join(problems)}


def _grid(volumes: Mapping[str, MetaTensor], problems: list[str]) -> dict[str, object]:
    """Describe the first volume's grid and how far the others' lie from it; append what differs to the problems."""
    (first, reference), *others = volumes.items()
    largest = 0.0
    for name, volume in others:
        if volume.shape != reference.shape:
            problems.append(f"{name}: shape {_by(volume.shape)}, but {first} has {_by(reference.shape)}")
            continue
        offset = grid_offset(volume, reference)
        largest = max(largest, offset)
        if offset > GRID_TOLERANCE:
            problems.append(f"{name}: up to {offset:.2f} mm away from {first}")
    affine = reference.affine.numpy()
    return {
        "shape": _by(reference.shape),
        "spacing_mm": _by(f"{size:.4g}" for size in voxel_sizes(affine)),
        "orientation": "".join(aff2axcodes(affine)),
        "offset_mm": round(largest, 3),
    }


def _read(item: Item, problems: list[str]) -> tuple[dict[str, MetaTensor], MetaTensor | None]:
    """Read a case's images and label, those that can be read; append why others cannot to the problems."""
    opened: dict[str, MetaTensor] = {}

    def volume(path: str, channel: int | None = None) -> MetaTensor | None:
        try:
            if path not in opened:  # MSD has one file for all modalities
                opened[path] = read_volume(path)
            found = opened[path] if channel is None else opened[path][..., channel]
        except (OSError, ValueError, IndexError) as error:
            problems.append(str(error))
            return None
        if found.ndim != 3:
            problems.append(f"{path}: shape {_by(opened[path].shape)}; expected one volume for each modality")
            return None
        return found

    def image(path: str, channel: int | None) -> MetaTensor | None:
        found = volume(path, channel)
        return None if found is None else zero_background(found)

    channels = item.get("channels", [None] * len(item["image"]))
    read = {name: image(*at) for name, *at in zip(item["modalities"], item["image"], channels, strict=True)}
    images = {name: found for name, found in read.items() if found is not None}
    return images, volume(item["label"]) if "label" in item else None


def _by(sizes: Iterable[object]) -> str:
    return "x".join(map(str, sizes))
