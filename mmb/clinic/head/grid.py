"""Grids of voxels: resampling of volumes and label maps between them, and the geometry of masks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from nibabel.affines import apply_affine, from_matvec, voxel_sizes
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import ArrayLike
from scipy import ndimage

from common.io.geometry import lengths
from mmb.clinic.intake.field_of_view import WHOLE, shares
from mmb.errors import StudyError

AIR = 0.1  # fraction of an image's 99th percentile up to which a voxel is air or background; others are its foreground
MOST_VOXELS = 2**28  # maximum number of voxels of a grid for resampling (1 GiB in float32): a cube of 645 mm at 1 mm
STRAIGHT = 1e-3  # maximum deviation in voxels, over a whole grid, for the axes of two grids to count as parallel
Image = nib.Nifti1Image
"""A volume ``(X, Y, Z)`` whose affine leads to mm, RAS."""


class Grid(NamedTuple):
    """A grid of voxels: the number of voxels along each axis, and the affine ``(4, 4)`` to mm, RAS."""

    shape: tuple[int, ...]
    affine: np.ndarray


def finest(images: Mapping[str, Image]) -> str:
    """Return the modality whose longest voxel edge is shortest; among equals, that with the smallest voxels."""
    sizes = {name: voxel_sizes(image.affine).round(3) for name, image in images.items()}
    return min(images, key=lambda name: (sizes[name].max(), sizes[name].prod()))


def whole(images: Mapping[str, Image], frames: Mapping[str, str]) -> dict[str, Image]:
    """Return the images that show the whole head, as far as others show it; all if none does (see `field_of_view`)."""
    covered = shares([(image.shape, image.affine) for image in images.values()], [frames[name] for name in images])
    found = {name: images[name] for name, share in zip(images, covered, strict=True) if share >= WHOLE}
    return found or {**images}


def isotropic_grid(image: Image, spacing: float) -> Grid:
    """Return the grid of cubes of ``spacing`` mm over a volume's field of view, its axes in the order nearest to RAS.

    Raises ValueError if it would have more than `MOST_VOXELS`.
    """
    orientation = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(orientation, image.shape)
    shape = np.array(image.shape)[np.argsort(orientation[:, 0])]
    sizes = voxel_sizes(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / sizes)  # the nearest orthogonal axes, in case of shear
    count = np.maximum(np.ceil(shape * sizes / spacing - 1e-3), 1)
    if not count.prod() <= MOST_VOXELS:
        raise StudyError(
            f"A field of view of {lengths(shape * sizes)} mm needs {lengths(count)} voxels of {spacing:g} mm, more "
            f"than the maximum of {MOST_VOXELS}. Are its voxel sizes right? If so, crop it to the head.",
            code="too_large",
        )
    count = count.astype(int)
    directions = left @ right * spacing
    corner = apply_affine(affine, (shape - 1) / 2) - directions @ ((count - 1) / 2)
    return Grid(tuple(count.tolist()), from_matvec(directions, corner))


def resample(image: Image, grid: Grid) -> np.ndarray:
    """Interpolate a volume linearly on a grid, float32.

    Voxels of exactly 0 (the background of a stripped image) and those outside the field of view are left out of the
    interpolation, so that edges stay in place. The result is 0 where voxels with data have less than half of the
    weight.
    """
    turned = nib.as_closest_canonical(image)
    if turned.shape == grid.shape and np.allclose(turned.affine, grid.affine, rtol=0, atol=1e-5):
        return np.ascontiguousarray(turned.dataobj, dtype=np.float32)  # the same voxels, possibly flipped
    volume = np.asarray(image.dataobj, dtype=np.float32)
    values, data = sample(np.stack([volume, volume != 0]), image.affine, grid)
    # Slightly less than a half, so that rounding does not decide.
    return np.divide(values, data, out=np.zeros_like(values), where=data > 0.5 - 1e-3)


def sample(channels: np.ndarray, affine: np.ndarray, grid: Grid) -> np.ndarray:
    """Interpolate volumes ``(C, X, Y, Z)`` linearly on a grid, float32; outside the volumes the result is 0.

    If the grid is coarser, each of its voxels is the mean of several samples along each axis.
    """
    to_source = np.linalg.inv(affine) @ grid.affine
    finer = np.maximum(np.rint(np.abs(to_source[:3, :3]).max(axis=0)), 1).astype(int)
    runs = np.abs(to_source[:3, :3]) * grid.shape > STRAIGHT
    if (runs.sum(axis=0) == 1).all() and (runs.sum(axis=1) == 1).all():
        return _sample_straight(channels, to_source, finer, grid.shape)
    volumes = MetaTensor(torch.from_numpy(channels.astype(np.float32)), affine=torch.from_numpy(affine))
    linear = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=np.float32)
    total = np.zeros((len(channels), *grid.shape), np.float32)
    for step in product(*(range(count) for count in finer)):
        shifted = grid.affine @ from_matvec(np.eye(3), (np.array(step) + 0.5) / finer - 0.5)
        total += linear(volumes, dst_affine=torch.from_numpy(shifted), spatial_size=grid.shape).numpy()
    return total / np.float32(finer.prod())


def _sample_straight(
    channels: np.ndarray, to_source: np.ndarray, finer: np.ndarray, shape: Sequence[int]
) -> np.ndarray:
    """Do what `sample` does, but for parallel axes: one at a time, much faster. ``finer``: samples along each."""
    sources = np.abs(to_source[:3, :3]).argmax(axis=0)  # axis of the volumes that each axis of the grid runs along
    made = torch.from_numpy(channels.transpose(0, *(1 + sources)).astype(np.float32))
    for axis, (source, count) in enumerate(zip(sources, finer, strict=True)):
        within = (np.arange(count) + 0.5) / count - 0.5
        at = to_source[source, axis] * (np.arange(shape[axis])[:, None] + within) + to_source[source, 3]
        distance = np.abs(at[..., None] - np.arange(channels.shape[1 + source]))
        weights = torch.from_numpy(np.clip(1 - distance, 0, None).mean(axis=1, dtype=np.float32))
        made = torch.tensordot(made, weights, dims=([1], [1]))  # moves the axis to the end; in order after three
    return made.contiguous().numpy()


def resample_label_to(
    label: np.ndarray,
    grid_affine: np.ndarray,
    reference_affine: np.ndarray,
    reference_shape: Sequence[int],
    classes: Iterable[int],
) -> np.ndarray:
    """Resample a label map ``(X, Y, Z)`` of these ``classes`` to the reference's own grid; affines lead to mm, RAS.

    Each class is interpolated linearly and averaged over the reference's voxels. A voxel gets the class with the
    largest share, where the background counts as a class. A class that gets no voxel this way is given the one where
    its share is largest. Parts outside the reference's grid are lost.
    """
    target = Grid(tuple(reference_shape), np.asarray(reference_affine, float))
    source = Grid(label.shape, np.asarray(grid_affine, float))
    resampled = np.zeros(target.shape, label.dtype)
    inside = _target_box(label != 0, source, target)
    part = resampled[inside]  # a view
    if not label.any() or not part.size:
        return resampled
    corner = target.affine.copy()
    corner[:3, 3] = apply_affine(target.affine, [axis.start for axis in inside])
    values = np.array([0, *classes], label.dtype)
    shares = sample(label == values[1:, None, None, None], source.affine, Grid(part.shape, corner))
    part[:] = values[np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]).argmax(axis=0)]
    for value, share in zip(values[1:], shares, strict=True):
        if share.any() and not (part == value).any():
            part[np.unravel_index(share.argmax(), part.shape)] = value
    return resampled


def not_air(volume: np.ndarray) -> np.ndarray:
    """Return which voxels of a volume ``(X, Y, Z)`` are above `AIR` times its 99th percentile: neither air nor 0."""
    above = volume[volume > 0]
    return volume > AIR * np.percentile(above, 99) if above.size else np.zeros(volume.shape, bool)


def moved(image: Image, transform: np.ndarray) -> Image:
    """Return a volume moved by the inverse of a transform, which leads from mm to the volume's own mm."""
    return Image(image.dataobj, np.linalg.inv(transform) @ image.affine)


def in_field_of_view(source: Grid, target: Grid) -> np.ndarray:
    """Return which voxels of ``target`` have their centre within ``source``: bool of the target's shape."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    inside = np.ones(target.shape, bool)
    for axis, size in enumerate(source.shape):
        at = np.full((1, 1, 1), to_source[axis, 3])
        for i, count in enumerate(target.shape):
            if abs(step := to_source[axis, i]) * count > STRAIGHT:
                at = at + np.expand_dims(step * np.arange(count), tuple({0, 1, 2} - {i}))
        inside &= (at > -0.5 - 1e-6) & (at < size - 0.5 + 1e-6)
    return inside


def box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Return the bounding box of a mask ``(X, Y, Z)``, with a margin in voxels; all voxels if it is empty."""
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    (extent,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in extent)


def volume_of(mask: np.ndarray, spacing: ArrayLike) -> float:
    """Return the volume in ml of a mask ``(X, Y, Z)`` whose voxels have this size in mm."""
    return float(np.count_nonzero(mask) * np.prod(np.asarray(spacing)) / 1000)


def connected_pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each voxel's connected piece (1, 2, ...; corners connect), and the sizes in voxels."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return numbers, np.bincount(numbers.ravel())[1:]


def _target_box(mask: np.ndarray, source: Grid, target: Grid) -> tuple[slice, ...]:
    """Return the box of a grid's voxels that a mask on another grid covers, with a margin of one voxel."""
    ends = [(part.start - 1, part.stop) for part in box(mask)]
    corners = apply_affine(np.linalg.inv(target.affine) @ source.affine, np.array(list(product(*ends))))
    low = np.clip(np.floor(corners.min(axis=0)) - 1, 0, None).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0)) + 2, target.shape).astype(int)
    return tuple(slice(start, max(start, stop)) for start, stop in zip(low, high, strict=True))
