"""Alignment of a subject's volumes on one grid, with registration if they do not share a frame of reference."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from common.modalities import display_name
from mmb.clinic.head.grid import Grid, Image, finest, in_field_of_view, isotropic_grid, moved, resample
from mmb.clinic.head.placement import NO_OVERLAP, Fit, compare_places
from mmb.clinic.head.registration import Registration, register
from mmb.errors import StudyError


class MisfitError(StudyError):
    """Volumes that cannot be put on the reference's grid; ``names`` are theirs, and last the reference's."""

    names: Sequence[str] = ()


@dataclass(frozen=True)
class AlignedStudy:
    """A subject's volumes on one grid, by their names, e.g. of the modalities."""

    images: dict[str, Image]  # float32, 0 outside the volume's field of view
    registered: dict[str, Registration]  # from another frame of reference or a wrong position
    misplaced: dict[str, str] = field(default_factory=dict)  # warnings: wrong position, or mirrored
    placed: dict[str, Image] = field(default_factory=dict)  # on their own grids, where they were found
    failed: dict[str, str] = field(default_factory=dict)  # why misplaced ones stay where they were
    mirrored: dict[str, str] = field(default_factory=dict)  # warnings on those alone

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the study with only some of its volumes, under other names: ``names`` maps old ones to new ones."""
        parts = vars(self).items()
        return replace(self, **{part: {names[old]: each[old] for old in names if old in each} for part, each in parts})

    def seen_from(self, name: str, affine: np.ndarray) -> Self:
        """Return the study with all volumes moved so that one lies where its own header puts it: at ``affine``."""
        if np.array_equal(affine, here := self.placed[name].affine):
            return self
        move = affine @ np.linalg.inv(here)

        def moved_by(volumes: Mapping[str, Image]) -> dict[str, Image]:
            return {name: Image(each.dataobj, move @ each.affine) for name, each in volumes.items()}

        return replace(self, images=moved_by(self.images), placed=moved_by(self.placed))

    def cut_out(self, brain: np.ndarray | None) -> Self:
        """Return the study with its volumes set to 0 outside a mask ``(X, Y, Z)``; None leaves them as they are."""
        if brain is None:
            return self
        whole = self.images.items()
        cut = {name: Image(np.where(brain, each.dataobj, np.float32(0)), each.affine) for name, each in whole}
        return replace(self, images=cut)


def align(
    images: Mapping[str, Image],
    frames: Mapping[str, str],
    reference: str,
    spacing: float = 1.0,
    label: Callable[[str], str] = display_name,
) -> AlignedStudy:
    """Resample a subject's volumes onto one isotropic grid over the reference's field of view.

    The grid has the reference's axes, in the order and direction nearest to RAS, so an oblique reference is not
    rotated. Volumes in the reference's frame are only resampled. Those in another frame are registered rigidly first,
    all of a frame by the transform of the finest one. One that does not lie over the reference even so (see
    `compare_places`) is registered on its own, if that improves the overlap.

    ``frames`` names each volume's frame of reference; ``spacing`` is the grid's voxel size in mm; ``label`` words a
    volume's name for messages. Raises MisfitError if a volume does not overlap the reference, or cannot be registered.
    """
    grid = isotropic_grid(images[reference], spacing)
    fixed = resample(images[reference], grid)
    moves: dict[str, Registration] = {}
    for frame in dict.fromkeys(frames.values()):
        members = [name for name in images if frames[name] == frame]
        if frame != frames[reference]:
            leader = finest({name: images[name] for name in members})
            pair = f"{' and '.join(map(label, members))} to {label(reference)}"
            try:
                moves[frame] = register(Image(fixed, grid.affine), images[leader], pair)
            except ValueError as error:
                raise _misfit([*members, reference], error) from error
    registered = {name: moves[frame] for name, frame in frames.items() if frame in moves}
    placed = {**images, **{name: moved(images[name], move.transform) for name, move in registered.items()}}

    def compare(name: str) -> tuple[np.ndarray, Fit | None]:
        if name == reference:
            return fixed, None
        volume = resample(placed[name], grid)
        seen = in_field_of_view(Grid(placed[name].shape, placed[name].affine), grid)
        return volume, compare_places(fixed, volume, seen, spacing)

    def consents(name: str) -> bool:
        """Return whether another image fits it better too with left and right exchanged, if there is one."""
        others = [other for other in images if other not in (name, reference)]
        fits = (compared[other][1] for other in others)
        if not others or any(fit is not None and fit.is_mirrored for fit in fits):  # else it may be the reference
            return True
        seen = in_field_of_view(Grid(placed[name].shape, placed[name].affine), grid)
        found = compare_places(compared[others[0]][0], compared[name][0], seen, spacing)
        return found.mirrored > found.original

    with ThreadPoolExecutor() as pool:  # SciPy and PyTorch, which take most of the time, release the interpreter
        compared = dict(zip(images, pool.map(compare, images), strict=True))
    aligned, misplaced, failed, mirrored = {}, {}, {}, dict[str, str]()
    for name, (volume, fit) in compared.items():
        if fit is not None and fit.is_mirrored:
            misplaced[name] = (
                "fits the reference better with left and right exchanged "
                f"({_compared(fit.mirrored, fit.original)}): one of the two seems to be mirrored. Check left and right "
                "in both; if they differ, convert both again from the scanner's files."
            )
            mirrored |= {name: misplaced[name]} if consents(name) else {}
        elif fit is not None and fit.is_misplaced:
            better = _compared(fit.best, fit.information)
            if fit.overlap < NO_OVERLAP:  # there is hardly any information to compare
                better = f"Dice of their outlines {fit.overlap:.2f}"
            try:
                mended = _mended(Image(fixed, grid.affine), placed[name], label(name), label(reference), fit)
            except ValueError as error:
                raise _misfit([name, reference], error) from error
            if isinstance(mended, Registration):
                registered[name], placed[name] = mended, moved(placed[name], mended.transform)
                volume = resample(placed[name], grid)
                misplaced[name] = (
                    f"does not lie over the reference where its header puts it ({better}); it was registered. Look at "
                    "the pictures."
                )
            else:
                failed[name] = mended
                misplaced[name] = (
                    f"does not lie over the reference: about {fit.displacement_mm:.0f} mm away it would fit better "
                    f"({better}), but it could not be registered ({mended}). Do not trust the result."
                )
        aligned[name] = Image(volume, grid.affine)
    return AlignedStudy(aligned, registered, misplaced, placed, failed, mirrored)


def _misfit(names: Sequence[str], error: ValueError) -> MisfitError:
    misfit = MisfitError(str(error), code="not_registered")
    misfit.names = names
    return misfit


def _mended(fixed: Image, placed: Image, name: str, reference: str, fit: Fit) -> Registration | str:
    """Return the registration of a misplaced volume, or why it failed; ValueError if the two do not even overlap."""
    try:
        return register(fixed, placed, f"{name} to {reference}")
    except (ValueError, ImportError) as error:
        if fit.overlap >= NO_OVERLAP:
            return str(error).rstrip(".")
        raise ValueError(
            f"{name} and {reference} do not overlap by their headers (Dice of their outlines {fit.overlap:.2f}), "
            f"and could not be registered: {error} Leave one out, or convert both again from the scanner's files."
        ) from error


def _compared(more: float, less: float) -> str:
    return f"normalised mutual information {1 + more:.3f} instead of {1 + less:.3f}"
