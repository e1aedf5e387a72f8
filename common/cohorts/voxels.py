"""What the voxels of a data set say before anything is trained: the values of labels, and images that occur twice."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from common.cohorts.scan import Item
from common.io.images import read_volume
from common.io.kept import for_each_file

Values = tuple[int | float, ...]
"""The values in a label, ascending."""


def label_values(items: Iterable[Item]) -> dict[str, Values]:
    """Return the values in each label, by its path; a label that cannot be read is a ValueError."""
    paths = dict.fromkeys(item["label"] for item in items if "label" in item)
    return {path: tuple(found) for path, found in for_each_file(_values, paths, "label values").items()}


def same_images(items: Sequence[Item]) -> list[tuple[Item, Item]]:
    """Return pairs of cases, of different names, that share an image; images looked at before are not read again.

    Images are compared by a digest of their voxels, so that copies with other names, headers or data types are found.
    Raises ValueError if an image cannot be read.
    """
    digests = for_each_file(_digest, dict.fromkeys(path for item in items for path in item["image"]), "image digests")
    first: dict[str, Item] = {}
    pairs: dict[tuple[str, str], tuple[Item, Item]] = defaultdict()
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


def _digest(path: str) -> str:
    voxels = np.ascontiguousarray(read_volume(path).numpy())
    return hashlib.sha256(voxels, usedforsecurity=False).hexdigest()
