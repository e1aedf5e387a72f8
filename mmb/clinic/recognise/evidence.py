"""What header and name say of a study's series and image files: values; `mmb.clinic.recognise.assign` decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np

from common.cohorts.examination import Told
from common.io.images import read_volume
from mmb.clinic.intake.pixels import load
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.certainty import Agent, Basis, Grade
from mmb.errors import StudyError


@dataclass(frozen=True)
class HeaderEvidence:
    """What a header or name says of an image."""

    modality: str | None  # t1, t1c, t2 or flair; None if it is none of them or not recognised
    grade: Grade
    reason: str  # why, for the user
    rests_on: tuple[Basis, Agent] = (Basis.BOTH, Agent.AGREED)  # to compare two of one grade
    contrast_unknown: bool = False  # of a T1: only the image can tell if it was acquired after contrast agent
    earlier: bool = False  # such a T1 was acquired before one that was surely acquired after contrast agent
    excluded: bool = False  # it says that the image is none of them, such as a subtraction
    by_table: bool = False  # the site's table says so; the image does not decide then


UNKNOWN = HeaderEvidence(None, Grade.NONE, "not recognised")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A series or an image file that may be one of the modalities, and what its header or name says."""

    name: str  # in messages to the user, e.g. ``series 7``; it occurs once in a study
    source: str  # on the page and for others than the user; it does not identify the patient
    frame: str = ""  # name of the frame of reference
    says: HeaderEvidence = UNKNOWN
    described: str = ""  # as a person wrote it, which may identify the patient; empty if there is nothing
    problem: str | None = None  # why it cannot be used
    fixed: bool = False  # the user says what it is, by hand or by the file's name
    reformatted: bool = False  # computed from other images, as multi-planar reformats are
    derived: bool = False  # computed in any way
    other_body: str = ""  # a part of the body other than the head that its header names
    in_3d: bool = False
    mean: bool = False  # the scanner made it of several echoes
    corrections: int = 0  # number of corrections of intensity, distortion or noise
    acquired: str = ""  # time that sorts as text; empty if unknown
    odd: bool = False  # described in words that are not known, as a result of software is
    told: Told = field(default_factory=Told)  # what is known of its examination
    doubt: str = ""  # why it may lack images or detail
    files: int = 1  # number of files that it consists of

    @property
    def key(self) -> str:
        """How a person names it."""
        return self.name

    @property
    def keys(self) -> tuple[str, ...]:
        """What names it, and perhaps others too."""
        return (self.key,)

    @cached_property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine (to mm, RAS) of the volume; its last axis, with the longest voxel edge, is the slices'."""
        image, _ = self.read()
        edges = np.linalg.norm(image.affine[:3, :3], axis=0).round(2)
        last = max(range(3), key=lambda axis: (edges[axis], axis))
        axes = [axis for axis in range(3) if axis != last] + [last]
        return [image.shape[axis] for axis in axes], image.affine[:, [*axes, 3]]

    @property
    def across(self) -> int:
        """Axis of RAS that lies across its slices: 0 of sagittal, 1 of coronal and 2 of axial ones."""
        return int(np.abs(np.cross(*self.grid[1][:3, :2].T)).argmax())

    def read(self) -> tuple[nib.Nifti1Image, dict[str, str]]:
        """Read the volume; return it with doubts, by their codes."""
        raise NotImplementedError

    def middle(self, axis: int) -> nib.Nifti1Image:
        """Read as little as holds the middle slice across an axis of RAS."""
        return self.read()[0]


@dataclass(frozen=True, eq=False)
class ImageFile(Candidate):
    """An image file that is identified by its name, by the JSON beside it, or by the user."""

    source: str = "image file"
    frame: str = "NIfTI"
    path: Path = field(kw_only=True)
    channel: int | None = None  # that of its modality, if the file holds several

    def read(self) -> tuple[nib.Nifti1Image, dict[str, str]]:
        """Read the volume; StudyError if it is not a single one."""
        try:
            volume = read_volume(str(self.path))
            chosen = volume if self.channel is None else volume[..., self.channel]
            if chosen.ndim != 3:
                raise ValueError(f"{self.path}: shape {tuple(chosen.shape)}; expected one volume (X, Y, Z).")
            return nib.Nifti1Image(chosen.numpy(), volume.affine.numpy()), volume.meta["doubts"]
        except ValueError as error:
            public = "An image file cannot be read, or is not a single volume."
            raise StudyError(str(error), public, self.path) from error


@dataclass(frozen=True, eq=False)
class SeriesCandidate(Candidate):
    """A series as a candidate."""

    series: Series = field(kw_only=True)

    @property
    def key(self) -> str:
        """SeriesNumber, and part if several have it."""
        return self.series.key

    @property
    def keys(self) -> tuple[str, ...]:
        """Its key, and its SeriesNumber."""
        return self.series.key, str(self.series.number)

    @property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine of the series."""
        return self.series.shape, self.series.affine

    def read(self) -> tuple[nib.Nifti1Image, dict[str, str]]:
        """Decode the pixels."""
        return load(self.series), {}

    def middle(self, axis: int) -> nib.Nifti1Image:
        """Decode a single slice, if the series has such slices."""
        if axis != self.across:
            return super().middle(axis)
        columns, rows, count = self.series.shape
        path, frame = self.series.slices[count // 2]
        frames = () if frame is None else (frame,)
        return load(replace(self.series, files=(path,), frames=frames, shape=(columns, rows, 1)))
