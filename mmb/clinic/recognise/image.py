"""Recognition of the sequence that an image of a brain shows: T1, T1c, T2, FLAIR, or none of them.

On a coarse grid an image is described by percentiles of its intensities, of its contrast against the neighbourhood and
of its fine detail, at several depths below the brain's surface; a pair of images by how their intensity ranks are
related. A small network turns these features into probabilities. It was trained on the open glioma cases (see
``image.md``), and knows only adults' skull-stripped brains.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, io_orientation
from scipy.ndimage import distance_transform_edt, uniform_filter
from torch import nn
from torch.nn.functional import adaptive_avg_pool3d, avg_pool3d

from common.cohorts.check import Finding
from common.cohorts.cohort import Cohort
from common.io.checkpoints import load_weights
from common.modalities import GLIOMA, display_name
from mmb.clinic.head.grid import box
from mmb.clinic.recognise.certainty import SURE, SURE_ALONE

CLASSES = (*GLIOMA, "other")
"""What an image may show; "other" is a subtraction, a map or no image of a brain at all."""
SPACING = 3.0  # voxel size of the coarse grid in mm
LEAST_ML = 100.0  # minimum volume in ml of a brain, or a part of one, without its surface; a smaller one is not judged
TAIL = (0.1, 0.2, 0.5, 1)  # percentage of voxels in a tail; `contrast_difference` is the mean over these
DIFFERENT, STEEPNESS, MOST = 0.13, 28.0, 5.0
"""Log-odds that one of two T1 was acquired after contrast agent and the other before: (`contrast_difference` -
``DIFFERENT``) * ``STEEPNESS``, at most ``MOST``. Fitted to the open cases (``image.md``)."""
AT_MOST = 12  # number of T1 that are compared directly; of so many there are 4096 combinations
T1_TRUST = 0.5  # factor on the network's log-odds between T1 and T1c where two T1 are compared directly
ALONE_TRUST = 0.6  # factor on the logits of an image that is judged alone, for which the network is overconfident
LEAST_FILLED = 0.9
"""Minimum fraction of non-zero voxels in 3 x 3 x 3 cubes of a brain (median over the cubes). In 17 open cases all 68
images have 1, and the 17 subtractions clipped at 0 have 0.30 to 0.74: their zeros would count as background."""
WEIGHTS = Path(__file__).with_name("image.pt")
NEIGHBOURHOOD = 7  # edge in voxels of the cube over which an image is averaged, twice, to measure its contrast
SURFACE = 2.5  # distance from the brain's surface, in voxels, within which remains of the head may lie
UNDISTURBED = SURFACE + NEIGHBOURHOOD // 2
"""Distance from the surface, in voxels, beyond which remains of the head hardly affect a voxel's neighbourhood either.
They are often fluid, beside which the brain's edge seems bright, like vessels with contrast agent. Averaged twice, a
cube reaches twice as far, 6 voxels; the distance was chosen by measurement, in which 10 to 21 mm did equally well."""
DEPTHS = (0, 1.1, 2.5, 4.5, 7, np.inf)
"""Distances from the surface, in voxels, that bound the zones whose intensities are described separately."""
TAILS = (0.2, 1, 2, 5, 20, 35, 65, 80, 95, 98, 99, 99.8)  # percentiles that describe the whole brain
PERCENTILES = (2, 10, 30, 50, 70, 90, 98)  # percentiles that describe a zone
ALONE = 3 * (len(TAILS) + (len(DEPTHS) - 1) * len(PERCENTILES) + 1)  # number of features of one image
TOGETHER = 2 * (2 * 12 + 5)  # number of features of a pair of images


class ImageFeatures:
    """Features of an image ``(X, Y, Z)`` on the coarse grid, 0 outside the brain.

    ``extracted`` says whether the brain was extracted from a head, of which some may remain at its surface.
    ``numbers`` are the `ALONE` features; NaN if the brain inside is too small (`is_enough`).
    """

    def __init__(self, image: np.ndarray, extracted: bool = False) -> None:
        brain = image != 0
        depth = distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1]
        self.inside = depth > SURFACE
        self.compared = depth > UNDISTURBED if extracted else self.inside  # by `contrast_difference`
        if not is_enough(self.inside):
            self.numbers = np.full(ALONE, np.nan, np.float32)
            return
        image = _scaled(image, self.inside, 6)
        self.contrast = image - _mean_around(_mean_around(image, brain, NEIGHBOURHOOD), brain, NEIGHBOURHOOD)
        contrast = _scaled(self.contrast, self.inside, 8)
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


def pair_features(one: ImageFeatures, other: ImageFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Return the `TOGETHER` features of an image relative to another one on its grid, and of that one relative to it.

    For each layer: how the ranks in either image depend on those in the other; how they are correlated; and in which
    image a few voxels, such as vessels, are brighter than in the other (above 0: in the first).
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


def contrast_difference(one: ImageFeatures, other: ImageFeatures) -> float:
    """Return how much more of the first image is bright against its neighbourhood than of the second.

    Contrast agent brightens few voxels, but these strongly; noise, blur and motion lengthen both tails of the
    difference of the contrasts, which are compared. Above 0, the first image is the enhanced one.
    """
    difference = (one.contrast - other.contrast)[one.compared & other.compared]
    low, high = (np.percentile(difference, end) for end in (TAIL, np.subtract(100, TAIL)))
    return float((low + high).mean() - 2 * np.median(difference))


def features(images: Sequence[ImageFeatures]) -> np.ndarray:
    """Return the network's inputs for each pair of images and, on the diagonal, for each image alone.

    The shape is ``(M, M, 2 * ALONE + TOGETHER)``; features that need another image are NaN where there is none.
    """
    made = np.full((len(images), len(images), 2 * ALONE + TOGETHER), np.nan, np.float32)
    for index, image in enumerate(images):
        made[index, :, :ALONE] = image.numbers
    for (i, one), (j, other) in combinations(enumerate(images), 2):
        if is_enough(one.inside & other.inside):
            made[i, j, ALONE : 2 * ALONE], made[j, i, ALONE : 2 * ALONE] = other.numbers, one.numbers
            made[i, j, 2 * ALONE :], made[j, i, 2 * ALONE :] = pair_features(one, other)
    return made


class SequenceClassifier(nn.Module):
    """Classify sequences: `features` ``(B, N)``, partly NaN for an image alone, to logits ``(B, 5)``."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        inputs = 2 * ALONE + TOGETHER
        self.mean: torch.Tensor = nn.Buffer(torch.zeros(inputs))
        self.std: torch.Tensor = nn.Buffer(torch.ones(inputs))
        self.layers = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(inputs + 1, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, len(CLASSES))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        beside = ~features[:, -1:].isnan()
        scaled = ((features - self.mean) / self.std).clamp(-4, 4).nan_to_num(0.0)
        return self.layers(torch.cat([scaled, beside.float()], dim=1))


def on_coarse_grid(images: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Average images ``(C, X, Y, Z)`` of one grid over voxels of `SPACING` mm, RAS, in the box of non-zero voxels.

    Background voxels (0) are left out of the average; where they are more than half, the result is 0.
    """
    turn = io_orientation(affine)
    voxels = torch.from_numpy(np.stack([apply_orientation(image, turn) for image in images.float().numpy()]))
    sizes = voxel_sizes(affine)[np.argsort(turn[:, 0])]
    shown = (voxels != 0).any(dim=0).numpy()
    if not shown.any():
        return np.zeros((len(images), 1, 1, 1), np.float32)
    voxels = voxels[(slice(None), *box(shown))]
    x, y, z = (max(round(n * size / SPACING), 1) for n, size in zip(voxels.shape[1:], sizes, strict=True))
    data = adaptive_avg_pool3d((voxels != 0).float(), (x, y, z))
    return torch.where(data > 0.5, adaptive_avg_pool3d(voxels, (x, y, z)) / data.clamp(min=0.1), 0.0).numpy()


class Contradiction(NamedTuple):
    """What images seem to show instead (name -> one of `CLASSES`), and the log-odds of this against their names."""

    seems: dict[str, str]
    odds: float


def log_probabilities(
    images: Mapping[str, MetaTensor], t1: Collection[str] = (), extracted: bool = False
) -> dict[str, torch.Tensor]:
    """Return name -> ``log p(class | image)`` ``(5,)``, in the order of `CLASSES`, for images of one subject's brain.

    The images ``(X, Y, Z)`` are RAS, with affines to mm, and 0 outside the brain. Those named in ``t1`` are known to be
    T1 or T1c. ``extracted`` says whether the brain was extracted from heads, see `ImageFeatures`. Images on one grid
    are judged in pairs, other images alone. An image that shows less than `LEAST_ML` is left out; one full of holes
    (`LEAST_FILLED`) is "other". Only differences of the logarithms matter, since they are means over an image's pairs.
    """
    if not images:
        return {}
    grids = {(tuple(image.shape), tuple(image.affine.flatten().tolist())) for image in images.values()}
    if len(grids) > 1:
        return {name: found for name in images for found in log_probabilities({name: images[name]}).values()}
    stack = torch.stack([image.as_tensor().float() for image in images.values()])
    coarse = on_coarse_grid(stack, next(iter(images.values())).affine.numpy())
    holed = [name for name, volume in zip(images, stack, strict=True) if _filled(volume) < LEAST_FILLED]
    certainly_other = torch.full((len(CLASSES),), -2 * SURE)
    certainly_other[CLASSES.index("other")] = 0.0
    described = {
        name: ImageFeatures(image, extracted) for name, image in zip(images, coarse, strict=True) if name not in holed
    }
    usable = {name: image for name, image in described.items() if is_enough(image.inside)}
    judged = dict.fromkeys(holed, certainly_other)
    if usable:
        known = [index for index, name in enumerate(usable) if name in t1]
        judged |= zip(usable, judge(_network(), [*usable.values()], known), strict=True)
    return {name: judged[name] for name in images if name in judged}


def judge_together(network: nn.Module, given: np.ndarray) -> torch.Tensor:
    """Return log-probabilities ``(M, 5)`` of images from `features` ``(M, M, N)``, as means over an image's pairs."""
    judged = []
    for index, row in enumerate(given):
        others = [other for other in range(len(given)) if not np.isnan(row[other, -1])]
        with torch.no_grad():
            logits = network(torch.from_numpy(row[others or [index]]))
        judged.append((logits if others else ALONE_TRUST * logits).log_softmax(dim=1).mean(dim=0))
    return torch.stack(judged)


def judge(network: nn.Module, images: Sequence[ImageFeatures], known: Collection[int] = ()) -> torch.Tensor:
    """Return log-probabilities ``(M, 5)`` of images on one grid, comparing T1 and T1c directly.

    Images that look like T1 or T1c, or are ``known`` (by index) to be one of them, are assigned together. Every way to
    call each of them T1 or T1c is weighted by the network's log-odds for each image and by the `contrast_difference` of
    each pair. The probability that an image is T1c is the share of the assignments in which it is.
    """
    judged = judge_together(network, features(images))
    looks = [CLASSES[int(logs.argmax())] for logs in judged]
    t1 = [index for index, look in enumerate(looks) if look in ("t1", "t1c") or index in known]
    pairs = [
        (i, j) for i, j in combinations(range(len(t1)), 2) if is_enough(images[t1[i]].compared & images[t1[j]].compared)
    ]
    if not pairs or len(t1) > AT_MOST:
        return judged
    either = judged[t1][:, :2]  # T1, T1c
    differences = {(i, j): contrast_difference(images[t1[i]], images[t1[j]]) for i, j in pairs}
    combined = torch.tensor([*product((0, 1), repeat=len(t1))])  # (2**N, N): whether each image is enhanced
    weights = T1_TRUST * (combined * (either[:, 1] - either[:, 0])).sum(dim=1)
    for (i, j), difference in differences.items():
        brighter = combined[:, i] - combined[:, j]
        odds = ((brighter * difference - DIFFERENT) * STEEPNESS).clamp(-MOST, MOST)
        weights += torch.where(brighter != 0, odds, 0.0) * 2 / len(t1)
    enhanced = torch.stack([weights[combined[:, i] == 1].logsumexp(dim=0) for i in range(len(t1))])
    native = torch.stack([weights[combined[:, i] == 0].logsumexp(dim=0) for i in range(len(t1))])
    shares = torch.stack([native, enhanced], dim=1).log_softmax(dim=1)
    judged[t1, :2] = either.logsumexp(dim=1, keepdim=True) + shares
    return judged


def contradictions(judged: Mapping[str, torch.Tensor]) -> list[Contradiction]:
    """Return contradictions between images and their names, surest first: exchanged pairs and single images.

    Names that are not those of a sequence are ignored. An image that is the only one was judged alone (`SURE_ALONE`).
    """
    least = SURE if len(judged) > 1 else SURE_ALONE
    judged = {name: logs for name, logs in judged.items() if name in GLIOMA}
    found = []
    for one, other in combinations(judged, 2):
        exchanged = judged[one][CLASSES.index(other)] + judged[other][CLASSES.index(one)]
        named = judged[one][CLASSES.index(one)] + judged[other][CLASSES.index(other)]
        found.append(Contradiction({one: other, other: one}, float(exchanged - named)))
    for name, logs in judged.items():
        best = CLASSES[int(logs.argmax())]
        found.append(Contradiction({name: best}, float(logs.max() - logs[CLASSES.index(name)])))
    doubts: list[Contradiction] = []
    for doubt in sorted(found, key=lambda doubt: doubt.odds, reverse=True):
        if doubt.odds >= least and not any(set(doubt.seems) & set(other.seems) for other in doubts):
            doubts.append(doubt)
    return doubts


def _filled(volume: torch.Tensor) -> float:
    """Return the fraction of non-zero voxels in 3 x 3 x 3 cubes: the median over the cubes that have any."""
    shown = (volume != 0).numpy()
    if not shown.any() or min(shown.shape) < 3:
        return 1.0
    cropped = torch.from_numpy(shown[box(shown)])  # so that a slab fills its cubes
    shares = avg_pool3d(cropped[None].float(), 3, ceil_mode=True)
    return float(shares[shares > 0].median())


def _scaled(volume: np.ndarray, inside: np.ndarray, most: float) -> np.ndarray:
    """Scale a volume to a median of 0 and a distance of 1 from the 10th to the 90th percentile; clip at ``most``."""
    low, middle, high = np.percentile(volume[inside], (10, 50, 90)) if inside.any() else (0, 0, 1)
    return np.clip((volume - middle) / max(high - low, 1e-6), -most, most).astype(np.float32)


def _mean_around(volume: np.ndarray, brain: np.ndarray, size: int) -> np.ndarray:
    """Average a volume over the brain voxels in a cube of ``size`` voxels around each voxel."""
    share = uniform_filter(brain.astype(np.float32), size, mode="constant")
    return uniform_filter(np.where(brain, volume, 0), size, mode="constant") / np.maximum(share, 0.02)


def _skewness(values: np.ndarray) -> float:
    """Return the third central moment over the cubed standard deviation; 0 if all values are equal."""
    centred = values - values.mean()
    return float((centred**3).mean() / max(centred.std() ** 3, 1e-9))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson's correlation coefficient; 0 if either is constant."""
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-9))


def _ranks(layer: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the ranks, between 0 and 1, of the values inside a mask; 0 outside it."""
    values, ranks = layer[inside], np.zeros(layer.shape, np.float32)
    ordered = np.empty(len(values), np.float32)
    ordered[np.argsort(values)] = (np.arange(len(values)) + 0.5) / len(values)
    ranks[inside] = ordered
    return ranks


def is_enough(shown: np.ndarray) -> bool:
    """Return whether a mask on the coarse grid has a volume of at least `LEAST_ML`."""
    return bool(np.count_nonzero(shown) * SPACING**3 / 1000 >= LEAST_ML)


@cache
def _network() -> SequenceClassifier:
    with torch.random.fork_rng(devices=()):  # so that training draws the same numbers with and without cached cases
        return load_weights(SequenceClassifier(), WEIGHTS).eval()


def has_known_sequences(cohort: Cohort) -> bool:
    """Return whether the network can tell which sequences a cohort's images show."""
    return cohort.skull_stripped and set(GLIOMA) <= set(cohort.modalities)


def worded(doubt: Contradiction, judged: Mapping[str, torch.Tensor]) -> Finding:
    """Return a non-fatal finding on images that seem to show another sequence, given their `log_probabilities`."""
    (name, seems), *others = doubt.seems.items()
    if others:
        what = f"judging by their content, {display_name(name)} and {display_name(seems)} are exchanged"
    elif seems == "other":
        what = f"it does not look like {display_name(name)}; it may be a subtraction, a map or no image of a brain"
    else:
        what = f"it does not look like {display_name(name)}, but like {display_name(seems)}"
        if seems in judged:
            what = f"{what}, so {display_name(name)} and {display_name(seems)} may have been exchanged"
    return Finding(tuple(doubt.seems), what, "Look at it, and rename it or leave it out.", fatal=False)


def doubts(brains: Mapping[str, MetaTensor]) -> Iterator[Finding]:
    """Yield what is `worded` of the `contradictions` in a subject's brains; for `common.cohorts.check.print_check`."""
    judged = log_probabilities(brains)
    yield from (worded(doubt, judged) for doubt in contradictions(judged))
