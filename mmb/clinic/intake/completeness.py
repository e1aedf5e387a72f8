"""Whether all images of a series are there, as far as headers tell: a gap at an end leaves no trace in positions."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from mmb.clinic.intake.field_of_view import centre_within
from mmb.clinic.intake.grouping import Slice
from mmb.clinic.intake.headers import MISSING, ONLY_A_PART, number, private_number, text, texts

IN_ALL: Mapping[str, str | tuple[int, int]] = {
    "ImagesInAcquisition": "ImagesInAcquisition",
    "ImagesInSeries": "ImagesInSeries",
    "NumberOfSeriesRelatedInstances": "NumberOfSeriesRelatedInstances",
    "GE's locations in acquisition": (0x0021, 0x104F),
    "Philips' number of slices": (0x2001, 0x1018),
}
"""Name for messages -> attribute that tells how many images a series has at least."""
MOST_LACKING = 4  # times the images that are there: a first InstanceNumber beyond that counts those of a whole study
_PART = re.compile(
    r"(?:[(\[]\s*|\b(?:part|teil|partie|parte|deel|block|stack|slab)\s*)(\d+)\s*(?:/|of|von|de|di|van)\s*(\d+)\s*[)\]]?",
    re.IGNORECASE,
)
"""Words for a part of a series: ``(1/2)``, ``part 1 of 2``."""


@dataclass
class Present:
    """What is there of a series."""

    images: int = 0  # files or frames
    files: int = 0
    first: float | None = None  # lowest InstanceNumber of single-frame images; None if unknown
    concatenated: set[int] = field(default_factory=set)  # parts of its concatenation
    foreign: list[Dataset] = field(default_factory=list)  # headers of what is no MR image


def present(slices: Iterable[Slice], foreign: Iterable[Dataset]) -> Mapping[str, Present]:
    """Return SeriesInstanceUID -> what is there; ``foreign`` are the headers of what is no MR image."""
    found: dict[str, Present] = defaultdict(Present)
    for piece in slices:
        here, instance = found[text(piece.header, "SeriesInstanceUID")], number(piece.header, "InstanceNumber")
        here.images += 1
        here.files += piece.frame in (None, 0)
        if piece.frame is None and instance is not None:
            here.first = instance if here.first is None else min(here.first, instance)
        here.concatenated.add(int(number(piece.header, "InConcatenationNumber") or 0))
    for header in foreign:
        found[text(header, "SeriesInstanceUID")].foreign.append(header)
    return found


def why_incomplete(header: Dataset, here: Present) -> str | None:
    """Return why it is certain that images of a series are missing, given the header of one of its slices, or None."""
    if "DERIVED" not in texts(header, "ImageType")[:1]:  # what is derived keeps such numbers of what it was made of
        for name, attribute in IN_ALL.items():
            told = number(header, attribute) if isinstance(attribute, str) else private_number(header, attribute)
            there = here.files if name == "NumberOfSeriesRelatedInstances" else here.images
            if told and told > there:
                return f"{told - there:g} of its {told:g} images are missing ({name} {told:g}); {MISSING}"
    parts = int(number(header, "InConcatenationTotalNumber") or 0)
    if lacking := {*range(1, parts + 1)} - here.concatenated:
        which = ", ".join(map(str, sorted(lacking)))
        return f"part {which} of {parts} of its concatenation is missing (InConcatenationTotalNumber); {MISSING}"
    beside = [_size(each) for each in here.foreign if number(each, "Rows") and "ImagePositionPatient" not in each]
    if count := beside.count(_size(header)):
        what = "are not of a class of MR images and do not state their position"
        return f"{count} further images of the series {what}, {ONLY_A_PART}"
    return None


def doubt(header: Dataset, here: Present) -> str:
    """Return why images of a series may be missing; empty if nothing tells so."""
    lacking = (here.first or 1) - 1
    if 0 < lacking <= MOST_LACKING * here.images:
        return (
            f"its InstanceNumbers begin at {here.first:g}: if images before it were not exported, this is only a part "
            "of the head; see the pictures, and export the series again"
        )
    times = number(header, "NumberOfTemporalPositions") or 1
    return f"only one of its {times:g} time points is there (NumberOfTemporalPositions)" if times > 1 else ""


def parts_by_description(descriptions: Sequence[str], boxes: Sequence[tuple[Sequence[int], np.ndarray]]) -> list[str]:
    """Return for each volume why its description says that it is a part of a series; empty if it does not.

    ``boxes`` are shapes and affines. Volumes that lie over each other are repetitions, not parts.
    """
    found = [_PART.search(text) for text in descriptions]
    said = []
    for k, match in enumerate(found):
        if match is None or int(match[2]) < 2 or not 1 <= int(match[1]) <= int(match[2]):
            said.append("")
            continue
        base = _base(match)
        others = [j for j, other in enumerate(found) if j != k and other is not None and _base(other) == base]
        if any(centre_within(boxes[j], boxes[k]) for j in others):
            said.append("")
            continue
        part = f"part {match[1]} of {match[2]} of a series"
        said.append(f"by its description it is {part}; export the series as one, as the scanner made it")
    return said


def _base(match: re.Match[str]) -> str:
    return (match.string[: match.start()] + match.string[match.end() :]).strip().lower()


def _size(header: Dataset) -> tuple[float | None, ...]:
    return number(header, "Rows"), number(header, "Columns")
