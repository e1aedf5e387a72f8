"""What the words of an image file's name say, as scanners and preprocessing write them (``Ax_T1_FSPGR_+C.nii.gz``)."""

import re

from common.cohorts.names import MASK, REGISTERED_TO, without_suffix
from common.modalities import ALIASES
from mmb.clinic.words import NO_AGENT, contrast_said, excluded_kind, plain, weightings

_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS file name before the suffix."""
_SUBJECT = re.compile(
    r"^(?:sub-[a-z0-9]+|sub(?:j(?:ect)?)?[-_ .]?\d+)(?:_ses-[a-z0-9]+)?|_space-[a-z0-9]+", re.IGNORECASE
)
"""Parts of a name that are no words; "sub" does not mean subtraction there."""


def name_words(name: str) -> str:
    """Return the words of a name, to be read like a header's description; what is no word of it is left out.

    BIDS's entity ``ce`` says whether contrast agent was given, whatever the agent's name.
    """
    text = REGISTERED_TO.sub("", without_suffix(name))
    bids = _BIDS.match(text)
    text = _SUBJECT.sub("", text)
    return re.sub(r"_ce-([a-z0-9]+)", _agent, text, flags=re.IGNORECASE) if bids else text


def names_one_sequence(name: str) -> bool:
    """Return whether the words of a name are those of one sequence, and not of a mask or of another image."""
    stem = REGISTERED_TO.sub("", without_suffix(name))
    text = plain(name_words(stem))
    aliases = {ALIASES.get(word) for word in re.split(r"[\W_]", name_words(stem).lower())} - {None}
    named = {"t1" if each == "t1c" else each for each in {*weightings(text), *aliases}}
    alone = (len(named) == 1 or named == {"t2", "flair"}) and not aliases >= {"t1", "t1c"}  # T1c-T1
    return alone and named != {"pd"} and not excluded_kind(text) and not MASK.fullmatch(stem)


def _agent(entity: re.Match[str]) -> str:
    said = contrast_said(plain(entity[1]))
    none = re.fullmatch(NO_AGENT, plain(entity[1])) or (said is not None and said.after is False)
    return "_without contrast_" if none else "_+C_"
