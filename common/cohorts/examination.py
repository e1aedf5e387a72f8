"""Whether images are of one examination of one patient, as far as their names, the JSON beside them or headers tell.

A case is known if a name has BIDS's ``sub-`` or ``ses-``, a publisher's identifier or a date, if a JSON or header has
a date, or a JSON the patient. Known cases that differ are two; other names may differ for a reason, which is asked.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from itertools import combinations, pairwise, product, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from common.cohorts.names import BODY, PLANE, PROCESSED, REGISTERED_TO, TECHNIQUE, split_name, without_suffix
from common.cohorts.registry import COHORTS, TIME_POINT, dates
from common.modalities import ALIASES

MIDNIGHT = timedelta(days=1)  # an examination may begin on one day and end on the next
KINDS = ("AcquisitionDateTime", "AcquisitionDate", "SeriesDate", "StudyDate")  # in JSON, the image's own first
IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID")  # in JSON; their values are never shown
OF_IMAGES = f"{PLANE}|{TECHNIQUE}|{BODY}|{PROCESSED}"
OTHERS = {
    *("siemens", "philips", "ge", "canon", "toshiba", "gd", "gad", "gado", "ce", "km", "mdc", "contrast", "enhanced"),
    *("pre", "post", "native", "nativ", "plain", "with", "without", "to", "in", "on", "orig", "original", "scan"),
    *("manual", "auto", "img", "im", "image", "study", "se", "ser", "series", "e", "echo", "run", "acq", "rec"),
}
"""Further parts of names that tell no patient and no examination; a running number may follow them."""
CASES = {*("case", "patient", "pat", "subject", "subj", "sub", "p")}
DIGITS = "0123456789"


class Told(NamedTuple):
    """What is known of an image's case: identifiers and days by their kinds, and words that may be names of a case.

    ``places`` are all parts of its name before those of its sequence.
    """

    name: str = ""
    known: Mapping[str, tuple[str, ...]] = {}
    days: Mapping[str, date] = {}
    words: frozenset[str] = frozenset()
    is_label: bool = False
    places: tuple[str, ...] = ()


class Difference(NamedTuple):
    """Two images that are of two cases (``certain``), or may be, and what of each tells so."""

    one: str
    other: str
    what: tuple[str, str]
    certain: bool

    def __str__(self) -> str:
        each = f"{self.one} ({self.what[0]}) and {self.other} ({self.what[1]})"
        if self.certain:
            return f"{each} are of two examinations or patients; expected those of one"
        return f"{each}: are these names of two patients or examinations? If so, keep them in folders of their own"


def told(path: Path, name: str = "") -> Told:
    """Return what a file's name and the JSON beside it tell of its case; ``name`` is its name in messages."""
    case, role = split_name(path.name)
    parts, fields = _parts(case), sidecar(path)
    found = next(filter(None, (dates(str(fields.get(key, ""))) for key in KINDS)), dates(case))
    if role is None:  # then nothing says where the case's part of the name ends
        end = next((k for k, part in enumerate(parts) if _is_of_image(part)), 0)
        parts = [part for k, part in enumerate(parts) if k < end or _is_of_case(part)]
    known = {part[:3]: (part,) for part in case.lower().split("_") if part[:4] in ("sub-", "ses-")} | _published(case)
    known |= {key: (str(fields[key]),) for key in IDENTITY if fields.get(key)}
    words = frozenset(part for part in parts if not _is_of_image(part))
    places = tuple(takewhile(lambda part: part not in ALIASES, _split(case)))
    return Told(name or path.name, known, {"date": max(found)} if found else {}, words, role == "label", places)


def differing(images: Sequence[Told]) -> Difference | None:
    """Return two images that are of two cases; else two that may be; None if nothing tells so."""
    pairs = [*combinations(images, 2)]
    for one, other in pairs:
        values = {kind: (one.known[kind], other.known[kind]) for kind in one.known if kind in other.known}
        apart = {kind: each for kind, each in values.items() if any(x != y for x, y in zip(*each, strict=False))}
        said = [(kind, kind) if kind in IDENTITY else ("-".join(a), "-".join(b)) for kind, (a, b) in apart.items()]
        kinds = [(kind, kind) for kind in one.days if kind in other.days] or [*product(one.days, other.days)][:1]
        days = [(one.days[mine], other.days[theirs]) for mine, theirs in kinds]
        for what in (*said, *((str(a), str(b)) for a, b in days if abs(a - b) > MIDNIGHT)):
            return Difference(one.name, other.name, what, True)
    for one, other in pairs:
        for a, b in product(sorted(one.words - other.words), sorted(other.words - one.words)):
            alike = a.rstrip(DIGITS) == b.rstrip(DIGITS) or (_is_of_case(a) and _is_of_case(b))
            if alike or not ({*DIGITS} & {*a, *b} or one.is_label or other.is_label):
                return Difference(one.name, other.name, (a, b), False)
        if (numbers := _numbered_apart(one, other)) and not _is_running(numbers[0], images):
            return Difference(one.name, other.name, numbers, False)
    return None


def _numbered_apart(one: Told, other: Told) -> tuple[str, str] | None:
    """Return the two numbers in the one place where names differ, if these follow a word that is none of images."""
    if len(one.places) != len(other.places):
        return None
    apart = [k for k, (a, b) in enumerate(zip(one.places, other.places, strict=True)) if a != b]
    place = apart[0] if len(apart) == 1 else 0
    word, a, b = one.places[place - 1 : place], one.places[place:][:1], other.places[place:][:1]
    if not (word and a[0].isdecimal() and b[0].isdecimal()) or dates(a[0]) or one.days:
        return None
    return None if word[0] in OTHERS or re.fullmatch(f"{PLANE}|{TECHNIQUE}", word[0]) else (a[0], b[0])


def _is_running(number: str, images: Sequence[Told]) -> bool:
    """Return whether each of three or more images has a number of its own there, as series of a study have."""
    place = next(each.places.index(number) for each in images if number in each.places)
    numbers = {each.places[place] for each in images if len(each.places) > place}
    return len(numbers) == len(images) > 2 and not number.startswith("0")


def differing_files(item: Mapping[str, Any]) -> Difference | None:
    """Return the `Difference` of the files of a datalist's item; None if nothing tells that they are of two cases."""
    return differing([told(Path(path)) for path in dict.fromkeys([*item["image"], item.get("label", "")]) if path])


def sidecar(path: Path) -> dict[str, Any]:
    """Return what the JSON beside an image file holds; nothing if there is none, or it is no object."""
    try:
        fields = json.loads(path.with_name(f"{without_suffix(path.name)}.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _parts(name: str) -> list[str]:
    """Return the parts of a name in lower case; what belongs to a word of cases, or begins with 0, joins the former."""
    parts = _split(name)
    glued = {(a, b) for a, b in pairwise(parts) if a in CASES or (b[0] == "0" and not _is_of_image(a))}
    glued = {(a, b) for a, b in glued if b.isdigit() and len(b) < 6}
    return [a * ((a, b) in glued or bool(a and re.fullmatch(TIME_POINT, a + b))) + b for a, b in pairwise(["", *parts])]


def _split(name: str) -> list[str]:
    return [part for part in re.split(r"[\W_]+", REGISTERED_TO.sub("", name).lower()) if part]


@cache
def _is_of_image(part: str) -> bool:
    """Return whether a part of a name tells nothing of a case: a running number, a time, a size, a known word."""
    return part[0].isdigit() or part in ALIASES or part.rstrip(DIGITS) in OTHERS or bool(re.fullmatch(OF_IMAGES, part))


@cache
def _is_of_case(part: str) -> bool:
    """Return whether a part of a name is that of a case wherever it stands; ``p2`` is an acceleration as often."""
    numbered = part.rstrip(DIGITS) in CASES and part[-1] in DIGITS and len(part) > 2
    return not _is_of_image(part) and (numbered or bool(re.fullmatch(TIME_POINT, part)))


def _published(case: str) -> dict[str, tuple[str, ...]]:
    """Return the identifier that a publisher gave, if a name has one; its numbers if its pattern has no end."""
    for cohort in COHORTS.values():
        if cohort.case_name and (match := cohort.case_name.search(case)):
            numbers = (part for part in _parts(match[0]) if {*DIGITS} & {*part} and part not in ALIASES)
            return {"id": (match[0].lower(),) if "patient" in match.re.groupindex else tuple(numbers)}
    return {}
