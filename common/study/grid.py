"""Bringing a subject's volumes onto one grid, and a label map back onto the grid of one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation
from scipy.spatial.transform import Rotation

LEAST_PEAK = 2.0
"""A registration has failed if the volumes do not tell so many times more about each other than they do `ASIDE` mm off.
On the phantom it is 4 to 18 times for sequences of one subject, about 1 for those of two subjects, and for noise."""
ASIDE = 12.0
LEAST_OVERLAP = 0.7
"""Share of the smaller foreground that has to lie within the other one."""
REGISTERED_AT = 2.0
"""Spacing in mm of the images that are registered; at 1 mm elastix smooths eight times as many voxels, for long."""
BINS = 32
FOREGROUND = 0.1
"""Share of an image's 99th percentile above which a voxel is foreground: neither air nor background."""

Image = nib.Nifti1Image
"""A volume ``(X, Y, Z)`` whose affine leads to millimetres, RAS."""


class Grid(NamedTuple):
    """Where voxels lie: the number of them along each axis, and the affine ``(4, 4)`` to millimetres, RAS."""

    shape: tuple[int, int, int]
    affine: np.ndarray


@dataclass(frozen=True)
class Registration:
    """How a volume in another frame of reference was laid over the reference.

    Attributes:
        transform: rigid, ``(4, 4)``, from millimetres (RAS) of the reference to those of the volume.
        before: normalised mutual information (see `normalised_mutual_information`) as the headers place the two, of the
            voxels that are foreground in both.
        quality: the same after registration.
        peak: how many times more of it (above 1, which is none) there is than `ASIDE` mm off, in the mean over the six
            directions.
        overlap: share of the smaller of the two foregrounds that lies within the other.
        text: the same as a sentence.
    """

    transform: np.ndarray
    before: float
    quality: float
    peak: float
    overlap: float
    text: str


@dataclass(frozen=True)
class AlignedStudy:
    """A subject's volumes on one grid.

    Attributes:
        images: by modality, float32, 0 outside a volume's field of view.
        registered: how those in another frame of reference than the reference's were laid over it.
        covered: by modality, the share of the reference's foreground that lies in the volume's field of view.
    """

    images: dict[str, Image]
    registered: dict[str, Registration]
    covered: dict[str, float]


def to_one_grid(
    images: Mapping[str, Image], frames: Mapping[str, str], reference: str, spacing: float = 1.0
) -> AlignedStudy:
    """Resample a subject's volumes onto one isotropic grid over the reference's field of view.

    The grid has the reference's axes, in the order and direction that are nearest to RAS, so an oblique reference is
    not turned. Volumes in its frame of reference are resampled only; those in another one are registered rigidly
    first, all volumes of a frame together, by its finest one.

    Args:
        images: by modality.
        frames: by modality, what names its frame of reference; volumes of one name have their millimetres in common.
        reference: modality whose field of view is kept.
        spacing: of the grid, in mm.

    Raises:
        ValueError: a volume cannot be registered to the reference (what was measured is said).
        ModuleNotFoundError: a registration is needed, and itk-elastix is not installed.
    """
    grid = isotropic_grid(images[reference], spacing)
    fixed = resample(images[reference], grid)
    foreground = _foreground(fixed)
    moves: dict[str, Registration | None] = {frames[reference]: None}
    for frame in frames.values():
        if frame not in moves:
            members = [name for name in images if frames[name] == frame]
            leader = finest({name: images[name] for name in members})
            moves[frame] = register(Image(fixed, grid.affine), images[leader], f"{leader} to {reference}")
    aligned, covered = {}, {}
    for name, image in images.items():
        move = moves[frames[name]]
        placed = image if move is None else _moved(image, move.transform)
        aligned[name] = Image(fixed if name == reference else resample(placed, grid), grid.affine)
        seen = _inside(Grid(image.shape, placed.affine), grid)[foreground]
        covered[name] = float(seen.mean()) if seen.size else 0.0
    registered = {name: move for name, frame in frames.items() if (move := moves[frame]) is not None}
    return AlignedStudy(aligned, registered, covered)


def resample_label_to(
    label: np.ndarray,
    grid_affine: np.ndarray,
    reference_affine: np.ndarray,
    reference_shape: Sequence[int],
    classes: Iterable[int],
) -> np.ndarray:
    """Bring a label map onto the reference's own grid.

    Each class is interpolated linearly and averaged over the reference's voxels, and a voxel gets the class, or the
    background, that it has most of. A class too small to have most of any voxel keeps the one that it has most in.

    Args:
        label: ``(X, Y, Z)``, whole numbers, 0 is the background.
        grid_affine: of the label map, to mm, RAS.
        reference_affine: of the grid to bring it to.
        reference_shape: of that grid.
        classes: the values of the label map.

    Returns:
        The label map on the reference's grid, of the label's type. What lies outside of it is lost.
    """
    target = Grid(tuple(reference_shape), np.asarray(reference_affine, float))
    source = Grid(label.shape, np.asarray(grid_affine, float))
    found = np.zeros(target.shape, label.dtype)
    inside = _target_box(label != 0, source, target)
    part = found[inside]  # a view
    if not part.size:
        return found
    corner = target.affine.copy()
    corner[:3, 3] = apply_affine(target.affine, [axis.start for axis in inside])
    values = np.array([0, *classes], label.dtype)
    shares = sample(label == values[1:, None, None, None], source.affine, Grid(part.shape, corner))
    part[:] = values[np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)]
    for value, share in zip(values[1:], shares, strict=True):
        if share.any() and not (part == value).any():
            part[np.unravel_index(share.argmax(), part.shape)] = value
    return found


def finest(images: Mapping[str, Image]) -> str:
    """Return the modality whose largest voxel edge is smallest; of equal ones the one of the smallest voxels."""
    sizes = {name: voxel_sizes(image.affine).round(3) for name, image in images.items()}
    return min(images, key=lambda name: (sizes[name].max(), sizes[name].prod()))


def isotropic_grid(image: Image, spacing: float) -> Grid:
    """Return the grid of cubes that covers a volume's field of view: its axes, in the order and direction nearest RAS.

    Args:
        image: the volume.
        spacing: edge of the cubes in mm.
    """
    orientation = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(orientation, image.shape)
    shape = np.array(image.shape)[np.argsort(orientation[:, 0])]
    sizes = voxel_sizes(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)  # the nearest axes at right angles, were it sheared
    count = np.maximum(np.ceil(shape * sizes / spacing - 1e-3), 1).astype(int)
    directions = left @ right * spacing
    corner = apply_affine(affine, (shape - 1) / 2) - directions @ ((count - 1) / 2)
    return Grid(tuple(count.tolist()), from_matvec(directions, corner))


def resample(image: Image, grid: Grid) -> np.ndarray:
    """Interpolate a volume linearly on a grid, float32; 0 where less than half of what is interpolated between is data.

    Voxels of exactly 0, the background of a stripped image, hold no data, and neither do those outside the field of
    view: they count for nothing in an interpolation. So edges stay where they are, and are not blurred into a rim.
    """
    volume = np.asarray(image.dataobj, dtype=np.float32)
    values, data = sample(np.stack([volume, volume != 0]), image.affine, grid)
    # nothing lies at exactly a half: rounding would decide
    return np.divide(values, data, out=np.zeros_like(values), where=data > 0.5 - 1e-3)


def sample(channels: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Interpolate volumes ``(C, X, Y, Z)`` linearly on a grid, float32; around them all is 0.

    Where the grid is coarser, each of its voxels is the mean of as many samples along each axis as it is larger.

    Args:
        channels: the volumes.
        affine: theirs, to mm, RAS.
        grid: to interpolate on.
    """
    volumes = MetaTensor(torch.from_numpy(channels.astype(np.float32)), affine=torch.from_numpy(affine))
    linear = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=np.float64)
    steps = np.abs(np.linalg.inv(affine) @ grid.affine)[:3, :3].max(axis=0)
    finer = np.maximum(np.rint(steps), 1).astype(int)
    total = np.zeros((len(channels), *grid.shape), np.float32)
    for step in product(*(range(count) for count in finer)):
        shifted = grid.affine @ from_matvec(np.eye(3), (np.array(step) + 0.5) / finer - 0.5)
        total += linear(volumes, dst_affine=torch.from_numpy(shifted), spatial_size=grid.shape).numpy()
    return total / np.float32(finer.prod())


def register(fixed: Image, moving: Image, name: str) -> Registration:
    """Lay one volume over another by a rigid transform of the most mutual information, and measure how well it lies.

    elastix (Klein et al., IEEE TMI 29(1), 2010), coarse to fine, from where the headers put the two or from where their
    centres of mass coincide, whichever tells more. The same volumes give the same transform.

    Args:
        fixed: isotropic, axes at right angles.
        moving: the volume to place.
        name: of the two, for messages, e.g. ``t2 to t1c``.

    Raises:
        ValueError: the volumes have too little in common, or hardly overlap.
        ModuleNotFoundError: itk-elastix is not installed.
    """
    coarse = isotropic_grid(fixed, REGISTERED_AT)
    still, shown = np.eye(4), resample(fixed, coarse)

    def overlay(transform: np.ndarray) -> _Overlay:
        return _Overlay.of(shown, _moved(moving, transform), coarse)

    before = overlay(still)
    # what overlaps little may tell much by chance
    start = max((still, _between_centres(fixed, moving)), key=lambda move: overlay(move).ranking())
    own = isotropic_grid(moving, REGISTERED_AT)
    transform = start @ _elastix(Image(shown, coarse.affine), _moved(Image(resample(moving, own), own.affine), start))
    after = overlay(transform)
    middle = apply_affine(coarse.affine, (np.array(coarse.shape) - 1) / 2)
    made = Registration(transform, before.information(), after.information(), after.peak(), after.overlap(), "")
    text = (
        f"{name}: registered, moved by {np.linalg.norm(apply_affine(transform, middle) - middle):.1f} mm and turned by "
        f"{_angle(transform):.1f} degrees; normalised mutual information {made.before:.3f} before, {made.quality:.3f} "
        f"after, {made.peak:.1f} times what it is {ASIDE:g} mm off; foregrounds overlap by {made.overlap:.0%}"
    )
    if made.peak < LEAST_PEAK or made.overlap < LEAST_OVERLAP:
        raise ValueError(
            f"{text}. Expected at least {LEAST_PEAK:g} times and {LEAST_OVERLAP:.0%}: the two could not be laid over "
            "each other. Leave one out, register them yourself, or check that both are of one patient's head."
        )
    return replace(made, text=text)


def normalised_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return ``(H(a) + H(b)) / H(a, b)`` of two arrays' values: 1 if they are independent, 2 if each tells the other.

    Histograms have `BINS` bins from each array's 1st to its 99th percentile (Studholme et al., Pattern Recognition
    32(1), 1999).

    Args:
        first: values at the voxels that count.
        second: those of the other image at the same voxels.
    """
    ranked = []
    for values in (first, second):
        low, high = np.percentile(values, (1, 99))
        scaled = (values - low) / max(high - low, np.finfo(np.float32).tiny)
        ranked.append(np.clip(scaled * BINS, 0, BINS - 1).astype(np.int64))
    joint = np.bincount(ranked[0] * BINS + ranked[1], minlength=BINS * BINS).reshape(BINS, BINS) / first.size
    together = _entropy(joint)
    return (_entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))) / together if together > 0 else 1.0


def _entropy(shares: np.ndarray) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())


def _foreground(volume: np.ndarray) -> np.ndarray:
    above = volume[volume > 0]
    return volume > FOREGROUND * np.percentile(above, 99) if above.size else np.zeros(volume.shape, bool)


@dataclass(frozen=True)
class _Overlay:
    """Two volumes on one grid, with their foregrounds; of the edge of the grid in mm."""

    volumes: tuple[np.ndarray, np.ndarray]
    masks: tuple[np.ndarray, np.ndarray]
    spacing: float

    @classmethod
    def of(cls, first: np.ndarray, second: Image, grid: Grid) -> _Overlay:
        volumes = first, resample(second, grid)
        seen = _inside(Grid(second.shape, second.affine), grid)
        masks = tuple(_foreground(volume) & seen for volume in volumes)
        return cls(volumes, masks, float(voxel_sizes(grid.affine)[0]))

    def overlap(self) -> float:
        smaller = min(mask.sum() for mask in self.masks)
        return float((self.masks[0] & self.masks[1]).sum() / smaller) if smaller else 0.0

    def information(self, axis: int = 0, step: int = 0) -> float:
        """Return the normalised mutual information where both are foreground, the second moved by voxels on an axis."""
        ends = slice(max(step, 0), min(step, 0) or None), slice(max(-step, 0), min(-step, 0) or None)
        at = [(slice(None),) * axis + (end,) for end in ends]
        both = self.masks[0][at[0]] & self.masks[1][at[1]]
        if not both.any():
            return 1.0
        return normalised_mutual_information(self.volumes[0][at[0]][both], self.volumes[1][at[1]][both])

    def peak(self) -> float:
        step = round(ASIDE / self.spacing)
        aside = [self.information(axis, sign * step) - 1 for axis in range(3) for sign in (-1, 1)]
        return (self.information() - 1) / max(float(np.mean(aside)), 1e-6)

    def ranking(self) -> tuple[bool, float]:
        return self.overlap() >= LEAST_OVERLAP, self.information()


def _moved(image: Image, transform: np.ndarray) -> Image:
    """Return a volume where a transform (of mm to its own mm) finds it."""
    return Image(image.dataobj, np.linalg.inv(transform) @ image.affine)


def _between_centres(fixed: Image, moving: Image) -> np.ndarray:
    """Return the shift from the centre of one volume's foreground to that of the other's."""
    centres = []
    for image in (fixed, moving):
        mask = _foreground(np.asarray(image.dataobj, dtype=np.float32))
        voxels = np.argwhere(mask) if mask.any() else np.array([np.array(mask.shape) / 2])
        centres.append(apply_affine(image.affine, voxels.mean(axis=0)))
    return from_matvec(np.eye(3), centres[1] - centres[0])


def _elastix(fixed: Image, moving: Image) -> np.ndarray:
    """Return the rigid transform ``(4, 4)`` from mm (RAS) of one volume to those of another, both isotropic."""
    try:
        import itk
        from itk import ParameterObject
    except ImportError as error:
        raise ModuleNotFoundError(
            "The series have different frames of reference, and registering them needs itk-elastix, which is not "
            "installed: pip install 'missing-modality-bundles[registration]'."
        ) from error
    settings = ParameterObject.New()
    rigid = ParameterObject.GetDefaultParameterMap("rigid", 4)
    for key, values in {
        "AutomaticTransformInitialization": ["false"],
        "FixedImagePyramid": ["FixedGenericImagePyramid"],  # half the time of the default
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
        try:  # one thread: sums in one order
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
    flip = np.diag([-1.0, -1, 1, 1])  # ITK's millimetres are LPS
    return flip @ transform @ flip


def _to_itk(image: Image):
    import itk

    made = itk.image_from_array(np.ascontiguousarray(np.asarray(image.dataobj, dtype=np.float32).T))
    sizes, flip = voxel_sizes(image.affine), np.diag([-1.0, -1, 1])
    made.SetSpacing(sizes.tolist())
    made.SetOrigin((flip @ image.affine[:3, 3]).tolist())
    made.SetDirection(itk.matrix_from_array(np.ascontiguousarray(flip @ image.affine[:3, :3] / sizes)))
    return made


def _inside(source: Grid, target: Grid) -> np.ndarray:
    """Return which voxels of a grid have their centre within the voxels of another: bool of the grid's shape."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    inside = np.ones(target.shape, bool)
    for axis, size in enumerate(source.shape):
        x, y, z = (to_source[axis, i] * np.arange(count) for i, count in enumerate(target.shape))
        at = (x[:, None, None] + y[None, :, None]) + (z + to_source[axis, 3])
        inside &= (at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6)
    return inside


def _target_box(mask: np.ndarray, source: Grid, target: Grid) -> tuple[slice, ...]:
    """Return the box of a grid's voxels that a mask on another grid reaches, one voxel more on each side."""
    if not mask.any():
        return (slice(0, 0),) * 3
    ends = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] + [-1, 1] for axis in range(3)]
    corners = apply_affine(np.linalg.inv(target.affine) @ source.affine, np.array(list(product(*ends))))
    low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, None).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 2, target.shape).astype(int)
    return tuple(slice(start, max(start, stop)) for start, stop in zip(low, high, strict=True))


def _angle(transform: np.ndarray) -> float:
    """Return the angle of a rigid transform in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(transform[:3, :3]) - 1) / 2, -1, 1))))
