"""Alignment of a subject's volumes on one grid, with registration if they do not share a frame of reference."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from common.modalities import display_name
from common.study.grid import Grid, Image, finest, foreground, in_field_of_view, isotropic_grid, moved, resample
from common.study.overlap import NO_OVERLAP, Fit, fit
from common.study.registration import Registration, register


@dataclass(frozen=True)
class AlignedStudy:
    """A subject's volumes on one grid.

    Attributes:
        images: modality -> volume, float32, 0 outside the volume's field of view.
        registered: modality -> registration, for volumes in another frame of reference or with a wrong position.
        covered: modality -> fraction of the reference's foreground that lies in the volume's field of view.
        misplaced: modality -> warning, for volumes whose header gives a wrong position, or that seem mirrored.
        upright: registration of the mean brain to the reference, if the grid lies along its axes (see `atlas`).
    """

    images: dict[str, Image]
    registered: dict[str, Registration]
    covered: dict[str, float]
    misplaced: dict[str, str] = field(default_factory=dict)
    upright: Registration | None = None


def align(images: Mapping[str, Image], frames: Mapping[str, str], reference: str, spacing: float = 1.0) -> AlignedStudy:
    """Resample a subject's volumes onto one isotropic grid over the reference's field of view.

    The grid has the reference's axes, in the order and direction nearest to RAS; so an oblique reference is not
    rotated. Volumes in its frame of reference are only resampled. Those in another frame are registered rigidly first,
    all volumes of a frame together, using the finest one. If a volume then does not lie over the reference (see
    `overlap`), because its header is wrong, it is registered separately if that improves the overlap.

    Args:
        images: modality -> volume.
        frames: modality -> name of its frame of reference; volumes with the same name share their coordinates in mm.
        reference: modality whose field of view is kept.
        spacing: voxel size of the grid in mm.

    Raises:
        ValueError: if a volume cannot be registered to the reference (the message gives the measured values), or does
            not overlap it.
        ModuleNotFoundError: if a registration is needed, but itk-elastix is not installed.
    """
    grid = isotropic_grid(images[reference], spacing)
    fixed = resample(images[reference], grid)
    shown = foreground(fixed)
    moves: dict[str, Registration | None] = {frames[reference]: None}
    for frame in frames.values():
        if frame not in moves:
            members = [name for name in images if frames[name] == frame]
            leader = finest({name: images[name] for name in members})
            together = " and ".join(display_name(name) for name in members)
            moves[frame] = register(
                Image(fixed, grid.affine), images[leader], f"{together} to {display_name(reference)}"
            )
    registered = {name: move for name, frame in frames.items() if (move := moves[frame]) is not None}
    placed = {**images, **{name: moved(images[name], move.transform) for name, move in registered.items()}}

    def compare(name: str) -> tuple[np.ndarray, np.ndarray, Fit | None]:
        volume = fixed if name == reference else resample(placed[name], grid)
        seen = in_field_of_view(Grid(placed[name].shape, placed[name].affine), grid)
        return volume, seen, None if name == reference else fit(fixed, volume, seen, spacing)

    with ThreadPoolExecutor() as pool:  # SciPy and PyTorch, which take most of the time, release the interpreter
        compared = list(pool.map(compare, images))
    aligned, covered, misplaced = {}, {}, {}
    for name, (volume, seen, found) in zip(images, compared, strict=True):
        if found is not None:
            if found.is_mirrored:
                misplaced[name] = (
                    f"fits the {display_name(reference)} better with left and right "
                    f"exchanged ({_compared(found.mirrored, found.best)}): one of the two seems to be mirrored. Do not "
                    "trust the result; convert both again from the scanner's files."
                )
            elif found.is_off:
                mended = _mended(Image(fixed, grid.affine), placed[name], name, reference, found)
                if isinstance(mended, Registration):
                    registered[name], image = mended, moved(placed[name], mended.transform)
                    volume, seen = resample(image, grid), in_field_of_view(Grid(image.shape, image.affine), grid)
                    misplaced[name] = (
                        f"does not lie over the {display_name(reference)} where its header puts "
                        f"it ({_compared(found.best, found.information)}); it was registered. Look at the pictures."
                    )
                else:
                    misplaced[name] = (
                        f"does not lie over the {display_name(reference)}: about "
                        f"{found.moved:.0f} mm away it would fit better ({_compared(found.best, found.information)}), "
                        f"but it could not be registered ({mended}). Do not trust the result."
                    )
        aligned[name] = Image(volume, grid.affine)
        covered[name] = float(seen[shown].mean()) if shown.any() else 0.0
    return AlignedStudy(aligned, registered, covered, misplaced)


def _mended(fixed: Image, placed: Image, name: str, reference: str, found: Fit) -> Registration | str:
    """Return a registration of a misplaced volume, or the reason for its failure; raise if there is no overlap."""
    try:
        return register(fixed, placed, f"{display_name(name)} to {display_name(reference)}")
    except (ValueError, ModuleNotFoundError) as error:
        if found.overlap < NO_OVERLAP:
            raise ValueError(
                f"{display_name(name)} and {display_name(reference)} do not overlap where their headers put them "
                f"(Dice of their outlines {found.overlap:.2f}), and could not be registered: {error} Leave one out, or "
                "convert both again from the scanner's files."
            ) from error
        return str(error).rstrip(".")


def _compared(more: float, less: float) -> str:
    return f"normalised mutual information {1 + more:.3f} instead of {1 + less:.3f}"
