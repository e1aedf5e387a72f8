"""Checks of images: all rules for one subject's files, and the check of a whole folder by them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy import ndimage
from tqdm.contrib.concurrent import thread_map

from common.cohorts.cohort import Cohort
from common.cohorts.examination import differing_files
from common.cohorts.registry import cohort_of
from common.cohorts.scan import Item, find_cases
from common.io.geometry import grid_difference, lengths
from common.io.images import label_map, read_volume

RIPPLE = 0.005  # share of the 99th percentile up to which a voxel outside a brain counts as background
BACKGROUND_FRACTION = 0.3  # minimum fraction of background voxels in a skull-stripped image (in BraTS it is about 0.8)
CUT = 0.5  # a brain counts as cut off at a face if its cross-section there exceeds this fraction of its largest one
BEYOND = 1e9  # size of a value that no MR image has; a single such voxel would spoil the normalisation
COARSER = 1.5  # factor by which voxels may be longer than those of the training before a warning
MOST_TILTED = 15.0  # maximum angle in degrees between an image's axes and the patient's; in atlas space the angle is 0
COLUMNS = ("case", "modalities", "missing", "shape", "spacing_mm", "orientation", "label_values", "problems")


class Finding(NamedTuple):
    """A flaw of a subject's images that makes them unusable or, if not fatal, suspicious.

    Attributes:
        modalities: the modalities concerned.
        what: description of the flaw.
        remedy: what the user should do.
        fatal: False if the images can be used nevertheless.
        skull: True if the flaw is that the image shows more than a brain.
    """

    modalities: tuple[str, ...]
    what: str
    remedy: str
    fatal: bool = True
    skull: bool = False


Judge = Callable[[Mapping[str, MetaTensor]], Iterable[Finding]]
"""What else is found in a subject's images of brains: modality -> volume ``(X, Y, Z)``."""
Load = Callable[[Item], object] | None  # loads a labelled case as a training does


def read_modality(path: str, channel: int | None, opened: dict[str, MetaTensor]) -> MetaTensor:
    """Read a modality's volume ``(X, Y, Z)`` with background 0, from a file or one of its channels.

    ``opened`` keeps the files that were read, since several modalities may be channels of one. Raises
    FileNotFoundError if the file does not exist; ValueError if it is corrupt or not of this shape.
    """
    if path not in opened:
        opened[path] = read_volume(path)
    image = opened[path]
    if channel is None and image.ndim == 3:
        return zero_background(image)
    if channel is not None and image.ndim == 4 and channel < image.shape[3]:
        return zero_background(cast(MetaTensor, image[..., channel]))
    expected = "(X, Y, Z)" if channel is None else f"(X, Y, Z, C) with a channel {channel}"
    raise ValueError(
        f"{path}: shape {tuple(image.shape)}; expected {expected}. Correct `image` and `channels` in the datalist."
    )


def findings(images: Mapping[str, MetaTensor], cohort: Cohort) -> Iterator[Finding]:
    """Check volumes ``(X, Y, Z)`` that should be one subject's modalities.

    Images of a skull-stripped cohort should show a brain whose volume is within ``brain_ml``. Which sequences they show
    is another question: see `doubted_sequences`.
    """
    for name, image in images.items():
        voxels = image.as_tensor()
        low, high = (float(end) for end in voxels.aminmax())
        if not np.isfinite([low, high]).all():
            bad = int((~torch.isfinite(voxels)).sum())
            yield Finding((name,), f"{bad} voxels are NaN or Inf", "Repair the file, or leave this modality out.")
        elif low == high:
            remedy = "An empty image is not a modality; leave it out: absent modalities are handled."
            yield Finding((name,), f"every voxel is {low:g}", remedy)
        elif max(-low, high) > BEYOND:
            what = f"{int((voxels.abs() > BEYOND).sum())} voxels are beyond {BEYOND:g} (from {low:g} to {high:g})"
            yield Finding((name,), what, "No MR image has such values: repair the file, or leave this modality out.")
        elif cohort.skull_stripped:
            yield from _unlike_a_brain(name, image, *cohort.brain_ml)
    for pair in combinations(images, 2):
        one, other = (images[name].as_tensor() for name in pair)
        if torch.equal(one, other):
            yield Finding(pair, "the same image", "Give each image once and leave the missing modality out.")


def zero_background(image: MetaTensor) -> MetaTensor:
    """Return a volume ``(X, Y, Z)`` with background 0, by subtracting any other constant background.

    Such a background may be -1000, or the value to which z-scoring moved 0. It is the value of the first corner, if
    more than `BACKGROUND_FRACTION` of the voxels, but not all, have this value. The shift does not affect normalisation
    over the brain. A background that is NaN or brighter than most of the brain is set to 0 without a shift. NaN voxels
    are set to 0 only if they are connected to the corner, since NaN inside the brain is bad data.
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
        return cast(MetaTensor, image - value)
    return cast(MetaTensor, torch.where(around, 0.0, image))


def without_ripples(voxels: torch.Tensor) -> torch.Tensor:
    """Return a volume ``(X, Y, Z)`` with background 0 where interpolation left ripples in the background of a brain.

    They are below `RIPPLE` of the 99th percentile, and connected to the border; noise in the air around a head is more.
    """
    if float((voxels == 0).float().mean()) >= BACKGROUND_FRACTION:
        return voxels
    size = voxels.abs().numpy()
    pieces, _ = ndimage.label(size <= RIPPLE * np.percentile(size[size > 0], 99))
    border = np.concatenate([np.take(pieces, end, axis).ravel() for axis in range(3) for end in (0, -1)])
    outside = np.isin(pieces, np.unique(border[border > 0]))
    return torch.where(torch.from_numpy(outside), 0.0, voxels) if outside.mean() >= BACKGROUND_FRACTION else voxels


def _unlike_a_brain(name: str, image: MetaTensor, least: float, most: float) -> Iterator[Finding]:
    """Yield a finding if a skull is visible, or a whole brain is too small: the voxels that are not 0 count, in ml."""
    head, affine = without_ripples(image.as_tensor()) != 0, image.affine.numpy()
    zeros = float((~head).float().mean())
    volume = int(head.sum()) * abs(np.linalg.det(affine[:3, :3])) / 1000
    size = lengths(voxel_sizes(affine))
    strip = "The networks are trained on brains with background 0; strip the skull first."
    if zeros < BACKGROUND_FRACTION:
        yield Finding((name,), f"not skull-stripped ({zeros:.0%} of the voxels are 0)", strip, fatal=False, skull=True)
    elif volume > most:  # some scanners set the air around a head to 0
        what = f"not skull-stripped ({volume:.0f} ml are not 0; a brain has up to {most:.0f})"
        remedy = f"{strip} Or is its voxel size wrong, {size} mm?"
        yield Finding((name,), what, remedy, fatal=False, skull=True)
    elif volume < least and whole(head):
        what = f"a whole brain of only {volume:.0f} ml, with voxels of {size} mm; expected {least:.0f} to {most:.0f} ml"
        remedy = "Is the voxel size in the file right? If not, correct it: otherwise result and volumes will be wrong."
        yield Finding((name,), what, remedy, fatal=False)


def whole(mask: torch.Tensor) -> bool:
    """Return whether a mask ``(X, Y, Z)`` tapers off on all sides, as a whole brain does but a slab does not."""
    for axis in range(3):
        areas = mask.sum(dim=[other for other in range(3) if other != axis])
        areas = areas[areas > 0]
        if max(areas[0], areas[-1]) > CUT * areas.max():
            return False
    return True


def coarse(affine: np.ndarray, trained: Sequence[float]) -> str | None:
    """Return a warning if a grid's voxels are coarser than those a network was trained at, else None.

    ``trained`` is the voxel size of the training in mm. A value below 0 means that each image kept its own voxel size;
    then there is no warning.
    """
    sizes = voxel_sizes(affine)
    if min(trained) < 0 or max(sizes) <= COARSER * max(trained):
        return None
    return (
        f"its voxels of {lengths(sizes)} mm are coarser than the {lengths(trained)} mm that the network was "
        "trained at: small parts may be missed, and volumes are less exact"
    )


def tilted(affine: np.ndarray) -> str | None:
    """Return a warning if a grid's axes, in any order, are not nearly parallel to the patient's, else None.

    ``affine`` maps voxel indices to mm, RAS.
    """
    directions = np.abs(affine[:3, :3] / voxel_sizes(affine)).max(axis=0)
    tilt = np.degrees(np.arccos(np.clip(directions, 0, 1))).max()
    if tilt <= MOST_TILTED:
        return None
    return f"its axes are tilted by {tilt:.0f} degrees against the patient's; training images are aligned to an atlas"


def check_folder(
    cohort: Cohort, dataset_dir: str | os.PathLike, judge: Judge | None = None, load: Load = None
) -> pd.DataFrame:
    """Check every case in a folder and return one row for each.

    Columns: ``case``; ``modalities`` present and ``missing`` (joined by +); ``shape``, ``spacing_mm`` and
    ``orientation`` (e.g. LPS) of the first modality; ``label_values`` that occur, of fractions the least one (empty
    without a label); ``problems``, empty if the case can be used. Problems are unreadable files, differing grids,
    `findings`, those of ``judge`` on images that are brains, names or dates of two cases, an image that another case
    has, label values that the cohort does not define, and else what ``load`` refuses of a labelled case. A missing
    modality or label is not a problem.
    """
    check = partial(_check_case, cohort=cohort, judge=judge, load=load)
    rows = thread_map(check, find_cases(dataset_dir, cohort), desc=f"cases of {cohort.name}", unit="case")
    first: dict[str, str] = {}
    for row in rows:
        others = {first.setdefault(digest, row["case"]) for digest in row["digests"]} - {row["case"]}
        shared = [f"it shares an image with {other}" for other in sorted(others)]
        row["problems"] = "; ".join(filter(None, [row["problems"], *shared]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_case(item: Item, cohort: Cohort, judge: Judge | None, load: Load) -> dict[str, object]:
    """Return the row of a case, with the ``digests`` of its images."""
    problems = [str(found)] if (found := differing_files(item)) else []
    volumes: dict[str, MetaTensor] = {}
    opened: dict[str, MetaTensor] = {}
    channels = item.get("channels", [None] * len(item["image"]))
    for name, path, channel in zip(item["modalities"], item["image"], channels, strict=True):
        try:
            volumes[name] = read_modality(path, channel, opened)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    digests = [hashlib.sha256(np.ascontiguousarray(image.numpy()).data).hexdigest() for image in volumes.values()]
    flaws = list(findings(volumes, cohort))
    if judge is not None:
        unusable = {flaw.modalities for flaw in flaws if flaw.fatal or flaw.skull}
        flaws += judge({name: image for name, image in volumes.items() if (name,) not in unusable})
    problems += [f"{' and '.join(flaw.modalities)}: {flaw.what}" for flaw in flaws]
    values: list[float] = []
    if "label" in item:
        try:
            volumes["label"] = label_map(read_volume(item["label"]), item["label"])
            every = torch.unique(volumes["label"].as_tensor()).tolist()
            fractions = [v for v in every if not v.is_integer()]  # thousands if the label was interpolated
            values = [v for v in every if v.is_integer()] + fractions[:1]
            cohort_of(item, cohort).labels.check(
                [int(v) if v.is_integer() else v for v in every], Path(item["label"]).name
            )
        except (OSError, ValueError) as error:
            problems.append(str(error))
    row: dict[str, object] = {}
    if volumes:
        first, reference = next(iter(volumes.items()))
        differences = {name: grid_difference(volume, reference) for name, volume in volumes.items()}
        problems += [f"{name}: not on the grid of {first}: {text}" for name, text in differences.items() if text]
        row = {
            "shape": "x".join(map(str, reference.shape)),
            "spacing_mm": "x".join(f"{size:.4g}" for size in voxel_sizes(reference.affine.numpy())),
            "orientation": "".join(aff2axcodes(reference.affine.numpy())),
        }
    if load is not None and "label" in item and not problems:
        try:
            load(item)
        except Exception as error:  # whatever would end a training
            problems.append(f"a training could not read it: {error}")
    return row | {
        "case": item["case"],
        "modalities": "+".join(item["modalities"]),
        "missing": "+".join(name for name in cohort.modalities if name not in item["modalities"]),
        "label_values": " ".join(f"{value:g}" for value in values),
        "problems": "; ".join(problems),
        "digests": digests,
    }
