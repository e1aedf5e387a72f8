"""What the name of an image file says: the sequence that it shows, or that it is a label.

A plain name ends with its sequence (``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS-GLI-00001-000-t1c.nii.gz``, or just
``T1POST.nii.gz``; in BIDS, ``sub-01_ce-GAD_T1w.nii.gz`` is T1c). A name in words, as scanners and preprocessing write
it, ends with the sequence and known words (``Ax_T1_FSPGR_+C.nii.gz``, ``P1_T1_pre_contrast.nii.gz``,
``T2_TSE_reg.nii.gz``). If one of these words is unknown, the file is not read. The words are in `common.words`.
"""

import re
from functools import cache

from common.modalities import ALIASES
from common.words import (
    LABEL,
    MASK,
    NAME_AFTER,
    NAME_AGENT,
    NAME_BEFORE,
    NAME_FLAIR,
    NAME_T1,
    NAME_T2_STAR,
    NAME_WEIGHTINGS,
    NOT_TUMOUR,
    PARALLEL,
    PLANE,
    PROCESSING,
    REGISTERED_TO,
    TECHNIQUE,
)

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""
_PERHAPS = re.compile(r"t[12]|fl|mprage|bravo|spgr", re.IGNORECASE)  # without these no word tells a sequence


@cache
def split_name(name: str) -> tuple[str, str | None]:
    """Split a plain name of a file or folder into the case's part and its role: a modality, ``label`` or None.

    Without a role, the first part is the whole name without its suffix.
    """
    whole = without_suffix(name)
    stem = REGISTERED_TO.sub("", re.sub(r"\.\d+$", "", whole))  # BraTS 2015: VSD.Brain.XX.O.MR_T1c.54514
    label = LABEL.fullmatch(stem)
    if label and not NOT_TUMOUR.fullmatch(label[1] or ""):
        bids = _BIDS.fullmatch(label[1] or "")
        return bids[1] if bids else label[1] or "", "label"
    head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", stem, re.DOTALL).groups(default="")
    pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", stem, re.IGNORECASE | re.DOTALL)
    if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
        head, token = pair[1] or "", pair[2] + pair[3]
    role = None if MASK.fullmatch(head) else ALIASES.get(token.lower())
    agent = re.fullmatch(rf"(?:(.*)[_.-])?(?:{NAME_AGENT})", head, re.IGNORECASE | re.DOTALL)
    if role and (bids := _BIDS.fullmatch(head)):
        head = bids[1]  # files of one subject may differ in entities such as acq-3D and run-2
        if role == "t1" and _bids_contrast(bids[2]):
            role = "t1c"
    elif role == "t1" and agent and not (agent[1] or "").lower().endswith(("no", "non", "without", "pre")):
        head, role = agent[1] or "", "t1c"  # CE_T1
    elif role and (other := by_words(head)[1]) not in (None, role) and (role, other) != ("flair", "t2"):
        role = None  # T1_FLAIR, T1c-T1
    return (head, role) if role else (whole, None)


def by_words(name: str) -> tuple[str, str | None]:
    """Return the case's part of a name in words, and the modality that the words name: T1, T1c, T2, FLAIR or None."""
    whole = without_suffix(name)
    stem = PARALLEL.sub("", REGISTERED_TO.sub("", whole))
    modality, start = None, len(stem)
    if _PERHAPS.search(stem) and not MASK.fullmatch(stem):
        words = list(re.finditer(r"[^_.\-+\s()]+", stem))
        for number in range(len(words) - 1, -1, -1):
            told = [word[0].lower() for word in words[number:]]
            if not (_leading if modality else _known)(told[0]):
                break
            named = _modality(told)
            if modality and not named:
                return whole, None  # contradictory, such as T1_FLAIR
            if named:
                modality, start = named, words[number].start()
    return (stem[:start].rstrip("_.-+ ("), modality) if modality else (whole, None)


def without_suffix(name: str) -> str:
    """Return the name or path of an image file without its suffix."""
    return _SUFFIX.sub("", name)


@cache
def _leading(word: str) -> bool:
    """Return whether a word before the sequence belongs to it, not to the case's name."""
    patterns = (NAME_WEIGHTINGS, NAME_AGENT, NAME_AFTER, NAME_BEFORE, PLANE, NAME_FLAIR)
    return word in ALIASES or any(re.fullmatch(pattern, word) for pattern in patterns)


@cache
def _known(word: str) -> bool:
    return _leading(word) or any(re.fullmatch(pattern, word) for pattern in (TECHNIQUE, PROCESSING, "c"))


def _modality(words: list[str]) -> str | None:
    """Return what known words tell together; None if they name no sequence or contradict each other."""
    parts = [re.fullmatch(NAME_WEIGHTINGS, word) for word in words]
    named = {part[1] for part in parts if part} | {ALIASES[word] for word in words if word in ALIASES}
    rest = [part[2] or "" if part else word for word, part in zip(words, parts, strict=True)]
    rest += [part[0][: part.start(1)] for part in parts if part and part.start(1)]
    if {"dark", "fluid"} <= set(words) or {"da", "fl"} <= set(words) or {"darkfluid", "flair"} & set(words):
        named = {"flair"} if "t1" not in named else set()
    elif words[0] == "fl" and all(re.fullmatch(PROCESSING, word) for word in words[1:]):
        named = {"flair"}
    elif not named and any(re.fullmatch(NAME_T1, word) for word in words):
        named = {"t1"}
    before, after, agent = (
        any(re.fullmatch(pattern, word) for word in rest if word)
        for pattern in (NAME_BEFORE, NAME_AFTER, f"{NAME_AGENT}|c")
    )
    if "t1c" in named:
        named, agent = named - {"t1c"} | {"t1"}, True
    if len(named) != 1 or (before and after):
        return None
    (modality,) = named
    if modality == "t2" and any(re.fullmatch(NAME_T2_STAR, word) for word in rest):
        return None
    return "t1c" if modality == "t1" and not before and (after or agent) else modality


def _bids_contrast(entities: str) -> bool:
    agent = re.search(r"_ce-([a-z0-9]+)", entities, re.IGNORECASE)
    if agent:
        return not re.fullmatch(rf"{NAME_BEFORE}|none|0", agent[1], re.IGNORECASE)
    return bool(re.search(rf"_(?:acq|desc)-(?:{NAME_AFTER}|{NAME_AGENT})(?:_|$)", entities, re.IGNORECASE))
