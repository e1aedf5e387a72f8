"""Heads around the phantom's brains, as a scanner shows them: CSF, bone, scalp, and air that is not 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import distance_transform_edt

from common.cohorts.phantom.simulation import SPACING

LAYERS = {"csf": 3, "bone": 10, "scalp": 18}
"""Tissue -> mm from the brain to where it ends."""
SIGNALS = {"t1": (0.4, 0.1, 1.8), "t1c": (0.4, 0.1, 1.8), "t2": (2.0, 0.1, 1.2), "flair": (0.3, 0.1, 1.3)}
"""Modality -> signals of these, relative to the brain's mean."""
NOISE = 0.02


def with_heads(images: Mapping[str, np.ndarray], spacing: float = SPACING) -> dict[str, np.ndarray]:
    """Return images ``(X, Y, Z)`` of a brain on a background of 0 with a head added; the brain stays the same."""
    rng = np.random.default_rng(0)
    heads = {}
    for name, image in images.items():
        brain = image > 0
        away, mean = distance_transform_edt(~brain) * spacing, image[brain].mean()
        head = np.select([away <= end for end in LAYERS.values()], SIGNALS[name]) * mean
        noise = NOISE * mean * rng.standard_normal((2, *image.shape))
        heads[name] = np.where(brain, image, np.rint(np.hypot(head + noise[0], noise[1])) + 1).astype(image.dtype)
    return heads


def with_bright_edge(image: np.ndarray) -> np.ndarray:
    """Return a phantom's image ``(X, Y, Z)`` with bright spots 8 to 14 mm below the brain's surface."""
    depth = distance_transform_edt(image > 0) * SPACING
    spots = np.random.default_rng(0).random([size // 2 for size in image.shape]) < 0.03
    spots = spots.repeat(2, 0).repeat(2, 1).repeat(2, 2) & (depth > 8) & (depth < 14)
    return np.where(spots, 3 * image, image).astype(image.dtype)
