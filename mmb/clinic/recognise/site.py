"""A site's table: which of its series are which sequence, by patterns on their descriptions."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common.io.files import file_digest
from common.modalities import GLIOMA, display_name
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import HeaderEvidence
from mmb.errors import StudyError

NONE = "none"
"""Class of series that are left out."""


@dataclass(frozen=True)
class SiteTable:
    """Patterns on the whole SeriesDescription, in capitals or not: ``*`` is any text, ``?`` any character."""

    patterns: tuple[tuple[str, str], ...]  # of a class (a modality or `NONE`) and a pattern, in the file's order
    sha256: str  # of the file

    def says(self, description: str, header: HeaderEvidence, name: str, source: str) -> HeaderEvidence:
        """Return what the table says of an image; where it says nothing, what its header or name says.

        `NONE` goes before modalities, so that a pattern can be narrowed. What the header says is only used to rank
        several images of one modality. Raises StudyError if the table says two modalities of an image, which messages
        call ``name``, or ``source`` for others than the user.
        """
        found = {kind: pattern for kind, pattern in reversed(self.patterns) if _fits(pattern, description)}
        if not found:
            return header
        reason = "by the site's table"
        if NONE in found:
            return HeaderEvidence(None, Grade.NONE, reason, by_table=True)
        if len(found) > 1:
            both = " and ".join(f"{display_name(kind)} ('{pattern}')" for kind, pattern in found.items())
            public = " and ".join(map(display_name, found))
            says = "the site's table says {} of it; narrow one of its patterns."
            raise StudyError(f"{name}: {says.format(both)}", f"{source}: {says.format(public)}", code="site")
        (modality,) = found
        grade = Grade.OPEN if header.excluded else Grade.SURE if header.modality else Grade.LIKELY
        return HeaderEvidence(modality, grade, f"{reason}; its header: {header.reason}", header.rests_on, by_table=True)

    def unmatched(self, descriptions: Collection[str]) -> Iterator[str]:
        """Yield a line for each pattern that fits none of a study's descriptions; it does not quote the pattern."""
        numbers = Counter[str]()
        for kind, pattern in self.patterns:
            numbers[kind] += 1
            if not any(_fits(pattern, each) for each in descriptions):
                yield f"The site's table: nothing here fits pattern {numbers[kind]} of {kind}."


def read_site(path: str | Path) -> SiteTable:
    """Read a site's table: a JSON object, class -> list of patterns.

    Raises FileNotFoundError if there is no such file; ValueError if it is anything else, names a class twice or one
    that is unknown, or has no pattern.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--site {path}: no such file; expected a site's table (JSON).")
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8-sig"), object_pairs_hook=tuple)
        fault = next(_faults(table), "")
    except (ValueError, RecursionError) as error:
        fault = f"not JSON ({error})"
    if fault:
        expected = 'expected classes with lists of patterns, such as {"t1c": ["*T1*KM*"], "none": ["*navi*"]}'
        raise ValueError(f"--site {path}: {fault}; {expected}.")
    return SiteTable(tuple((kind, pattern) for kind, patterns in table for pattern in patterns), file_digest(path))


def _faults(table: Any) -> Iterator[str]:
    """Yield what is wrong with the content of a table, whose objects are tuples of pairs."""
    classes = (*GLIOMA, NONE)
    if not isinstance(table, tuple) or not table:
        yield "no object with classes"
        return
    names = [name for name, _ in table]
    for name, patterns in table:
        if name not in classes:
            yield f"unknown class {name!r}, not one of {', '.join(classes)}"
        if names.count(name) > 1:
            yield f"{name!r} is there twice"
        if not isinstance(patterns, list) or not patterns:
            yield f"{name!r} has no list of patterns"
        elif wrong := [each for each in patterns if not (isinstance(each, str) and each.strip())]:
            yield f"{name!r} has {wrong[0]!r}, which is no pattern"


def _fits(pattern: str, description: str) -> bool:
    literal = pattern.replace("[", "[[]")  # fnmatch would read what descriptions have in brackets as a set of letters
    return fnmatchcase(description.strip().casefold(), literal.strip().casefold())
