"""Whether two volumes of one head lie on each other: a test for headers that are off, and for mirrored images.

An image is compared with the reference as it is, slightly moved and turned, and mirrored. The measure is the normalised
mutual information over both outlines, on voxels of `FIT_SPACING` mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import affine_transform, binary_dilation
from scipy.spatial.transform import Rotation
from torch.nn.functional import avg_pool3d

from mmb.clinic.head.grid import box, not_air
from mmb.clinic.head.registration import normalised_mutual_information

FIT_SPACING = 4.0  # voxel size of the comparison in mm
STEPS = ((4.0, 6.0), (2.0, 3.0))  # step sizes in mm and degrees by which an image is moved and turned, coarse then fine
FARTHEST = 32.0  # maximum shift along an axis in mm, and maximum rotation in degrees
BORDER = 3  # margin in voxels around the reference's foreground that is compared
LEAST_SEEN = 0.4  # minimum fraction of the compared voxels that has to remain when the image is moved
FARTHEST_RIGHT = 5.0
"""Maximum distance in mm from the best place of a correctly placed image. For T1, T2 and FLAIR against T1c of 34
open_glioma cases in one atlas space it is at most 4.8. In 12 of these cases, images moved by 6, 12 and 18 mm are found
in 89, 100 and 100 %, images turned by 5, 10 and 15 degrees in 33, 100 and 100 %."""
GAIN = 1.2  # minimum ratio of the information at the best place to that where the headers put the image
MIRROR_GAIN, MIRROR_MORE = 1.2, 0.012
"""Minimum ratio of the information of the mirrored image to that of the original, each at its best place and only where
the image shows something, and minimum difference: how often they are right and wrong is in docs/preparation.md."""
NO_OVERLAP = 0.1  # Dice of the foregrounds below which two images count as not overlapping


@dataclass(frozen=True)
class Fit:
    """Quality of an image's position relative to the reference."""

    overlap: float  # Dice of the two foregrounds within the image's field of view
    information: float  # normalised mutual information by the headers, minus 1, its value for unrelated ones
    best: float  # the largest value that small shifts and rotations reach
    displacement_mm: float  # of the best position, the mean over the reference's foreground
    original: float  # the largest value where the image shows something
    mirrored: float  # the largest value that they reach there with left and right of the image exchanged

    @property
    def is_misplaced(self) -> bool:
        """Whether another position than that in the headers is clearly better."""
        return self.overlap < NO_OVERLAP or (
            self.displacement_mm >= FARTHEST_RIGHT and self.best > GAIN * self.information and not self.is_mirrored
        )

    @property
    def is_mirrored(self) -> bool:
        """Whether the image fits clearly better with left and right exchanged."""
        return self.mirrored > max(MIRROR_GAIN * self.original, self.original + MIRROR_MORE)


def compare_places(reference: np.ndarray, image: np.ndarray, seen: np.ndarray, spacing: float) -> Fit:
    """Compare an image with the reference (0 where nothing is known) on one grid whose first axis is left-right.

    ``seen`` is the mask of the image's field of view, ``spacing`` the voxel size in mm.
    """
    sizes = [min(max(round(FIT_SPACING / spacing), 1), edge) for edge in reference.shape]
    fixed, moving, inside = (
        avg_pool3d(torch.from_numpy(volume.astype(np.float32))[None], sizes, ceil_mode=True)[0].numpy()
        for volume in (reference, image, seen)
    )
    inside = inside > 0.5
    both = not_air(fixed) & inside, not_air(moving) & inside
    overlap = 2 * (both[0] & both[1]).sum() / max(both[0].sum() + both[1].sum(), 1)
    pair = _Pair(fixed, moving, inside)
    pose, best = pair.search(STEPS)
    shown = inside & binary_dilation(moving > 0)
    mirrored = _Pair(fixed, moving[::-1], shown[::-1]).search(STEPS[:1])[1]
    there, still = _Pair(fixed, moving, shown), np.zeros(6)
    original = max(there.information(pose), there.information(still))
    distance = pair.distance(pose)
    return Fit(float(overlap), pair.information(still) - 1, best - 1, distance, original - 1, mirrored - 1)


class _Pair:
    """Two volumes on one grid; the second is moved by poses: mm along the axes, degrees about them."""

    def __init__(self, fixed: np.ndarray, moving: np.ndarray, seen: np.ndarray) -> None:
        self.moving, self.seen = np.ascontiguousarray(moving), seen.astype(np.uint8)
        shown = not_air(fixed)
        voxels = np.argwhere(shown) if shown.any() else np.array([[0, 0, 0], fixed.shape])
        near = box(shown, BORDER)  # leaving out what is far from the reference's foreground saves most of the time
        self.corner = np.array([part.start for part in near])
        self.fixed, self.shown, self.centre = fixed[near], shown[near], voxels.mean(axis=0)
        self.least = np.count_nonzero(self.shown & (seen[near] > 0)) * LEAST_SEEN
        above = self.moving[not_air(self.moving)]
        self.threshold = float(above.min()) if above.size else np.inf
        self.known: dict[tuple, float] = {}

    def information(self, pose: np.ndarray) -> float:
        """Return the normalised mutual information over both outlines, within the moved image's field of view."""
        key = tuple(pose)
        if key not in self.known:
            moved, seen = self._moved(pose)
            region = (self.shown | (moved >= self.threshold)) & seen
            enough = np.count_nonzero(region) > self.least
            self.known[key] = normalised_mutual_information(self.fixed[region], moved[region]) if enough else 1.0
        return self.known[key]

    def distance(self, pose: np.ndarray) -> float:
        """Return the mean distance in mm by which a pose moves the reference's foreground."""
        voxels = np.argwhere(self.shown) + self.corner
        turn, shift = self._placed(pose)
        apart = np.linalg.norm(voxels @ turn.T + shift - voxels, axis=1)
        return float(apart.mean() * FIT_SPACING) if len(voxels) else 0.0

    def search(self, steps: Sequence[tuple[float, float]]) -> tuple[np.ndarray, float]:
        """Return the best pose found by single steps, coarse ones first, and its information."""
        pose = self._start()
        best = self.information(pose)
        for move, turn in steps:
            improved = True
            while improved:
                improved = False
                for axis in range(6):
                    for sign in (-1, 1):
                        other = pose.copy()
                        other[axis] += sign * (move if axis < 3 else turn)
                        if abs(other[axis]) <= FARTHEST and self.information(other) > best:
                            pose, best, improved = other, self.information(other), True
        return pose, best

    def _start(self) -> np.ndarray:
        """Return the initial pose: unchanged, or with the centres of both foregrounds aligned, whichever is better."""
        voxels, still = np.argwhere(not_air(self.moving)), np.zeros(6)
        if not len(voxels):
            return still
        step = STEPS[0][0]
        between = (voxels.mean(axis=0) - self.centre) * FIT_SPACING
        centred = np.r_[np.clip(np.rint(between / step) * step, -FARTHEST, FARTHEST), 0.0, 0, 0]
        return max(still, centred, key=self.information)

    def _moved(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the second volume on the voxels that are compared, and where it was seen there."""
        turn, shift = self._placed(pose)
        place = {"offset": turn @ self.corner + shift, "output_shape": self.shown.shape}
        moved = affine_transform(self.moving, turn, order=1, **place)
        return moved, affine_transform(self.seen, turn, order=0, **place) > 0

    def _placed(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turn = Rotation.from_euler("xyz", pose[3:], degrees=True).as_matrix()
        return turn, self.centre + pose[:3] / FIT_SPACING - turn @ self.centre
