"""Whether two volumes of one head lie on each other, and rigid registration if they do not.

`compare_places` finds headers that are off by centimetres, and mirrored images. It compares an image with the reference
as it is, slightly moved and turned, and mirrored. The measure is the normalised mutual information over both outlines,
on voxels of `FIT_SPACING` mm. This is only a test; misplaced images are then registered.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from scipy.stats import entropy

from clinic.study.grid import Grid, Image, box, in_field_of_view, isotropic_grid, moved, not_air, resample

MINIMUM_PEAK = 2.0
"""Minimum ratio of the mutual information at the position found to that `PEAK_DISTANCE` mm away; below it, registration
has failed. On the phantom the ratio is 4 to 18 for sequences of one subject, and about 1 for those of two subjects."""
PEAK_DISTANCE = 12.0
MINIMUM_OVERLAP = 0.7  # minimum fraction of the smaller foreground that has to lie within the other one
REGISTRATION_SPACING = 2.0
"""Voxel size in mm for the registration; at 1 mm elastix would smooth eight times as many voxels, which takes long."""
BINS = 32
LPS = np.diag([-1.0, -1, 1, 1])  # transform between mm in RAS (NIfTI) and LPS (ITK), in either direction

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
MIRROR_GAIN = 1.2
"""Minimum ratio of the information of the mirrored image to that of the original, each at its best place. In 34 cases
it is at most 1.12 for the originals (0.91 or less in 100 of 102 pairs); for mirrored images it is larger in 75 % of 36
pairs, since a brain is nearly symmetric."""
NO_OVERLAP = 0.1  # Dice of the foregrounds below which two images count as not overlapping


@dataclass(frozen=True)
class Registration:
    """Registration of a volume to the reference.

    Attributes:
        transform: rigid transform ``(4, 4)`` from mm (RAS) of the reference to those of the volume.
        before: normalised mutual information (see `normalised_mutual_information`) over the voxels that are foreground
            in both, at the position in the headers.
        quality: the same after registration.
        peak: ``quality - 1``, divided by its mean over the six positions `PEAK_DISTANCE` mm away along the axes.
        overlap: fraction of the smaller foreground that lies within the other one.
        text: a sentence with these values.
    """

    transform: np.ndarray
    before: float
    quality: float
    peak: float
    overlap: float
    text: str

    @property
    def angle(self) -> float:
        """Return the rotation angle in degrees."""
        return float(np.degrees(Rotation.from_matrix(self.transform[:3, :3]).magnitude()))


def register(fixed: Image, moving: Image, name: str) -> Registration:
    """Register one volume to another by `find_rigid`, and refuse a poor result.

    Raises ValueError if the volumes have too little in common, or hardly overlap; ModuleNotFoundError if itk-elastix is
    not installed.
    """
    found = find_rigid(fixed, moving, name)
    if found.peak < MINIMUM_PEAK or found.overlap < MINIMUM_OVERLAP:
        raise ValueError(
            f"{found.text}. Expected at least {MINIMUM_PEAK:g} times and {MINIMUM_OVERLAP:.0%}: the two could not be "
            "registered. Leave one out, register them yourself, or check that both show the same head."
        )
    return found


def find_rigid(fixed: Image, moving: Image, name: str) -> Registration:
    """Find the rigid transform with the largest mutual information between two volumes, and measure its quality.

    It uses elastix (Klein et al., IEEE TMI 29(1), 2010), coarse to fine, starting from the position in the headers or
    with the centres of mass aligned, whichever is better. The same volumes give the same transform. ``fixed`` has cubic
    voxels and orthogonal axes; ``name`` is the name of the pair for messages, e.g. ``T2 to T1c``.
    """
    coarse = isotropic_grid(fixed, REGISTRATION_SPACING)
    still, shown = np.eye(4), resample(fixed, coarse)

    def compare(transform: np.ndarray) -> _Overlap:
        return _Overlap.of(shown, moved(moving, transform), coarse)

    before = compare(still)
    # A small overlap may have a large mutual information by chance.
    start = max((still, _between_centres(fixed, moving)), key=lambda move: compare(move).score())
    own = isotropic_grid(moving, REGISTRATION_SPACING)
    transform = start @ _elastix(Image(shown, coarse.affine), moved(Image(resample(moving, own), own.affine), start))
    after = compare(transform)
    middle = apply_affine(coarse.affine, (np.array(coarse.shape) - 1) / 2)
    made = Registration(transform, before.information(), after.information(), after.peak(), after.overlap(), "")
    text = (
        f"{name}: registered, moved by {np.linalg.norm(apply_affine(transform, middle) - middle):.1f} mm and turned by "
        f"{made.angle:.1f} degrees; normalised mutual information {made.before:.3f} before, {made.quality:.3f} "
        f"after, {made.peak:.1f} times the value {PEAK_DISTANCE:g} mm away; foregrounds overlap by {made.overlap:.0%}"
    )
    return replace(made, text=text)


def normalised_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return ``(H(a) + H(b)) / H(a, b)`` of two arrays: 1 if they are independent, 2 if each determines the other.

    The arrays are the values of two images at the same voxels. Histograms have `BINS` bins from each array's 1st to its
    99th percentile (Studholme et al., Pattern Recognition 32(1), 1999).
    """
    ranked = []
    for values in (first, second):
        low, high = np.percentile(values, (1, 99))
        scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
        ranked.append(np.clip(scaled * BINS, 0, BINS - 1).astype(np.int64))
    joint = np.bincount(ranked[0] * BINS + ranked[1], minlength=BINS * BINS).reshape(BINS, BINS)
    together = entropy(joint, axis=None)
    return float((entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))) / together) if together > 0 else 1.0


@dataclass(frozen=True)
class _Overlap:
    """Two volumes on one grid of cubes of ``spacing`` mm, with their foregrounds."""

    volumes: tuple[np.ndarray, np.ndarray]
    masks: tuple[np.ndarray, np.ndarray]
    spacing: float

    @classmethod
    def of(cls, first: np.ndarray, second: Image, grid: Grid) -> Self:
        volumes = first, resample(second, grid)
        seen = in_field_of_view(Grid(second.shape, second.affine), grid)
        masks = tuple(not_air(volume) & seen for volume in volumes)
        return cls(volumes, masks, float(voxel_sizes(grid.affine)[0]))

    def overlap(self) -> float:
        smaller = min(mask.sum() for mask in self.masks)
        return float((self.masks[0] & self.masks[1]).sum() / smaller) if smaller else 0.0

    def information(self, axis: int = 0, step: int = 0) -> float:
        """Return the normalised mutual information over the common foreground, the second shifted along an axis."""
        ends = slice(max(step, 0), min(step, 0) or None), slice(max(-step, 0), min(-step, 0) or None)
        at = [(slice(None),) * axis + (end,) for end in ends]
        both = self.masks[0][at[0]] & self.masks[1][at[1]]
        if not both.any():
            return 1.0
        return normalised_mutual_information(self.volumes[0][at[0]][both], self.volumes[1][at[1]][both])

    def peak(self) -> float:
        step = round(PEAK_DISTANCE / self.spacing)
        aside = [self.information(axis, sign * step) - 1 for axis in range(3) for sign in (-1, 1)]
        return (self.information() - 1) / max(float(np.mean(aside)), 1e-6)

    def score(self) -> tuple[bool, float]:
        return self.overlap() >= MINIMUM_OVERLAP, self.information()


def _between_centres(fixed: Image, moving: Image) -> np.ndarray:
    """Return the shift from the centre of one volume's foreground to that of the other's."""
    centres = []
    for image in (fixed, moving):
        mask = not_air(np.asarray(image.dataobj, dtype=np.float32))
        voxels = np.argwhere(mask) if mask.any() else np.array([np.array(mask.shape) / 2])
        centres.append(apply_affine(image.affine, voxels.mean(axis=0)))
    return from_matvec(np.eye(3), centres[1] - centres[0])


def _elastix(fixed: Image, moving: Image) -> np.ndarray:
    """Return the rigid transform ``(4, 4)`` from mm (RAS) of one isotropic volume to those of another."""
    try:
        import itk
        from itk import ParameterObject
    except ImportError as error:
        raise ModuleNotFoundError(
            "The images have to be registered, which requires itk-elastix, and it is not installed: "
            "pip install 'missing-modality-bundles[registration]'."
        ) from error
    settings = ParameterObject.New()
    rigid = ParameterObject.GetDefaultParameterMap("rigid", 4)
    for key, values in {
        "AutomaticTransformInitialization": ["false"],
        "FixedImagePyramid": ["FixedGenericImagePyramid"],  # takes half the time of the default
        "MovingImagePyramid": ["MovingGenericImagePyramid"],
        "MaximumNumberOfIterations": ["256"],
        "NumberOfSpatialSamples": ["2048", "2048", "2048", "10000"],
        "NewSamplesEveryIteration": ["true"],
        "ImageSampler": ["RandomCoordinate"],
        "RandomSeed": ["2010"],
        "WriteResultImage": ["false"],
    }.items():
        rigid[key] = values
    settings.AddParameterMap(rigid)
    threads = itk.MultiThreaderBase
    most, usual = threads.GetGlobalMaximumNumberOfThreads(), threads.GetGlobalDefaultNumberOfThreads()
    with tempfile.TemporaryDirectory() as folder:
        try:  # one thread, so that sums are always in the same order
            _, result = itk.elastix_registration_method(
                _to_itk(fixed), _to_itk(moving), parameter_object=settings, number_of_threads=1, output_directory=folder
            )
        finally:
            threads.SetGlobalMaximumNumberOfThreads(most)
            threads.SetGlobalDefaultNumberOfThreads(usual)
    found = result.GetParameterMap(0)
    x, y, z, *shift = map(float, found["TransformParameters"])
    turn = Rotation.from_euler("ZXY", (z, x, y)).as_matrix()  # ITK's Euler3DTransform
    centre = np.array(found["CenterOfRotationPoint"], float)
    transform = from_matvec(turn, centre + shift - turn @ centre)
    return LPS @ transform @ LPS


def _to_itk(image: Image):
    import itk

    made = itk.image_from_array(np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T))
    sizes, affine = voxel_sizes(image.affine), LPS @ image.affine
    made.SetSpacing(sizes.tolist())
    made.SetOrigin(affine[:3, 3].tolist())
    made.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:3, :3] / sizes)))
    return made


@dataclass(frozen=True)
class Fit:
    """Quality of an image's position relative to the reference.

    Attributes:
        overlap: Dice of the two foregrounds within the image's field of view.
        information: normalised mutual information at the position in the headers, minus 1 (its value for unrelated
            images).
        best: the largest value that small shifts and rotations reach.
        moved: mean displacement in mm of the best position, over the reference's foreground.
        mirrored: the largest value that they reach with left and right of the image exchanged.
    """

    overlap: float
    information: float
    best: float
    moved: float
    mirrored: float

    @property
    def is_off(self) -> bool:
        """Whether another position than that in the headers is clearly better."""
        return self.overlap < NO_OVERLAP or (
            self.moved >= FARTHEST_RIGHT and self.best > GAIN * self.information and not self.is_mirrored
        )

    @property
    def is_mirrored(self) -> bool:
        """Whether the image fits clearly better with left and right exchanged."""
        return self.mirrored > MIRROR_GAIN * self.best


def compare_places(reference: np.ndarray, image: np.ndarray, seen: np.ndarray, spacing: float) -> Fit:
    """Compare an image with the reference (0 where nothing is known) on one grid whose first axis is left-right.

    ``seen`` is the mask of the image's field of view, ``spacing`` the voxel size in mm.
    """
    fixed, moving, inside = (_coarse(volume, FIT_SPACING / spacing) for volume in (reference, image, seen))
    inside = inside > 0.5
    both = not_air(fixed) & inside, not_air(moving) & inside
    overlap = 2 * (both[0] & both[1]).sum() / max(both[0].sum() + both[1].sum(), 1)
    pair = _Pair(fixed, moving, inside)
    pose, best = pair.search(STEPS)
    mirrored = _Pair(fixed, moving[::-1], inside[::-1]).search(STEPS[:1])[1]
    return Fit(float(overlap), pair.information(np.zeros(6)) - 1, best - 1, pair.distance(pose), mirrored - 1)


def _coarse(volume: np.ndarray, factor: float) -> np.ndarray:
    step = max(round(factor), 1)
    channel = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
    return torch.nn.functional.avg_pool3d(channel, step, ceil_mode=True)[0, 0].numpy()


class _Pair:
    """Two volumes on one grid; the second is moved by poses: mm along the axes, degrees about them."""

    def __init__(self, fixed: np.ndarray, moving: np.ndarray, seen: np.ndarray) -> None:
        self.moving, self.seen = np.ascontiguousarray(moving), np.ascontiguousarray(seen, dtype=np.uint8)
        shown = not_air(fixed)
        voxels = np.argwhere(shown) if shown.any() else np.array([[0, 0, 0], fixed.shape])
        near = box(shown, BORDER)  # leaving out what is far from the reference's foreground saves most of the time
        self.corner = np.array([part.start for part in near])
        self.fixed, self.shown, self.centre = fixed[near], shown[near], voxels.mean(axis=0)
        self.least = np.count_nonzero(self.shown & (self.seen[near] > 0)) * LEAST_SEEN
        above = self.moving[not_air(self.moving)]
        self.threshold = float(above.min()) if above.size else np.inf
        self.known: dict[tuple, float] = {}

    def information(self, pose: np.ndarray) -> float:
        """Return the normalised mutual information over both outlines, within the moved image's field of view."""
        key = tuple(pose)
        if key not in self.known:
            turn, shift = self._placed(pose)
            shift = shift + turn @ self.corner
            moved = affine_transform(self.moving, turn, shift, self.fixed.shape, order=1)
            seen = affine_transform(self.seen, turn, shift, self.fixed.shape, order=0) > 0
            region = (self.shown | (moved >= self.threshold)) & seen
            enough = np.count_nonzero(region) > self.least
            self.known[key] = normalised_mutual_information(self.fixed[region], moved[region]) if enough else 1.0
        return self.known[key]

    def distance(self, pose: np.ndarray) -> float:
        """Return the mean distance in mm by which a pose moves the reference's foreground."""
        voxels = np.argwhere(self.shown) + self.corner
        turn, shift = self._placed(pose)
        return (
            float(np.linalg.norm(voxels @ turn.T + shift - voxels, axis=1).mean() * FIT_SPACING) if len(voxels) else 0.0
        )

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

    def _placed(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turn = Rotation.from_euler("xyz", pose[3:], degrees=True).as_matrix()
        return turn, self.centre + pose[:3] / FIT_SPACING - turn @ self.centre
