"""Checks of a data folder: which modalities each case has, which are missing, and whether the files can be used."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from scipy import ndimage

from common.cohorts import get_cohort
from common.cohorts.cohort import Cohort
from common.cohorts.fitting import doubt_patients, refuse_other_names, refuse_other_values
from common.cohorts.scan import Item, find_cases, named_after
from common.cohorts.voxels import same_images
from common.io.geometry import corner_distance, grid_difference, lengths
from common.io.images import read_volume
from common.io.kept import for_each
from common.modalities import GLIOMA, display_name
from common.text import printable, shortened

BACKGROUND_FRACTION = 0.3  # minimum fraction of background voxels in a skull-stripped image (in BraTS it is about 0.8)
CUT = 0.5  # a brain counts as cut off at a face if its cross-section there exceeds this fraction of its largest one
BEYOND = 1e9  # size of a value that no MR image has; a single such voxel would spoil the normalisation
COARSER = 1.5  # factor by which voxels may be longer than those of the training before a warning
MOST_TILTED = 15.0  # maximum angle in degrees between an image's axes and the patient's; in atlas space the angle is 0
COLUMNS = (
    "case", "modalities", "missing", "shape", "spacing_mm", "orientation", "offset_mm", "label_values", "problems",
)  # fmt: skip


def check_folder(cohort: Cohort, dataset_dir: str | os.PathLike) -> pd.DataFrame:
    """Check every case in a folder and return one row for each; only new or changed images are read.

    Columns: ``case``; ``modalities`` present and ``missing`` (joined by +); ``shape``, ``spacing_mm`` and
    ``orientation`` (e.g. LPS) of the first modality; ``offset_mm``, the largest distance between corresponding corners
    of its grid and another file's grid of the same shape; ``label_values`` that occur (empty without a label);
    ``problems``, empty if the case can be used. Problems are unreadable files, differing grids, NaN or Inf, constant
    images, images that do not look like a whole skull-stripped brain (if the cohort is skull-stripped) or like the
    sequence they are named after, one image given twice, and label values that the cohort does not define. A missing
    modality or label is not a problem.
    """
    items = find_cases(dataset_dir, cohort)
    rows = for_each(
        partial(_check_case, cohort=cohort),
        items,
        lambda item: [*item["image"], *([item["label"]] if "label" in item else [])],
        f"check {cohort.name}",
        "case",
    )
    return pd.DataFrame(rows, columns=COLUMNS)


def print_check(name: str, dataset_dir: str | os.PathLike) -> bool:
    """Print the table of `check_folder` and the problems of cases and folder; return True if there are none.

    Cases that may be one patient's are logged as a warning.
    """
    cohort = get_cohort(name)
    table = check_folder(cohort, dataset_dir)
    bad = table[table["problems"] != ""]
    counts = f"{len(table)} cases, {len(bad)} with problems"
    if unlabelled := (table["label_values"] == "").sum():
        counts += f", {unlabelled} without a readable label"
    items = find_cases(dataset_dir, cohort)
    used = {Path(path) for item in items for path in item["image"]}
    if ignored := sum(role is None and path not in used for path, role in named_after(dataset_dir, cohort).items()):
        counts += f"; image files ignored because of their names: {ignored}"
    print(printable(table.drop(columns="problems").to_string(index=False, na_rep="")))
    said = list(_of_the_whole(items, cohort, dataset_dir))
    doubt_patients(items, dataset_dir)
    print(printable("\n".join([counts, *(bad["case"] + ": " + bad["problems"]), *said])))
    return bad.empty and not said


def _of_the_whole(items: list[Item], cohort: Cohort, dataset_dir: str | os.PathLike) -> Iterator[str]:
    """Yield problems that no case has by itself: names and values of other cohorts, and images that occur twice."""
    for look in (refuse_other_names, refuse_other_values):
        try:
            look(items, cohort, dataset_dir)
        except ValueError as error:
            yield str(error)
    try:
        pairs = same_images(items)
    except ValueError as error:
        yield f"Cases that share an image are not looked for until all images can be used: {error}"
        return
    if pairs:
        yield f"Cases that share an image: {shortened(' and '.join((a['case'], b['case'])) for a, b in pairs)}."


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


def findings(images: Mapping[str, MetaTensor], cohort: Cohort, sequences: bool = True) -> Iterator[Finding]:
    """Check volumes ``(X, Y, Z)`` that should be one subject's modalities. All rules for a single subject are here.

    Images of a skull-stripped cohort should show a brain whose volume is within ``brain_ml``. With ``sequences``, the
    images are also compared with the sequences they are named after; see `doubted_sequences`.
    """
    from common.cohorts.sequence_check import log_probabilities  # a network, which not everyone needs

    brains = dict(images)
    for name, image in images.items():
        voxels = image.as_tensor()
        bad = int((~torch.isfinite(voxels)).sum())
        if bad:
            del brains[name]
            yield Finding((name,), f"{bad} voxels are NaN or Inf", "Repair the file, or leave this modality out.")
            continue
        low, high = (float(end) for end in voxels.aminmax())
        if low == high:
            del brains[name]
            remedy = "An empty image is not a modality; leave it out: absent modalities are handled."
            yield Finding((name,), f"every voxel is {low:g}", remedy)
        elif max(-low, high) > BEYOND:
            del brains[name]
            what = f"{int((voxels.abs() > BEYOND).sum())} voxels are beyond {BEYOND:g} (from {low:g} to {high:g})"
            yield Finding((name,), what, "No MR image has such values: repair the file, or leave this modality out.")
        elif cohort.skull_stripped:
            for found in _unlike_a_brain(name, image, *cohort.brain_ml):
                if found.skull:
                    brains.pop(name)
                yield found
    if sequences and has_known_sequences(cohort):
        yield from doubted_sequences(log_probabilities(brains))
    for pair in combinations(images, 2):
        one, other = (images[name].as_tensor() for name in pair)
        if torch.equal(one, other):
            remedy = "Give each image once and leave the missing modality out."
            yield Finding(pair, "the same image", remedy)


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
        return image - value
    return torch.where(around, 0.0, image)


def has_known_sequences(cohort: Cohort) -> bool:
    """Return whether `common.cohorts.sequence_check` can tell which sequences a cohort's images show."""
    return cohort.skull_stripped and set(GLIOMA) <= set(cohort.modalities)


def doubted_sequences(judged: Mapping[str, torch.Tensor]) -> Iterator[Finding]:
    """Yield non-fatal findings on images that seem to show another sequence, given their `log_probabilities`."""
    from common.cohorts.sequence_check import contradictions

    for doubt in contradictions(judged):
        (name, seems), *others = doubt.seems.items()
        if others:
            what = f"judging by their content, {display_name(name)} and {display_name(seems)} are exchanged"
        elif seems == "other":
            what = f"it does not look like {display_name(name)}; it may be a subtraction, a map or no image of a brain"
        else:
            what = f"it does not look like {display_name(name)}, but like {display_name(seems)}"
            if seems in judged:
                what = f"{what}, so {display_name(name)} and {display_name(seems)} may have been exchanged"
        yield Finding(tuple(doubt.seems), what, "Look at it, and rename it or leave it out.", fatal=False)


def _unlike_a_brain(name: str, image: MetaTensor, least: float, most: float) -> Iterator[Finding]:
    """Yield a finding if a skull is visible, or a whole brain is too small: the voxels that are not 0 count, in ml."""
    there, affine = image.as_tensor() != 0, image.affine.numpy()
    zeros = float((~there).float().mean())
    found = int(there.sum()) * abs(np.linalg.det(affine[:3, :3])) / 1000
    size = lengths(voxel_sizes(affine))
    strip = "The networks are trained on brains with background 0; strip the skull first."
    if zeros < BACKGROUND_FRACTION:
        yield Finding((name,), f"not skull-stripped ({zeros:.0%} of the voxels are 0)", strip, fatal=False, skull=True)
    elif found > most:  # some scanners set the air around a head to 0
        what = f"not skull-stripped ({found:.0f} ml are not 0; a brain has up to {most:.0f})"
        remedy = f"{strip} Or is its voxel size wrong, {size} mm?"
        yield Finding((name,), what, remedy, fatal=False, skull=True)
    elif found < least and whole(there):
        what = f"a whole brain of only {found:.0f} ml, with voxels of {size} mm; expected {least:.0f} to {most:.0f} ml"
        remedy = "Is the voxel size in the file right? If not, correct it: otherwise result and volumes will be wrong."
        yield Finding((name,), what, remedy, fatal=False)


def whole(there: torch.Tensor) -> bool:
    """Return whether a mask ``(X, Y, Z)`` tapers off on all sides, as a whole brain does but a slab does not."""
    for axis in range(3):
        areas = there.sum(dim=[other for other in range(3) if other != axis])
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
    """Describe the first volume's grid and the others' distance from it; append differences to the problems."""
    (first, reference), *others = volumes.items()
    largest = 0.0
    for name, volume in others:
        if difference := grid_difference(volume, reference):
            problems.append(f"{name}: not on the grid of {first}: {difference}")
        if volume.shape == reference.shape:
            apart = corner_distance(np.asarray(volume.affine), np.asarray(reference.affine), reference.shape)
            largest = max(largest, apart)
    affine = reference.affine.numpy()
    return {
        "shape": _by(reference.shape),
        "spacing_mm": _by(f"{size:.4g}" for size in voxel_sizes(affine)),
        "orientation": "".join(aff2axcodes(affine)),
        "offset_mm": round(largest, 3),
    }


def _read(item: Item, problems: list[str]) -> tuple[dict[str, MetaTensor], MetaTensor | None]:
    """Return those of a case's images and label that can be read; append to the problems why others cannot."""
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
            problems.append(f"{path}: shape {_by(opened[path].shape)}; expected one volume (X, Y, Z) per modality")
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
