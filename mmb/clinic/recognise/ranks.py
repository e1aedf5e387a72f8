"""Criteria by which one of several candidates for a modality is preferred."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.record import Record

ALIKE = 1.5
"""Maximum ratio of the voxel sizes of images of one resolution, and of the edges of a voxel that is nearly a cube."""


def _fits(record: Record, others: Mapping[str, Record]) -> tuple[bool, int]:
    """Return whether a T1c is like the T1 in plane and resolution, and like how many of the others.

    Images are alike if they have similar voxels and, unless these are nearly cubes, slices in one plane.
    """
    alike: dict[str, bool] = {}
    for name, other in others.items() if record.modality == "t1c" else ():
        sizes, theirs = (np.sort(voxel_sizes(each.candidate.grid[1])) for each in (record, other))
        similar = (np.maximum(sizes / theirs, theirs / sizes) <= ALIKE).all()
        alike[name] = bool(similar and (sizes[2] <= ALIKE * sizes[0] or plane(record) == plane(other)))
    return alike.get("t1", False), sum(alike.values())


RANKS: Sequence[tuple[str, Callable[[Record, Mapping[str, Record]], Any]]] = (
    ("set by hand or named so", lambda it, _: it.candidate.fixed),
    ("named by the site's table", lambda it, _: it.candidate.says.by_table),
    ("where the other images lie", lambda it, _: not it.elsewhere),
    ("of the whole head", lambda it, _: not it.partial),
    ("not of another part of the body by its header", lambda it, _: not it.candidate.other_body),
    ("the mean of several echoes", lambda it, _: it.candidate.mean),
    ("original and not reformatted", lambda it, _: (not it.candidate.reformatted, not it.candidate.derived)),
    ("recognised more surely", lambda it, _: it.grade >= Grade.LIKELY),
    ("in the plane and resolution of the others", _fits),
    ("3D", lambda it, _: it.candidate.in_3d),
    ("described in known words only", lambda it, _: not it.candidate.odd),
    ("of thinner slices", lambda it, _: -round(float(voxel_sizes(it.candidate.grid[1])[2]), 1)),
    ("of a larger matrix", lambda it, _: it.candidate.grid[0][0] * it.candidate.grid[0][1]),
    ("corrected for distortion, intensity or noise", lambda it, _: it.candidate.corrections),
    ("later", lambda it, _: it.candidate.acquired if it.modality == "t1c" else ""),
    ("recognised with more confidence", lambda it, _: (it.grade, it.candidate.says.rests_on)),
)
"""Criteria by which one of several candidates is preferred, in this order: the reason that is given, and a function of
its record and of those chosen for other modalities. The first difference decides."""


def advantage(best: Record, other: Record, chosen: Mapping[str, Record]) -> str:
    """Return why a candidate is preferred to another one."""
    others = {name: each for name, each in chosen.items() if each is not best}
    return next(reason for reason, value in RANKS if value(best, others) != value(other, others))


def plane(record: Record) -> str:
    """Return the plane of its slices: sagittal, coronal or axial."""
    return ("sagittal", "coronal", "axial")[record.candidate.across]
