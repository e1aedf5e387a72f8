"""What the words in an image file's name say: all of them count, wherever they stand, by what they mean.

`common.cohorts.names` reads the ending of a name. What other words say against it is read here.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from common.cohorts.names import BIDS, MASK, REGISTERED_TO, without_suffix
from common.modalities import ALIASES
from mmb.clinic.recognise.contrast import contrast_said
from mmb.clinic.recognise.words import (
    NO_AGENT,
    PLANE,
    TECHNIQUE,
    excluded_kind,
    plain,
    quoted,
    weightings,
)

_SUBJECT = re.compile(
    r"^(?:sub-[a-z0-9]+|sub(?:j(?:ect)?)?[-_ .]?\d+)(?:_ses-[a-z0-9]+)?|_space-[a-z0-9]+", re.IGNORECASE
)
"""Parts of a name that are no words; "sub" does not mean subtraction there."""
_WORD = re.compile(r"[^\W_]+")
_MOVED = r"(co)?reg\w*|resamp\w*|resliced?|align\w*|space|in|on|to|2|vs|minus"
"""Words between two sequences of which one was registered to the other, or taken from it."""


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
