"""What the voxels of a data set say before anything is trained: the values of labels, and images that occur twice."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from common.cohorts.scan import Item
from common.io.images import read_volume
from common.io.kept import for_each_file

Values = tuple[int | float, ...]
"""The values in a label, ascending."""


def label_values(items: Iterable[Item]) -> dict[str, Values]:
    """Return the values in each label, by its path; raises ValueError if a label cannot be read."""
    paths = dict.fromkeys(item["label"] for item in items if "label" in item)
    return {path: tuple(found) for path, found in for_each_file(_values, paths, "label values").items()}


def same_images(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Return pairs of cases with different names that share an image; images read before are not read again.

    Images are first compared by their middle planes, which takes a tenth of the time. Those with equal planes are then
    compared by a digest of their voxels, so copies with other names, headers or data types are found. Raises ValueError
    if an image cannot be read, or has several volumes although its item names no channels.
    """
    of_cases: dict[str, set[str]] = defaultdict(set)
    stacked = {path: "channels" in item for item in items for path in item["image"]}
    looks = for_each_file(_plane, stacked, "planes of images")
    for path, (_, volumes) in looks.items():
        if volumes > 1 and not stacked[path]:
            raise ValueError(
                f"{path}: {volumes} volumes in one file; expected one volume (X, Y, Z) per modality. Split the file, "
                "or choose cohort msd_task01 if it has FLAIR, T1, T1c and T2 in this order."
            )
    planes = {path: plane for path, (plane, _) in looks.items()}
    for item in items:
        for path in item["image"]:
            of_cases[planes[path]].add(item["case"])
    alike = [path for path, plane in planes.items() if len(of_cases[plane]) > 1]
    digests = {**planes, **for_each_file(lambda path: _hash(read_volume(path).numpy()), alike, "image digests")}
    first: dict[str, Item] = {}
    pairs: dict[tuple[str, str], tuple[Item, Item]] = {}
    for item in items:
        for path in item["image"]:
            other = first.setdefault(digests[path], item)
            if other["case"] != item["case"]:
                pairs[other["case"], item["case"]] = (other, item)
    return list(pairs.values())


def _values(path: str) -> list[int | float]:
    voxels = read_volume(path).numpy()
    inside = voxels[voxels != 0]
    found = ([0.0] if inside.size < voxels.size else []) + np.unique(inside).tolist()
    return sorted(int(value) if float(value).is_integer() else value for value in found)


def _plane(path: str) -> list[Any]:
    """Return a digest of the middle plane, before which a NIfTI file is decompressed, and the number of volumes."""
    try:
        image = nib.load(path)
        shape, plane = image.shape, np.asarray(image.dataobj[:, :, image.shape[2] // 2], dtype=np.float32)
    except Exception:  # another format, or a file that read_volume refuses with its name
        volume = read_volume(path).numpy()
        shape, plane = volume.shape, volume[:, :, volume.shape[2] // 2]
    return [_hash(plane), math.prod(shape[3:])]


def _hash(voxels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(voxels.squeeze()), usedforsecurity=False).hexdigest()
