"""The training cases of a member: four parts of split ``cv53``, what is made of them, and two heads without a tumour.

``python docs/open_glioma/members/data.py DATA HEADS SPLIT SEED OUT``: ``DATA`` has the open cases, ``HEADS`` a folder
for each head, with its sequences as ``t1.nii.gz`` and so on. Prints how often a brain without a tumour is drawn.
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_dilation, binary_fill_holes, distance_transform_edt, gaussian_filter, label

from common.cohorts import get_cohort, prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "long_run"))
from pasted import Brain, write_brains, write_datalist

SHARES = {"real": 0.82, "pasted": 0.10, "mirrored": 0.03, "aged": 0.03, "heads": 0.02}
"""Share of each kind of case in all draws; the last three have no tumour."""
DEPTH = 25
"""Voxels (1 mm) of brain around the middle of the ventricles."""


def ventricles(t2: np.ndarray, flair: np.ndarray) -> np.ndarray:
    """Return the lateral ventricles of a brain of 1 mm: deep voxels, bright in T2 and dark in FLAIR; bool."""
    brain = binary_fill_holes(t2 > 0)
    fluid = (t2 > np.percentile(t2[brain], 85)) & (flair < np.percentile(flair[brain], 25))
    parts, count = label(fluid & (distance_transform_edt(brain) > DEPTH))
    if not count:
        return np.zeros_like(brain)
    sizes = np.bincount(parts.ravel())[1:]
    return np.isin(parts, 1 + np.flatnonzero(sizes > max(50, sizes.max() / 10)))


def aged(brain: Brain, random: np.random.RandomState) -> Brain | None:
    """Return a brain with white-matter changes of old age: bright caps and bands along the ventricles of FLAIR and T2.

    A band is 1 to 5 mm wide and a cap, before and behind the ventricles, up to twice that. The width varies from place
    to place (log-normal, 0.5), so that some patches lie deeper. None if no ventricles are found. Fazekas et al., AJR
    1987, describe such changes.
    """
    images = dict(zip(brain.files, brain.images, strict=True))
    inner = ventricles(images["t2"], images["flair"])
    if inner.sum() < 500:
        return None
    inside = brain.images.min(axis=0) > 0
    distance = distance_transform_edt(~binary_dilation(inner))
    front, back = np.percentile(np.nonzero(inner)[1], [5, 95])
    along = np.abs(2 * (np.arange(inner.shape[1]) - front) / (back - front) - 1).reshape(1, -1, 1)
    uneven = gaussian_filter(random.randn(*inner.shape), 4)
    width = random.uniform(1, 5) * (1 + np.clip(along, 0, 1) ** 4) * np.exp(0.5 * uneven / uneven.std())
    fluid = (images["flair"] < np.percentile(images["flair"][inside], 25)) | inner
    share = gaussian_filter(((distance < width) & inside & ~fluid).astype(np.float32), 0.8) * (inside & ~inner)
    for name, low, high in (("flair", 1.2, 1.8), ("t2", 1.2, 1.6)):
        bright = random.uniform(low, high) * np.median(images[name][inside])
        images[name] = images[name] + share * np.clip(bright - images[name], 0, None)
    return Brain(f"aged_{brain.name}", brain.files, np.stack([images[name] for name in brain.files]), brain.label)


def read_head(folder: Path) -> Brain:
    """Return a head that has all sequences and no tumour."""
    names = [*get_cohort("open_glioma").modalities]
    volumes = [nib.as_closest_canonical(nib.load(folder / f"{name}.nii.gz")) for name in names]
    images = np.stack([np.asarray(each.dataobj).astype(np.float32) for each in volumes]).clip(min=0)
    return Brain(f"head_{folder.name}", names, images, np.zeros(images.shape[1:], np.uint8))


def rates(items: list[dict]) -> list[dict]:
    """Give items weights: both sources half of all draws, and a case without enhancing tumour twice that of another."""
    twice = [2 if not (np.asarray(nib.load(item["label"]).dataobj) > 2).any() else 1 for item in items]
    african = ["SSA" in item["case"] for item in items]
    total = {kind: sum(n for n, k in zip(twice, african, strict=True) if k == kind) for kind in (False, True)}
    return [{**item, "weight": n / total[kind]} for item, n, kind in zip(items, twice, african, strict=True)]


def write(data: str, heads: Path, split: str, seed: int, out: Path) -> Path:
    """Write all cases and their datalist, and return its path."""
    random = np.random.RandomState(seed)
    items = rates(prepare("open_glioma", data, split)["training"])
    weight = {item["case"]: item["weight"] for item in items}
    healthy, mirrored, pasted = write_brains(items, out, seed=seed)
    pasted = [{**item, "weight": weight[item["case"].split("_in_")[0]]} for item in pasted]
    old = [grey.write(out / grey.name) for brain in healthy if (grey := aged(brain, random)) is not None]
    others = [(brain := read_head(folder)).write(out / brain.name) for folder in sorted(heads.iterdir())]
    groups = dict(zip(SHARES, (items, pasted, mirrored, old, others), strict=True))
    without = [item for name in ("mirrored", "aged", "heads") for item in groups[name]]
    if any(item["modalities"] != items[0]["modalities"] for item in without):
        raise ValueError(
            "a brain without a tumour lacks a sequence: expected all, else one alone would mean no tumour."
        )
    print(f"without a tumour: {100 * (1 - SHARES['real'] - SHARES['pasted']):.0f} % of the draws of each of 15 subsets")
    return write_datalist([(groups[name], share) for name, share in SHARES.items()], out)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]).absolute())
