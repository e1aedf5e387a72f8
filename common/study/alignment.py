"""A subject's volumes brought onto one grid, and registered where they have no frame of reference in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.study.grid import Grid, Image, finest, foreground, in_field_of_view, isotropic_grid, moved, resample
from common.study.registration import Registration, register


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


def align(images: Mapping[str, Image], frames: Mapping[str, str], reference: str, spacing: float = 1.0) -> AlignedStudy:
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
    shown = foreground(fixed)
    moves: dict[str, Registration | None] = {frames[reference]: None}
    for frame in frames.values():
        if frame not in moves:
            members = [name for name in images if frames[name] == frame]
            leader = finest({name: images[name] for name in members})
            moves[frame] = register(Image(fixed, grid.affine), images[leader], f"{leader} to {reference}")
    aligned, covered = {}, {}
    for name, image in images.items():
        move = moves[frames[name]]
        placed = image if move is None else moved(image, move.transform)
        aligned[name] = Image(fixed if name == reference else resample(placed, grid), grid.affine)
        seen = in_field_of_view(Grid(image.shape, placed.affine), grid)[shown]
        covered[name] = float(seen.mean()) if seen.size else 0.0
    registered = {name: move for name, frame in frames.items() if (move := moves[frame]) is not None}
    return AlignedStudy(aligned, registered, covered)
