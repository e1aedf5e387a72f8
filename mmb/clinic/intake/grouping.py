"""Grouping of a study's slices into volumes.

A series that holds several volumes, such as echoes, planes or derived maps, falls into these by its headers. But
software also changes headers of some slices of one volume: a defacer marks those that it changed as DERIVED. So groups
that are each a part of one stack of slices (`_complete`) are never judged as if each were a volume: they are joined if
geometry and contrast agree, else refused together.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mmb.clinic.intake.headers import MISSING, ONE_UID, number, numbers, text, texts
from mmb.clinic.intake.regular_grid import SAME_POSITION, tolerance

VARYING = (("ImageOrientationPatient", 6, 1e-3), ("PixelSpacing", 2, 1e-3), ("EchoTime", 1, 0.05))
"""What some scanners write a little otherwise in each image of a volume: name, count, tolerance (echo time in ms)."""
GEOMETRY = (*VARYING[:2], ("Rows", 1, 0), ("Columns", 1, 0))
CONTRAST = tuple(
    (name, 1, 0.05) for name in ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle", "DiffusionBValue")
)
NONE_IF_MISSING = ("InversionTime", "DiffusionBValue")  # images without an inversion or diffusion weighting lack them
SAME_CONTRAST = 0.01  # tolerated ratio by which times and angles of one volume differ, beside the absolute tolerance
TEXTS = ("SeriesInstanceUID", "SOPClassUID", "FrameOfReferenceUID", "ComplexImageComponent", "ImageType")
ONE_PLANE = float(np.cos(np.pi / 4))  # minimum cosine between the normals of slices that may belong to one stack
ROOM = 1.5  # distance of slices, in their thickness, from which there is room for others between them
FEW_GAPS = 2.0  # maximum distance, in gaps between slices, of two blocks of slices that continue each other


@dataclass(frozen=True, eq=False)
class Slice:
    """An image of a series: a file, or a frame of one (from 0), with its attributes as in a single-frame image."""

    path: Path
    frame: int | None
    header: Dataset


@dataclass(frozen=True, eq=False)
class Volume:
    """Slices that are one volume, in the order of their positions along the normal."""

    slices: Sequence[Slice]
    axes: np.ndarray  # directions ``(2, 3)`` of rows and columns
    first: Slice  # describes the volume: its first slice, or that of its largest original part
    differ: tuple[str, ...] = ()  # attributes in which the parts differ that it was joined of
    parts: int = 1  # number of these
    problem: str | None = None  # why they are no volume
    others: tuple[Slice, ...] = ()  # the first slices of the other parts


@dataclass(frozen=True, eq=False)
class _Part:
    """Slices that are alike, of one series."""

    slices: list[Slice] = field(default_factory=list)

    @property
    def header(self) -> Dataset:
        return self.slices[0].header

    @cached_property
    def series(self) -> tuple[str, ...]:
        return tuple(text(self.header, name) for name in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription"))

    @cached_property
    def normal(self) -> np.ndarray:
        return np.cross(*axes(self.header))

    @cached_property
    def positions(self) -> np.ndarray:
        return positions(self.slices)

    @cached_property
    def is_dense(self) -> bool:  # no slice of its thickness fits between two of its slices
        gaps = np.diff(np.sort(self.positions @ self.normal))
        return bool(len(gaps) and np.median(gaps) < ROOM * (number(self.header, "SliceThickness") or 0))

    @cached_property
    def plane(self) -> int:
        return int(np.abs(self.normal).argmax())


def group(slices: Sequence[Slice]) -> list[Volume]:
    """Group slices into volumes."""
    return [_joined(parts) for stack in _link_parts(_alike(slices)) for parts in _contrasts(stack)]


def axes(header: Dataset) -> np.ndarray:
    """Return the directions ``(2, 3)`` of rows and columns; those of an axial image if they are missing."""
    orientation = numbers(header, "ImageOrientationPatient", 6)
    return np.array([1, 0, 0, 0, 1, 0] if orientation is None else orientation, float).reshape(2, 3)


def positions(slices: Sequence[Slice]) -> np.ndarray:
    """Return the positions ``(N, 3)`` of the slices' first pixels in mm, NaN where they are not stated."""
    stated = [numbers(piece.header, "ImagePositionPatient", 3) for piece in slices]
    return np.array([[np.nan] * 3 if values is None else values for values in stated])


def _alike(slices: Sequence[Slice]) -> list[_Part]:
    """Group slices by their attributes; a file with several frames is not mixed with others."""
    frames: dict[Path, int] = defaultdict(int)
    for piece in slices:
        frames[piece.path] += 1
    groups: dict[Any, list[_Part]] = defaultdict(list)
    for piece in slices:
        header = piece.header
        key = (
            piece.path if frames[piece.path] > 1 else None,
            *(text(header, name) for name in TEXTS[:-1]),
            tuple(texts(header, "ImageType")),
            *(number(header, name) for name in ("Rows", "Columns", "DiffusionBValue")),
        )
        for part in groups[key]:
            if _varies_little(part.header, header):
                part.slices.append(piece)
                break
        else:
            groups[key].append(_Part([piece]))
    return [part for parts in groups.values() for part in parts]


def _varies_little(first: Dataset, other: Dataset) -> bool:
    for name, count, most in VARYING:
        values = [numbers(header, name, count) for header in (first, other)]
        one, two = (np.zeros(count) if each is None else each for each in values)
        if not np.allclose(one, two, atol=most):
            return False
    return True


def _link_parts(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Return the parts of each stack of slices; most stacks are of one part."""
    if len(parts) == 1:
        return [[*parts]]
    together: dict[Any, list[int]] = defaultdict(list)
    for k, part in enumerate(parts):
        uid, series_number, _ = part.series
        together["all", uid, part.plane].append(k)
        if len(part.slices) == 1:  # single slices of one plane always lie on a grid, and there may be thousands
            values = (
                np.nan_to_num(_stated(part.header, name, count), nan=-1).round(1)
                for name, count, _ in (*GEOMETRY, *CONTRAST)
            )
            together["single", uid, part.plane].append(k)
            together["of one number", series_number, part.plane, *(tuple(each) for each in values)].append(k)
    joined = [
        members
        for (kind, *_), members in together.items()
        if kind != "all" or (len(members) > 2 and _is_whole([parts[k] for k in members]))
    ]
    links = [(members[0], k) for members in joined for k in members[1:]]
    merged = [_Part([piece for k in members for piece in parts[k].slices]) for members in joined]
    several = [(k, part) for k, part in enumerate(parts) if len(part.slices) > 1]
    others = [*enumerate(parts), *((members[0], part) for members, part in zip(joined, merged, strict=True))]
    links += [(k, other) for k, part in several for other, second in others if k != other and _complete(part, second)]
    graph = coo_array((np.ones(len(links)), np.array(links, int).reshape(-1, 2).T), shape=(len(parts),) * 2)
    stacks: dict[int, list[_Part]] = defaultdict(list)
    for part, stack in zip(parts, connected_components(graph, directed=False)[1], strict=True):
        stacks[stack].append(part)
    return [*stacks.values()]


def _is_whole(parts: Sequence[_Part]) -> bool:
    """Return whether all parts together are equally spaced slices, none of them twice."""
    along = np.sort(np.concatenate([part.positions for part in parts]) @ parts[0].normal)
    steps = _steps(along, parts[0].normal) if np.isfinite(along).all() and len(along) > 1 else None
    return steps is not None and (steps == 1).all()


def _steps(along: np.ndarray, normal: np.ndarray) -> np.ndarray | None:
    """Return the gaps between sorted positions as multiples of one distance; None if they are no such multiples."""
    gaps = np.diff(along)
    if gaps.min() < SAME_POSITION:
        return None
    steps = np.rint(gaps / gaps.min())
    usual = gaps.sum() / steps.sum()
    steps = np.rint(gaps / usual)
    return steps if np.abs(gaps - steps * usual).max() <= 2 * tolerance(normal, usual) else None


def _complete(part: _Part, other: _Part) -> bool:
    """Return whether two parts complete each other to a stack, in which slices may be missing or twice.

    Each has slices where the other has none, and all lie at multiples of one distance, or the parts continue each
    other. Echoes do not: they lie at the same positions. Two series of one number, or of one description if one lies
    above the other, are parts of a stack only if no slice is twice, geometry and contrast agree, and there is room.
    """
    one_series, one_number, one_description = (
        bool(a) and a == b for a, b in zip(part.series, other.series, strict=True)
    )
    one_number &= bool(part.series[1])
    if not one_series and (not (one_number or one_description) or _contradictions([part, other])):
        return False
    if abs(part.normal @ other.normal) < ONE_PLANE:
        return False
    each = [np.sort(one.positions @ part.normal) for one in (part, other)]
    if not np.isfinite(np.concatenate(each)).all():
        return False
    each = [_different(along) for along in each]
    both = _different(np.sort(np.concatenate(each)))
    counts = [len(along) for along in each]
    if len(both) == max(counts) or (not one_series and len(both) < sum(counts)):
        return False
    lower, upper = sorted(each, key=lambda along: along[0])
    if not one_series and lower[-1] >= upper[0] and (not one_number or (part.is_dense and other.is_dense)):
        return False
    steps = _steps(both, part.normal)
    if steps is not None and (steps - 1).sum() < min(counts):
        return True
    widest = max((float(np.median(np.diff(along))) for along in each if len(along) > 1), default=0.0)
    return min(counts) > 1 and 0 < upper[0] - lower[-1] <= FEW_GAPS * widest


def _different(along: np.ndarray) -> np.ndarray:
    """Return the different ones of sorted positions."""
    return along[np.r_[True, np.diff(along) >= SAME_POSITION]]


def _stated(header: Dataset, name: str, count: int) -> np.ndarray:
    """Return the ``(count,)`` numbers of an attribute, NaN if it is missing: an unknown value agrees with any."""
    values = numbers(header, name, count)
    return np.full(count, 0.0 if name in NONE_IF_MISSING else np.nan) if values is None else values


def _contradictions(parts: Sequence[_Part], same: float = SAME_CONTRAST) -> list[str]:
    """Return what of geometry and contrast differs; ``same`` is the tolerated ratio of times and angles."""
    names = []
    for name, count, most in (*GEOMETRY, *CONTRAST):
        values = np.array([_stated(part.header, name, count) for part in parts])
        known = values[np.isfinite(values).all(axis=1)]
        ratio = same if (name, count, most) in CONTRAST else 0.0
        if len(known) and (np.ptp(known, axis=0) > most + ratio * np.abs(known[0])).any():
            names.append(name)
    return names


def _differing(parts: Sequence[_Part]) -> tuple[str, ...]:
    """Return the attributes in which parts differ."""
    differing = [name for name in TEXTS if len({text(part.header, name) for part in parts}) > 1]
    contradicting = _contradictions(parts, 0)
    for name, count, _ in (*GEOMETRY, *CONTRAST):
        missing = {numbers(part.header, name, count) is None for part in parts}
        differing += [name] if name in contradicting or len(missing) > 1 else []
    return tuple(differing)


def _contrasts(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Return the parts of a stack by their geometry and contrast, if those of each make up a whole, such as an echo."""
    kinds: list[list[_Part]] = []
    for part in parts:
        for kind in kinds:
            if not _contradictions([kind[0], part]):
                kind.append(part)
                break
        else:
            kinds.append([part])
    wholes = [_Part([piece for part in kind for piece in part.slices]) for kind in kinds]
    return [[*parts]] if any(_complete(*pair) for pair in combinations(wholes, 2)) else kinds


def _joined(parts: Sequence[_Part]) -> Volume:
    """Return the volume that parts of a stack make up, described by its largest original part."""
    original = max(parts, key=lambda part: ("ORIGINAL" in texts(part.header, "ImageType"), len(part.slices)))
    slices, members = [piece for part in parts for piece in part.slices], {*original.slices}
    order = np.argsort(positions(slices) @ original.normal, kind="stable")
    slices = [slices[k] for k in order]
    first = next(piece for piece in slices if piece in members)
    if len(parts) == 1:
        return Volume(slices, axes(original.header), first)
    uids, differ, problem = len({part.series[0] for part in parts}), _differing(parts), None
    if uids > 1:
        own, several = "each of its {0} images has a SeriesInstanceUID of its own", "different SeriesInstanceUIDs"
        what = own if uids == len(slices) else f"its {{0}} images have {{1}} {several}"
        problem = f"{what.format(len(slices), uids)}, so it is no series; {ONE_UID.format('series')}"
    elif _contradictions(parts):
        problem = not_one(differ, len(parts), "slices of one volume must agree in geometry and contrast")
    others = tuple(part.slices[0] for part in parts if part is not original and _contradictions([part, original]))
    differ = differ or ("the files that they lie in",)
    return Volume(slices, axes(original.header), first, differ, len(parts), problem, others)


def not_one(differ: Sequence[str], parts: int, why: str) -> str:
    """Return that parts do not make up one volume, in what they differ, and why."""
    return (
        f"it consists of {parts} parts that differ in {', '.join(differ)}, and they do not make up one volume: {why}; "
        f"remove what does not belong to it, or {MISSING}"
    )
