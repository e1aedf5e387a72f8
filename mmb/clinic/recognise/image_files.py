"""Recognition of image files whose names do not end in a modality, by the JSON beside them or the words in their names.

`common.cohorts.names` reads the ending of a name. All other words count, wherever they stand, by what they mean. JSON,
as dcm2niix writes it, and words are read like a DICOM header, by `mmb.clinic.recognise.header.recognise_study`.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from common.cohorts.examination import sidecar, told
from common.cohorts.names import BIDS, MASK, REGISTERED_TO, without_suffix
from common.modalities import ALIASES, display_name
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.contrast import contrast_said
from mmb.clinic.recognise.evidence import HeaderEvidence, ImageFile
from mmb.clinic.recognise.header import recognise_study, traits
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.recognise.words import NO_AGENT, PLANE, TECHNIQUE, excluded_kind, plain, quoted, weightings
from mmb.errors import StudyError

TEXTS = (
    "SeriesDescription", "ProtocolName", "ScanningSequence", "SequenceName", "ImageType", "MRAcquisitionType",
    "ContrastBolusAgent", "ComplexImageComponent",
)  # fmt: skip
SECONDS = ("EchoTime", "RepetitionTime", "InversionTime")
COMPUTED = {
    "mask or segmentation", "subtraction", "projection", "synthetic image", "result of software", "parameter map",
    "fused image",
}  # fmt: skip
"""Kinds of `LEFT_OUT` that are made of images: such a file may lie beside the JSON of the image that it was made of."""
_BY_NAME = "the words of its name"
_SUBJECT = re.compile(
    r"^(?:sub-[a-z0-9]+|sub(?:j(?:ect)?)?[-_ .]?\d+)(?:_ses-[a-z0-9]+)?|_space-[a-z0-9]+", re.IGNORECASE
)
"""Parts of a name that are no words; "sub" does not mean subtraction there."""
_WORD = re.compile(r"[^\W_]+")
_MOVED = r"(co)?reg\w*|resamp\w*|resliced?|align\w*|space|in|on|to|2|vs|minus"
"""Words between two sequences of which one was registered to the other, or taken from it."""


def recognise_files(
    paths: Sequence[Path], folder: Path | None = None, site: SiteTable | None = None
) -> list[ImageFile]:
    """Recognise files of one patient by their JSON; the words of a name replace a missing description.

    Candidates are named by their paths in ``folder``, by default by the files' names. ``site`` is the site's table.
    """
    read = [_described(path) for path in paths]
    said = recognise_study([header for header, _ in read])
    names = [str(path.relative_to(folder or path.parent)) for path in paths]
    files = []
    for name, path, (header, by), says in zip(names, paths, read, said, strict=True):
        seen = traits(header)
        says = site.says(seen["described"], says, name, ImageFile.source) if site else says
        says = _named(path.name, says, by)
        files.append(ImageFile(name, says=says, path=path, told=told(path, name), **seen))
    return files


def _named(name: str, says: HeaderEvidence, by: str) -> HeaderEvidence:
    """Return what JSON and name together say of a file, given what the header made of them says."""
    found = excluded_kind(plain(name_words(name)))
    if found and found[0] in COMPUTED:
        says = HeaderEvidence(None, Grade.NONE, f"{found[0]} ('{found[1]}' in its name)")
    elif says.by_table:
        return says
    elif says.modality and by == _BY_NAME and not names_one_sequence(name):
        says = HeaderEvidence(None, Grade.NONE, "its words name several sequences")
    elif says.modality and by == _BY_NAME and names_it_twice(name):
        says = replace(says, grade=Grade.SURE)
    return replace(says, reason=f"by {by}: {says.reason}")


def _described(path: Path) -> tuple[Dataset, str]:
    """Return a header for a file, and the source of what it says."""
    fields = sidecar(path)
    described = any(isinstance(fields.get(name), str) and fields[name].strip() for name in TEXTS[:2])
    header = _header(fields if described else {**fields, "SeriesDescription": name_words(path.name)})
    by = "its JSON" if described else "its JSON and its name" if fields else _BY_NAME
    return header, by


def contradiction(path: Path, modality: str) -> str | None:
    """Return a warning if the JSON of a file contradicts the modality that the file is named after, else None."""
    header, by = _described(path)
    (says,) = recognise_study([header])
    seen = _named(path.name, says, by).modality
    if by == _BY_NAME or seen in (None, modality):
        return None
    said = f"its name says {display_name(modality)}, its JSON {display_name(seen)} ({says.reason})"
    return f"{said}. Look at the pictures, and correct the name."


def refuse_several_patients(files: Sequence[ImageFile]) -> None:
    """Refuse files from folders of several subjects."""
    folders = Counter(file.path.parent for file in files)
    if len(folders) > 1 and max(folders.values()) > 1:
        raise StudyError(
            f"The sequences lie in {len(folders)} folders, and one of these has several: they may be of several "
            "subjects. Give the folder of one subject, with its files in it or a folder for each.",
            code="several_subjects",
        )


def _header(fields: Mapping[str, Any]) -> Dataset:
    """Return a DICOM header, with times in ms, from values with BIDS names and in BIDS units (seconds)."""
    header = Dataset()
    if re.fullmatch(r"[0-9:.]{8,}", when := str(fields.get("AcquisitionTime", ""))):
        header.AcquisitionDateTime = "19000101" + when.replace(":", "")  # orders the files of one study
    fields = {"ContrastBolusAgent": fields.get("ContrastBolusIngredient"), **fields}
    for name, key in {
        "FlipAngle": "FlipAngle",
        "EchoNumbers": "EchoNumber",
        "EchoTrainLength": "EchoTrainLength",
    }.items():
        value = fields.get(key)
        if isinstance(value, int | float) and 0 < value < 1000:
            setattr(header, name, value)
    for name in TEXTS:
        values = fields.get(name)
        values = values if isinstance(values, list) else [values]
        if usable := [value for value in values if isinstance(value, str) and value.isprintable()]:
            setattr(header, name, usable if name in ("ImageType", "ScanningSequence") else usable[0])
    times = {name: fields[name] for name in SECONDS if name in fields}
    times = {name: value for name, value in times.items() if type(value) in (int, float) and 0 < value < 1e6}
    unit = 1 if times.get("EchoTime", 0) > 1 else 1000  # some programs write ms nevertheless
    for name, value in times.items():
        setattr(header, name, f"{value * unit:.6g}")
    return header


def name_words(name: str) -> str:
    """Return the words of a name, to be read like a header's description; what is no word of it is left out.

    BIDS's entity ``ce`` says whether contrast agent was given, whatever the agent's name.
    """
    text = REGISTERED_TO.sub("", without_suffix(name))
    bids = BIDS.match(text)
    text = _SUBJECT.sub("", text)
    return re.sub(r"_ce-([a-z0-9]+)", _agent, text, flags=re.IGNORECASE) if bids else text


def names_one_sequence(name: str) -> bool:
    """Return whether the words of a name are those of one sequence, and not of a mask or of another image.

    A T1 after contrast agent and "t1c" are one sequence; T1 and t1c are two (``T1c-T1``).
    """
    words = name_words(name)
    text, aliases = plain(words), {*_aliases(words)}
    named = {"t1" if each == "t1c" else each for each in {*weightings(text), *aliases}}
    alone = len(named) == 1 or named == {"t2", "flair"}
    two = aliases >= {"t1", "t1c"} and not names_it_twice(name)
    stem = REGISTERED_TO.sub("", without_suffix(name))
    return alone and not two and named != {"pd"} and not excluded_kind(text) and not MASK.fullmatch(stem)


def names_it_twice(name: str) -> bool:
    """Return whether a name says T1c in two ways: as t1c, and as a T1 after contrast agent or of a technique."""
    words = name_words(name)
    aliases = _aliases(words)
    rest = plain(_WORD.sub(lambda word: "" if ALIASES.get(word[0].lower()) == "t1c" else word[0], words))
    said = contrast_said(rest)
    described = said is None and quoted(f"{PLANE}|{TECHNIQUE}", rest) and not quoted(_MOVED, rest)
    return {*aliases} >= {"t1", "t1c"} and bool(described or (said and said.after))


def not_what_they_end_with(named: Mapping[Path, str]) -> dict[Path, str]:
    """Return why files are none of the sequence that their names end with: what other words of the names say.

    ``named`` maps files to modalities. Words that files of several sequences share, beside BIDS's entities, are of the
    case's name, and do not count.
    """
    found = {path: excluded_kind(plain(name_words(path.name))) for path in named}
    several = len({*named.values()}) > 1
    return {
        path: f"{kind[0]} ('{kind[1]}' in its name)"
        for path, kind in found.items()
        if kind and not (several and not BIDS.match(path.name) and _is_shared(kind[1], named))
    }


def _is_shared(word: str, named: Collection[Path]) -> bool:
    return all(word in plain(name_words(path.name)) for path in named)


def _aliases(words: str) -> list[str]:
    """Return the modalities whose accepted spellings are among the words."""
    return [ALIASES[word.lower()] for word in _WORD.findall(words) if word.lower() in ALIASES]


def _agent(entity: re.Match[str]) -> str:
    said = contrast_said(plain(entity[1]))
    none = re.fullmatch(NO_AGENT, plain(entity[1])) or (said is not None and said.after is False)
    return "_without contrast_" if none else "_+C_"
