"""Which sequence an image of a brain is, by what it shows: T1, T1c, T2, FLAIR, or none of them.

On a coarse grid an image is described by the quantiles of its intensities, of its contrast against the neighbourhood
and of its fine detail, at several depths below the brain's surface; and, beside another image of the study, by how the
ranks of the two are related (fluid is bright in T2 alone; after contrast agent vessels are bright that were not). A
small network of one hidden layer turns this into probabilities. It was trained on the open glioma cases, see
``data/content.md``, and knows adults' brains without skull only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, io_orientation
from scipy.ndimage import distance_transform_edt, find_objects, uniform_filter
from torch import nn
from torch.nn.functional import adaptive_avg_pool3d, avg_pool3d

from common.io.checkpoints import load_weights

SEQUENCES = ("t1", "t1c", "t2", "flair")
CLASSES = (*SEQUENCES, "other")
"""What an image may be; the last is a subtraction, a map or no image of a brain at all."""
SPACING = 3.0
"""mm of the voxels that are looked at."""
LEAST_ML = 100.0
"""ml of a brain, or a part of one, without its surface below which nothing is said."""
SURE = 3.0
"""Least logarithm of the odds against a name with which it is doubted."""
ALONE_TRUST = 0.6
"""By how much the logits of an image that is looked at alone are made smaller: it is less sure than it seems."""
LEAST_FILLED = 0.9
"""Share of the voxels in cubes of 27 of a brain, the median, that are not 0. Of 17 open cases all 68 images have 1, and
the 17 subtractions without what is negative 0.30 to 0.74: their zeros would else count as background."""
WEIGHTS = Path(__file__).parent / "data" / "content.pt"

SURFACE = 2.5
"""Voxels from the brain's surface within which remains of the head may lie."""
DEPTHS = (0, 1.1, 2.5, 4.5, 7, np.inf)
"""Voxels from the surface between which intensities are described apart."""
TAILS = (0.2, 1, 2, 5, 20, 35, 65, 80, 95, 98, 99, 99.8)
"""Percentiles that describe the whole brain."""
PERCENTILES = (2, 10, 30, 50, 70, 90, 98)
"""Percentiles that describe a depth."""
ALONE = 3 * (len(TAILS) + (len(DEPTHS) - 1) * len(PERCENTILES) + 1)
"""Numbers that describe an image."""
TOGETHER = 2 * (2 * 12 + 5)
"""Numbers that describe how two are related."""


class Described:
    """What is known of an image ``(X, Y, Z)`` on a coarse grid, 0 outside the brain.

    Attributes:
        inside: the brain without its surface, bool.
        layers: the image and its contrast against the neighbourhood, scaled.
        ranks: of both, each voxel's among those inside, between 0 and 1.
        numbers: `ALONE` of them; NaN where `is_enough` is not true.
    """

    def __init__(self, image: np.ndarray) -> None:
        brain = image != 0
        depth = distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1]
        self.inside = depth > SURFACE
        if not is_enough(self.inside):
            self.numbers = np.full(ALONE, np.nan, np.float32)
            return
        image = _scaled(image, self.inside, 6)
        contrast = _scaled(image - _mean_around(_mean_around(image, brain, 7), brain, 7), self.inside, 8)
        detail = image - _mean_around(image, brain, 3)
        self.layers = (image, contrast)
        self.ranks = tuple(_ranks(layer, self.inside) for layer in self.layers)
        zones = [brain & (depth > low) & (depth <= high) for low, high in pairwise(DEPTHS)]
        numbers: list[float] = []
        for layer in (image, contrast, detail):
            within = layer[self.inside]
            numbers += [*np.percentile(within, TAILS), _skewness(within)]
            for zone in zones:
                numbers += [*np.percentile(layer[zone], PERCENTILES)] if zone.any() else [0.0] * len(PERCENTILES)
        self.numbers = np.array(numbers, np.float32)


def related(one: Described, other: Described) -> tuple[np.ndarray, np.ndarray]:
    """Return `TOGETHER` numbers on how an image is related to another one of its grid, and on the other to the one.

    For each layer, how the ranks in either depend on those in the other, how they are correlated, and whether what is
    bright in one only is bright in the first (above 0) or in the second: after contrast agent that are the vessels.
    """
    inside = one.inside & other.inside
    dependent: list[list[float]] = [[], []]
    alike, unlike = [], []
    for layers, ranks in zip(
        zip(one.layers, other.layers, strict=True), zip(one.ranks, other.ranks, strict=True), strict=True
    ):
        first, second = (layer[inside] for layer in layers)
        ranked = tuple(rank[inside] for rank in ranks)
        for means, (mine, theirs) in zip(dependent, (ranked, ranked[::-1]), strict=True):
            tenth = np.minimum((theirs * 10).astype(int), 9)
            means += [*np.bincount(tenth, mine, 10) / np.maximum(np.bincount(tenth, minlength=10), 1)]
            means += [mine[end].sum() / max(end.sum(), 1) for end in (theirs > 0.98, theirs < 0.02)]
        alike.append(_correlation(*ranked))
        brighter, darker = (((a > 0.98) & (b < 0.6)).mean() + 2e-4 for a, b in (ranked, ranked[::-1]))
        low, middle, high = np.percentile(first - second, (0.2, 50, 99.8))
        unlike += [
            np.log(brighter / darker),
            _skewness(ranked[0] - ranked[1]),
            _skewness(first - second),
            high + low - 2 * middle,
        ]
    there = [*dependent[0], *dependent[1], *alike, *unlike]
    back = [*dependent[1], *dependent[0], *alike, *np.negative(unlike)]
    return np.array(there, np.float32), np.array(back, np.float32)


def features(images: Sequence[Described]) -> np.ndarray:
    """Return what the network is given ``(M, M, 2 * ALONE + TOGETHER)``: of images beside each other, and alone.

    What is known of no other image is NaN.
    """
    made = np.full((len(images), len(images), 2 * ALONE + TOGETHER), np.nan, np.float32)
    for index, image in enumerate(images):
        made[index, :, :ALONE] = image.numbers
    for (i, one), (j, other) in combinations(enumerate(images), 2):
        if is_enough(one.inside & other.inside):
            made[i, j, ALONE : 2 * ALONE], made[j, i, ALONE : 2 * ALONE] = other.numbers, one.numbers
            made[i, j, 2 * ALONE :], made[j, i, 2 * ALONE :] = related(one, other)
    return made


class ContentNetwork(nn.Module):
    """Tell sequences apart: `features` ``(B, N)``, NaN where there is no other image, to logits ``(B, 5)``.

    Attributes:
        mean: of the features ``(N,)``, by which they are centred.
        std: by which they are scaled.
    """

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        inputs = 2 * ALONE + TOGETHER
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(inputs + 1, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, len(CLASSES))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        beside = ~features[:, -1:].isnan()
        scaled = ((features - self.mean) / self.std).clamp(-4, 4).nan_to_num(0.0)
        return self.layers(torch.cat([scaled, beside.float()], dim=1))


def on_coarse_grid(images: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Average images ``(C, X, Y, Z)`` of one grid over voxels of `SPACING`, RAS, in the box of what is not 0.

    Voxels of 0, the background, count for nothing; where they are more than half, the result is 0.
    """
    turn = io_orientation(affine)
    voxels = torch.from_numpy(np.stack([apply_orientation(image, turn) for image in images.float().numpy()]))
    sizes = voxel_sizes(affine)[np.argsort(turn[:, 0])]
    shown = (voxels != 0).any(dim=0)
    if not shown.any():
        return np.zeros((len(images), 1, 1, 1), np.float32)
    ends = [torch.where(shown.any(dim=tuple({0, 1, 2} - {axis})))[0][[0, -1]].tolist() for axis in range(3)]
    voxels = voxels[(slice(None), *(slice(first, last + 1) for first, last in ends))]
    shape = [max(round(n * size / SPACING), 1) for n, size in zip(voxels.shape[1:], sizes, strict=True)]
    data = adaptive_avg_pool3d((voxels != 0).float(), shape)
    return torch.where(data > 0.5, adaptive_avg_pool3d(voxels, shape) / data.clamp(min=0.1), 0.0).numpy()


class Contradiction(NamedTuple):
    """Images that seem to show other sequences than they are named after.

    Attributes:
        seems: the name of each -> what it shows instead, one of `CLASSES`.
        odds: how many times likelier this is than what the names say, as the natural logarithm.
    """

    seems: dict[str, str]
    odds: float


def likelihoods(images: Mapping[str, MetaTensor]) -> dict[str, torch.Tensor]:
    """Return the logarithm of the probability of each of `CLASSES`, ``(5,)``, for images of one subject's brain.

    Each is looked at beside the others if they lie on one grid, else alone. What shows less than `LEAST_ML` is left
    out: nothing can be told of it. What is full of holes (`LEAST_FILLED`) is none of the sequences.

    Args:
        images: by name, ``(X, Y, Z)`` with its affine to mm, RAS; 0 outside the brain.
    """
    if not images:
        return {}
    grids = {(tuple(image.shape), tuple(image.affine.flatten().tolist())) for image in images.values()}
    if len(grids) > 1:
        return {name: found for name in images for found in likelihoods({name: images[name]}).values()}
    stack = torch.stack([image.as_tensor().float() for image in images.values()])
    coarse = on_coarse_grid(stack, next(iter(images.values())).affine.numpy())
    holed = [name for name, volume in zip(images, stack, strict=True) if _filled(volume) < LEAST_FILLED]
    none = torch.full((len(CLASSES),), -2 * SURE)
    none[CLASSES.index("other")] = 0.0
    described = {name: Described(image) for name, image in zip(images, coarse, strict=True) if name not in holed}
    usable = {name: image for name, image in described.items() if is_enough(image.inside)}
    said = dict.fromkeys(holed, none)
    if usable:
        said |= zip(usable, beside_others(_network(), features([*usable.values()])), strict=True)
    return {name: said[name] for name in images if name in said}


def beside_others(network: nn.Module, given: np.ndarray) -> torch.Tensor:
    """Return the logarithms of the probabilities ``(M, 5)`` of images: each one's mean over the others.

    Args:
        network: a `ContentNetwork`.
        given: `features` of the images ``(M, M, N)``.
    """
    said = []
    for index, row in enumerate(given):
        others = [other for other in range(len(given)) if not np.isnan(row[other, -1])]
        with torch.no_grad():
            logits = network(torch.from_numpy(row[others or [index]]))
        said.append((logits if others else ALONE_TRUST * logits).log_softmax(dim=1).mean(dim=0))
    return torch.stack(said)


def contradictions(said: Mapping[str, torch.Tensor]) -> list[Contradiction]:
    """Find images whose content contradicts their names: two that are exchanged, and single ones, the surest first.

    Args:
        said: sequence -> what `likelihoods` says of its image; names that are no sequence's are left out.
    """
    said = {name: logs for name, logs in said.items() if name in SEQUENCES}
    found = []
    for one, other in combinations(said, 2):
        exchanged = said[one][CLASSES.index(other)] + said[other][CLASSES.index(one)]
        named = said[one][CLASSES.index(one)] + said[other][CLASSES.index(other)]
        found.append(Contradiction({one: other, other: one}, float(exchanged - named)))
    for name, logs in said.items():
        best = CLASSES[int(logs.argmax())]
        found.append(Contradiction({name: best}, float(logs.max() - logs[CLASSES.index(name)])))
    doubts: list[Contradiction] = []
    for doubt in sorted(found, key=lambda doubt: doubt.odds, reverse=True):
        if doubt.odds >= SURE and not any(set(doubt.seems) & set(other.seems) for other in doubts):
            doubts.append(doubt)
    return doubts


def _filled(volume: torch.Tensor) -> float:
    """Return the share of the voxels in a cube of 27 that are not 0: the median over the cubes with any."""
    shown = (volume != 0).numpy()
    if not shown.any() or min(shown.shape) < 3:
        return 1.0
    (box,) = find_objects(shown.astype(np.uint8))  # so that a slab fills its cubes
    shares = avg_pool3d(torch.from_numpy(shown[box])[None].float(), 3, ceil_mode=True)
    return float(shares[shares > 0].median())


def _scaled(volume: np.ndarray, inside: np.ndarray, most: float) -> np.ndarray:
    """Scale a volume to a median of 0 and a 10th to 90th percentile of 1, clipped at ``most``."""
    low, middle, high = np.percentile(volume[inside], (10, 50, 90)) if inside.any() else (0, 0, 1)
    return np.clip((volume - middle) / max(high - low, 1e-6), -most, most).astype(np.float32)


def _mean_around(volume: np.ndarray, brain: np.ndarray, size: int) -> np.ndarray:
    """Average a volume over the voxels of the brain in a cube of ``size`` voxels around each."""
    share = uniform_filter(brain.astype(np.float32), size, mode="constant")
    return uniform_filter(np.where(brain, volume, 0), size, mode="constant") / np.maximum(share, 0.02)


def _skewness(values: np.ndarray) -> float:
    """Return the third moment over the cube of the standard deviation; 0 where all are equal."""
    centred = values - values.mean()
    return float((centred**3).mean() / max(centred.std() ** 3, 1e-9))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's coefficient; 0 where either is constant."""
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9))


def _ranks(layer: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the ranks, between 0 and 1, of the values inside; 0 elsewhere."""
    values, ranks = layer[inside], np.zeros(layer.shape, np.float32)
    ordered = np.empty(len(values), np.float32)
    ordered[np.argsort(values)] = (np.arange(len(values)) + 0.5) / len(values)
    ranks[inside] = ordered
    return ranks


def is_enough(shown: np.ndarray) -> bool:
    """Return whether a mask on the coarse grid holds `LEAST_ML`."""
    return np.count_nonzero(shown) * SPACING**3 / 1000 >= LEAST_ML


@cache
def _network() -> ContentNetwork:
    with torch.random.fork_rng(devices=()):  # a training that reads its first case draws as one whose cases are cached
        return load_weights(ContentNetwork(), WEIGHTS).eval()
