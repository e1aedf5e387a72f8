"""Training cases made of others: brains without a tumour, and the lesions of other patients pasted into them.

``python docs/open_glioma/long_run/pasted.py DATA SPLIT OUT``: of the training cases of a split of the open cases.

A lesion is taken with a rim of the tissue around it, its intensities are brought to those of the other brain, and it is
blended in where it lay, or on the other side. Source: Zhang et al., "CarveMix", MICCAI 2021, which pastes into brains
that have lesions of their own; ours have none (`mirrored`), so that what is not marked is healthy.
"""

import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
from mirrored import without_tumour
from scipy.ndimage import binary_dilation, center_of_mass, find_objects, gaussian_filter
from tqdm import tqdm

from common.cohorts import prepare

RIM = 4
"""Voxels (1 mm) around a lesion that are pasted with it, and fade."""
OUTSIDE = 0.03
"""Largest share of a pasted lesion that may lie outside the brain."""
SHIFT = 6
"""Largest distance in voxels (1 mm) along each axis by which a lesion is moved."""
TRIES = 8


@dataclass(frozen=True)
class Brain:
    """A case: ``images`` ``(M, X, Y, Z)`` of voxels of 1 mm in RAS, with a background of 0, and its label map."""

    name: str
    files: list[str]
    images: np.ndarray
    label: np.ndarray

    @classmethod
    def read(cls, item: dict) -> Self:
        """Read an item of a datalist."""
        volumes = [nib.as_closest_canonical(nib.load(path)) for path in [*item["image"], item["label"]]]
        voxels = [np.asarray(volume.dataobj).astype(np.float32) for volume in volumes]
        return cls(item["case"], item["modalities"], np.stack(voxels[:-1]).clip(min=0), voxels[-1].round())

    def healthy(self) -> Self | None:
        """Return the brain with the tumour's half replaced by the mirror image of the other; None if that cannot be."""
        box = (slice(None), *find_objects((self.images.max(axis=0) > 0).astype(int))[0])
        half = without_tumour(self.images[box], self.label[box[1:]] > 0)
        if half is None:
            return None
        images = np.zeros_like(self.images)
        images[box] = half
        return type(self)(self.name, self.files, images, np.zeros_like(self.label))

    @cached_property
    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return median and interquartile range of each modality over the brain without its lesion."""
        ill = binary_dilation(self.label > 0, iterations=2)
        values = [image[(image > 0) & ~ill] for image in self.images]
        low, middle, high = np.array([np.percentile(each, [25, 50, 75]) for each in values]).T
        return middle, high - low

    def write(self, folder: Path) -> dict:
        """Write NIfTI files and return their item of a datalist, with paths relative to the folder above."""
        folder.mkdir(parents=True, exist_ok=True)
        item = {"case": folder.name, "image": [], "modalities": self.files, "label": f"{folder.name}/seg.nii.gz"}
        for name, image in zip(self.files, self.images, strict=True):
            item["image"].append(f"{folder.name}/{name}.nii.gz")
            nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(self.label.astype(np.uint8), np.eye(4)), folder / "seg.nii.gz")
        return item


def paste(lesion: Brain, into: Brain, random: np.random.RandomState) -> Brain | None:
    """Return a healthy brain with the lesion of another, near the place where it lay, or None if it does not fit.

    Both brains lie in one atlas up to a shift. One time in two the lesion's brain is mirrored left to right first.
    """
    side = slice(None, None, -1) if random.rand() < 0.5 else slice(None)
    images, label = lesion.images[:, side], lesion.label[side]
    offset = np.subtract(center_of_mass(into.images.max(axis=0) > 0), center_of_mass(images.max(axis=0) > 0))
    offset = (offset.round() + random.randint(-SHIFT, SHIFT + 1, 3)).astype(int)
    label = np.roll(label, offset, (0, 1, 2))  # only background is moved across the edges
    brain = into.images.min(axis=0) > 0
    if not (label > 0).any() or (~brain[label > 0]).mean() > OUTSIDE:
        return None
    images = np.roll(images, offset, (1, 2, 3))
    share = gaussian_filter(binary_dilation(label > 0, iterations=RIM // 2).astype(np.float32), RIM / 4)
    share *= brain & (images.min(axis=0) > 0)
    (middle, spread), (own_middle, own_spread) = lesion.scale, into.scale
    factor = np.reshape(own_spread / spread, (-1, 1, 1, 1))
    fitted = (images - middle.reshape(-1, 1, 1, 1)) * factor + own_middle.reshape(-1, 1, 1, 1)
    mixed = share * fitted.clip(min=1) + (1 - share) * into.images
    return Brain(f"{lesion.name}_in_{into.name}", into.files, mixed, np.where(brain, label, 0))


def write_brains(
    items: list[dict], folder: Path, each: int = 2, seed: int = 0
) -> tuple[list[Brain], list[dict], list[dict]]:
    """Write brains without a tumour, and ``each`` lesion pasted into so many others.

    Returns the former as images too, and the items of both.
    """
    random = np.random.RandomState(seed)
    brains = [Brain.read(item) for item in tqdm(items, unit="case", desc="reading")]
    healthy = [half for brain in tqdm(brains, unit="case", desc="mirroring") if (half := brain.healthy()) is not None]
    empty = [half.write(folder / f"healthy_{half.name}") for half in healthy]
    pasted = []
    for brain in tqdm(brains, unit="case", desc="pasting"):
        hosts = [half for half in healthy if half.name != brain.name]
        random.shuffle(hosts)
        found = 0
        for host in hosts[:TRIES]:
            if found < each and (mixed := paste(brain, host, random)) is not None:
                pasted.append(mixed.write(folder / mixed.name))
                found += 1
    return healthy, empty, pasted


def write_datalist(groups: list[tuple[list[dict], float]], folder: Path) -> Path:
    """Write a datalist of groups of items, each with its share of all draws; return its path.

    Within a group an item is drawn in proportion to its ``weight``, 1 if it has none.
    """
    training = []
    for items, share in groups:
        total = sum(item.get("weight", 1) for item in items)
        training += [{**item, "weight": share * item.get("weight", 1) / total} for item in items]
    path = folder / "datalist.json"
    path.write_text(json.dumps({"cohort": "open_glioma", "training": training}, indent=1))
    print(f"{path}: {', '.join(str(len(items)) for items, _ in groups)} cases")
    return path


def write_pasted(
    items: list[dict], output_dir: str, each: int = 2, seed: int = 0, shares: tuple[float, float] = (0.04, 0.25)
) -> Path:
    """Write `write_brains`, and the datalist of the given items and the new ones; return its path.

    Of all draws, brains without a tumour get the first of ``shares``, those with a pasted lesion the second.
    """
    out = Path(output_dir).absolute()
    _, empty, pasted = write_brains(items, out, each, seed)
    return write_datalist([(items, 1 - sum(shares)), (empty, shares[0]), (pasted, shares[1])], out)


if __name__ == "__main__":
    data, split, out = sys.argv[1:]
    write_pasted(prepare("open_glioma", data, split, None, 0)["training"], out)
