"""What header, name and image say of a study's series and image files: values, and never a decision.

`mmb.clinic.recognise.assign` decides. Headers and names are read by `mmb.clinic.recognise.header`, images are judged by
`mmb.clinic.recognise.image`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np

from common.cohorts.examination import Told
from common.io.images import read_image
from mmb.clinic.intake.orientation import orientation_doubt
from mmb.clinic.recognise.certainty import Agent, Basis, Grade
from mmb.errors import StudyError


@dataclass(frozen=True)
class HeaderEvidence:
    """What a header or name says of an image.

    Attributes:
        modality: t1, t1c, t2 or flair; None if it is none of them or not recognised.
        reason: why, for the user.
        rests_on: what the grade rests on, to compare two of one grade.
        contrast_unknown: of a T1, whether only the image can tell if it was acquired after contrast agent.
        excluded: whether it says that the image is none of them, such as a subtraction.
        by_table: whether the site's table says so; the image does not decide then.
    """

    modality: str | None
    grade: Grade
    reason: str
    rests_on: tuple[Basis, Agent] = (Basis.BOTH, Agent.AGREED)
    contrast_unknown: bool = False
    excluded: bool = False
    by_table: bool = False


UNKNOWN = HeaderEvidence(None, Grade.NONE, "not recognised")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A series or an image file that may be one of the modalities, and what its header or name says.

    Attributes:
        name: name in messages to the user, e.g. ``series 7``; it occurs once in a study.
        source: name on the page and for others than the user; it does not identify the patient.
        frame: name of the frame of reference.
        described: description as a person wrote it, which may identify the patient; empty if there is none.
        problem: reason why it cannot be used, or None.
        fixed: whether the user says what it is, by hand or by the file's name.
        reformatted: whether it was computed from other images, as multi-planar reformats are; ``derived``: in any way.
        other_body: a part of the body other than the head that its header names; empty if it names none.
        mean: whether the scanner made it of several echoes.
        corrections: number of corrections (of intensity, of distortion) that were made.
        acquired: time of acquisition as text that sorts by time; empty if unknown.
        doubt: why it may not be whole; empty if nothing tells so.
        told: what is known of its examination.
        odd: whether its description has words that are not known, as that of a result of software has.
        in_threads: whether several may be read at once.
    """

    in_threads: ClassVar[bool] = True

    name: str
    source: str
    frame: str = ""
    says: HeaderEvidence = UNKNOWN
    described: str = ""
    problem: str | None = None
    fixed: bool = False
    reformatted: bool = False
    derived: bool = False
    other_body: str = ""
    in_3d: bool = False
    mean: bool = False
    corrections: int = 0
    acquired: str = ""
    odd: bool = False
    told: Told = field(default_factory=Told)
    doubt: str = ""

    @property
    def key(self) -> str:
        """How a person names it."""
        return self.name

    @cached_property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine (to mm, RAS) of the volume; its last axis, with the longest voxel edge, is the slices'."""
        image, _ = self.read()
        edges = np.linalg.norm(image.affine[:3, :3], axis=0).round(2)
        last = max(range(3), key=lambda axis: (edges[axis], axis))
        axes = [axis for axis in range(3) if axis != last] + [last]
        return [image.shape[axis] for axis in axes], image.affine[:, [*axes, 3]]

    def read(self) -> tuple[nib.Nifti1Image, list[str]]:
        """Read the volume; return it with warnings."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ImageFile(Candidate):
    """An image file that is identified by its name, by the JSON beside it, or by the user.

    Attributes:
        channel: that of its modality, if the file holds several.
        by_json: what the JSON beside it says; None if there is none, or if it says nothing of the sequence.
    """

    source: str = "image file"
    frame: str = "NIfTI"
    path: Path = field(kw_only=True)
    channel: int | None = None
    by_json: HeaderEvidence | None = None

    def read(self) -> tuple[nib.Nifti1Image, list[str]]:
        """Read the volume; StudyError if it is not a single one."""
        try:
            image, doubts = read_image(str(self.path), self.channel)
        except ValueError as error:
            public = "An image file cannot be read, or is not a single volume."
            raise StudyError(str(error), public, self.path) from error
        doubt = orientation_doubt(self.path, image.affine)
        return image, [*doubts, *([doubt] if doubt else [])]
