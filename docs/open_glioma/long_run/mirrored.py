"""Brains without a tumour, made of brains with one: the half with the tumour becomes the mirror image of the other.

Networks that were trained on glioma alone mark tumour in every brain. Such brains show them in training, in every
subset of the sequences, that there may be none. Only cases whose tumour keeps to one side qualify.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, zoom
from scipy.optimize import minimize

COARSE = 3.0
"""Voxel size in mm of the images to which the plane is fitted."""
SEAM = 2.0
"""Width in mm over which both halves are blended on either side of the plane."""
MARGIN = 4.0
"""Distance in mm from the plane that the tumour has to keep."""
SPILL = 0.01
"""Largest share of the tumour that may lie nearer to the plane or beyond it."""


@dataclass(frozen=True)
class Plane:
    """The mid-sagittal plane: points x in mm with ``normal @ x = offset``; the normal points to the right."""

    normal: np.ndarray
    offset: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distances in mm of points ``(3, ...)``."""
        return np.tensordot(self.normal, points, axes=1) - self.offset

    def mirrored(self, points: np.ndarray) -> np.ndarray:
        """Return the mirror images of points ``(3, ...)``."""
        return points - 2 * self.distance(points) * np.reshape(self.normal, (3, *[1] * (points.ndim - 1)))


def fit_plane(images: np.ndarray, tumour: np.ndarray, spacing: float = 1.0) -> Plane:
    """Return the plane about which a brain is most like its mirror image, without the tumour and what is opposite it.

    ``images`` ``(M, X, Y, Z)`` have a background of 0 and axes in RAS, with voxels of ``spacing`` mm; ``tumour``
    ``(X, Y, Z)`` is bool. The likeness is the mean correlation over the images.
    """
    factor = spacing / COARSE
    coarse = np.stack([zoom(gaussian_filter(image.astype(np.float32), 1), factor, order=1) for image in images])
    brain = coarse.max(axis=0) > 0
    ill = zoom(binary_dilation(tumour, iterations=3).astype(np.float32), factor, order=1) > 0.2
    points = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing="ij")) * COARSE
    inside = points[:, brain]
    middle = inside.mean(axis=1)

    def plane(values: np.ndarray) -> Plane:
        normal = np.array([1.0, np.tan(np.radians(values[1])), np.tan(np.radians(values[2]))])
        normal /= np.linalg.norm(normal)
        return Plane(normal, float(normal @ middle + values[0]))

    def unlikeness(values: np.ndarray) -> float:
        opposite = plane(values).mirrored(inside) / COARSE
        lies = map_coordinates(ill.astype(np.float32), opposite, order=1) + ill[brain] < 0.1
        total = 0.0
        for image in coarse:
            pair = image[brain][lies], map_coordinates(image, opposite, order=1)[lies]
            total += np.corrcoef(*pair)[0, 1]
        return -total / len(coarse)

    start = min(
        ([shift, 0.0, 0.0] for shift in np.arange(-9, 10, 3.0)), key=lambda values: unlikeness(np.array(values))
    )
    best = minimize(
        unlikeness,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": _simplex(start), "xatol": 0.1, "fatol": 1e-4},
    )
    return plane(best.x)


def _simplex(start: list[float]) -> np.ndarray:
    return np.array([start, *(np.add(start, step) for step in (3 * np.eye(3)))])


def without_tumour(images: np.ndarray, tumour: np.ndarray, spacing: float = 1.0) -> np.ndarray | None:
    """Return the images ``(M, X, Y, Z)`` with the tumour's half replaced by the mirror image of the other half.

    None if more than `SPILL` of the tumour lies within `MARGIN` of the mid-sagittal plane or beyond it. Axes, spacing
    and background are those of `fit_plane`.
    """
    middle = np.median(np.nonzero(images.max(axis=0) > 0)[0])
    if 0.1 < (np.nonzero(tumour)[0] > middle).mean() < 0.9:
        return None  # without fitting anything
    plane = fit_plane(images, tumour, spacing)
    points = np.stack(np.meshgrid(*map(np.arange, tumour.shape), indexing="ij")).astype(np.float32) * spacing
    distance = plane.distance(points)
    side = 1 if distance[tumour].mean() > 0 else -1
    if (side * distance[tumour] < MARGIN).mean() > SPILL:
        return None
    opposite = plane.mirrored(points) / spacing
    share = np.clip(0.5 + side * distance / (2 * SEAM), 0, 1)  # of the mirror image
    whole = []
    for image in images.astype(np.float32):
        reflected = map_coordinates(image, opposite, order=1)
        blended = share * reflected + (1 - share) * image
        seam = (share > 0) & (share < 1) & ((image == 0) | (reflected == 0))  # no blending with the background
        whole.append(np.where(seam, np.where(share > 0.5, reflected, image), blended))
    return np.stack(whole)
