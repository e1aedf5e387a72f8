"""What the name of an image file says: the sequence that it shows, or that it is a label.

A name ends with its sequence (``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS-GLI-00001-000-t1c.nii.gz``, or just
``T1POST.nii.gz``; in BIDS, ``sub-01_ce-GAD_T1w.nii.gz`` is T1c), or tells it in words, as scanners and preprocessing
do (``Ax_T1_FSPGR_+C.nii.gz``, ``P1_fla_bet_normalized.nii.gz``). The words are those of headers, `common.words`.
"""

import re
from functools import cache
from typing import NamedTuple

from common.io.files import SUFFIXES
from common.modalities import ALIASES
from common.words import (
    LABEL,
    MASK,
    NO_AGENT,
    NOT_TUMOUR,
    REGISTERED_TO,
    contrast_said,
    is_about_image,
    left_out,
    plain,
    weightings,
)

OPEN_T1 = "t1 or t1c"
"""Role of a T1 whose name leaves open whether it was acquired after contrast agent."""
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""
_SUBJECT = re.compile(
    r"^(?:sub-[a-z0-9]+|sub(?:j(?:ect)?)?[-_ .]?\d+)(?:_ses-[a-z0-9]+)?|_space-[a-z0-9]+", re.IGNORECASE
)
"""Parts of a name that are no words; "sub" does not mean subtraction there."""


class Name(NamedTuple):
    """What a file's name says.

    Attributes:
        case: the part that tells the case; without a role, the whole name without its suffix.
        role: a modality, ``label``, `OPEN_T1` or None.
        in_words: whether words tell the modality, and the name does not end with it.
    """

    case: str
    role: str | None
    in_words: bool = False


@cache
def split_name(name: str) -> Name:
    """Read the name of a file."""
    whole = without_suffix(name)
    stem = REGISTERED_TO.sub("", whole)
    label = LABEL.fullmatch(stem)
    if label and not NOT_TUMOUR.fullmatch(label[1] or ""):
        bids = _BIDS.fullmatch(label[1] or "")
        return Name(bids[1] if bids else label[1] or "", "label")
    head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", stem, re.DOTALL).groups(default="")
    pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", stem, re.IGNORECASE | re.DOTALL)
    if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
        head, token = pair[1] or "", pair[2] + pair[3]
    role, bids = ALIASES.get(token.lower()), _BIDS.fullmatch(head)
    before = in_words(head if role else stem).lower()
    named = {role, *(ALIASES.get(word) for word in re.split(r"[\W_]", before))} & {*ALIASES.values()}
    if "flair" in named:
        named -= {"t2"}
    if len(named) > 1 or MASK.fullmatch(head):  # T1_FLAIR, T1c-T1, seg_T1
        return Name(whole, None)
    if role is None:
        return _in_words(whole, stem)
    said = contrast_said(plain(in_words(head))) if role == "t1" else None
    if said and (bids or said.agent):  # CE_T1; pre_T1 and post_T1 may be before and after an operation
        role = _of_t1(said.after)
        head = head if bids else _case(head)
    return Name(bids[1] if bids else head, role)  # files of one subject may differ in entities such as run-2


def in_words(name: str) -> str:
    """Return the words of a name, to be read like a header's description; what is no word of it is left out.

    BIDS's entity ``ce`` says whether contrast agent was given, whatever the agent's name.
    """
    text = REGISTERED_TO.sub("", without_suffix(name))
    bids = _BIDS.match(text)
    text = _SUBJECT.sub("", text)
    return re.sub(r"_ce-([a-z0-9]+)", _agent, text, flags=re.IGNORECASE) if bids else text


def without_suffix(name: str) -> str:
    """Return the name or path of an image file without its suffix."""
    return _SUFFIX.sub("", name)


def _in_words(whole: str, stem: str) -> Name:
    text = plain(in_words(stem))
    named = {*weightings(text)}
    if left_out(text) or not named or not (len(named) == 1 or named == {"t2", "flair"}) or named == {"pd"}:
        return Name(whole, None)
    role = "flair" if "flair" in named else named.pop()
    said = contrast_said(text) if role == "t1" else None
    return Name(_case(stem), _of_t1(said.after) if said else role, True)


def _of_t1(after: bool | None) -> str:
    return OPEN_T1 if after is None else "t1c" if after else "t1"


def _case(stem: str) -> str:
    """Return what stands in a name before the words that are about the image."""
    bids = _BIDS.match(stem)
    if bids:
        return bids[1]
    words = [*re.finditer(r"[^_.\-+\s()]+", stem)]
    telling = [number for number, word in enumerate(words) if weightings(plain(word[0]))]
    first = telling[0] if telling else len(words)
    while first and is_about_image(words[first - 1][0]):
        first -= 1
    return stem[: words[first].start()].rstrip("_.-+ (") if first < len(words) else stem


def _agent(entity: re.Match[str]) -> str:
    said = contrast_said(plain(entity[1]))
    none = re.fullmatch(NO_AGENT, plain(entity[1])) or (said is not None and said.after is False)
    return "_without contrast_" if none else "_+C_"
