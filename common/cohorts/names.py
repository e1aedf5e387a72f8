"""What the name of an image file says: the sequence that it shows, or that it is a label.

A plain name ends with its sequence (``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS-GLI-00001-000-t1c.nii.gz``,
``VSD.Brain.XX.O.MR_T1c.54514.mha``, or just ``T1POST.nii.gz``; in BIDS, ``sub-01_ce-GAD_T1w.nii.gz`` is T1c). A name in
words, as scanners and preprocessing write it, ends with the sequence and known words (``Ax_T1_FSPGR_+C.nii.gz``,
``P1_T1_pre_contrast.nii.gz``, ``T2_TSE_reg.nii.gz``). If one of these words is unknown, the file is not read.
"""

import re
from functools import cache

from common.cohorts.cohort import LABEL_NAMES, Cohort
from common.modalities import ALIASES

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
LABEL = "label"
LABEL_FOLDER = re.compile(
    r"(?:\d+[_-])?(?:labels?(?:T[rs])?|seg(?:mentation)?s?|masks?|annotations?|ground_?truth|gt)", re.IGNORECASE
)
"""Folders that hold labels, of one or many cases."""
NOT_TUMOUR = re.compile(
    r".*(?:brain|parenchyma|tissue|skull|head|bet|cellular|cellular_tumor)|.*prob\w*"
    r"|(?:.*[_.\- ])?(?:[wg]m|csf|fast|pve\w*|aparc\S*|pred\w*)",
    re.IGNORECASE | re.DOTALL,
)
"""What comes before ``_seg`` and the like in names of masks that are no labels of a tumour, or predicted ones."""
MASK = re.compile(r"(?:.*[_.\- ])?(?:seg|segm|segmentation|mask|dseg|roi|labels?)(?:[_.\- ].*)?", re.IGNORECASE)
"""Names with a word for a mask, such as ``seg_refT1``, which are never images."""
_WORN = re.compile(r"[_-](?:brain|skull_?strip(?:ped)?|bet|stripped|nifti)", re.IGNORECASE)
"""Ending of a modality's name that says what was done to the image, e.g. ``t1_skull_strip``."""
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""
_AGENT = r"gd|gad|gado\w*|contrast\w*|ce|km|kontrast\w*|enhanced|mdc|inj\w*"
_AFTER = rf"post|post({_AGENT})|nach|after|with|con|avec"
_BEFORE = rf"pre|native?|plain|unenhanced|no|non|without|wo|ohne|sin|sans|senza|(no|non|pre)({_AGENT})"
CONTRAST = re.compile(
    r"(?:(.*)[_.\- ])?(?:(post|after|with|nach)|pre|before|without|native?|vor)", re.IGNORECASE | re.DOTALL
)
"""What comes before T1 in ``P1_post_T1``: whether a contrast agent was given, or a time point."""
_PLANE = r"ax(ial)?|tra(ns(vers(e|al))?)?|sag(ittal)?|cor(onal)?|[23]d"
_TECHNIQUE = (
    r"iso|t?se|(fr)?fse|fs|mprage|mp|rage|f?spgr|bravo|t?fe|ffe|vibe|fl[23]d|flash|spc|space|cube|vista|propeller|blade|"
    r"tirm?|hires|weighted|wi?|mri?|\d+"
)
_PROCESSING = (
    r"brain|(hd)?bet|(skull)?strip(ped)?|skull|ss|(co)?reg(istered)?|aligned|warped|n4(itk)?|bfc|r?sri(24)?|r2s|mni(152)?|lps|"
    r"ras|to|in|resampled|norm(alised|alized)?|preproc(essed)?|processed|1mm|atlas|final|defaced"
)
_WEIGHTINGS = rf"(?:c|ce|gd|s|e)?(t[12])w?i?({_AGENT}|c|{_AFTER}|{_BEFORE}|{_PLANE}|{_TECHNIQUE})?"
_TARGET = re.compile(r"[_.\- ](?:to|in)[_.\- ]?(?:t[12]|flair)[a-z]*(?:[_.\- ]space)?$", re.IGNORECASE)
"""Ending of a name that says which image this one was registered to, e.g. ``T2_to_T1``."""
_PARALLEL = re.compile(r"(?<=[a-z])_p[234](?=_|$)")  # parallel imaging, as Siemens abbreviates it
_PERHAPS = re.compile(r"t[12]|fl|mprage|bravo|spgr", re.IGNORECASE)  # without these no word tells a sequence
_STAR = re.compile(r"ffe|flash|fl[23]d", re.IGNORECASE)  # with T2: T2*


def split_name(name: str, cohort: Cohort) -> tuple[str, str | None, str]:
    """Split a plain name of a file or folder into the case's part, its role, and, for a label, the ending.

    The role is a modality, ``label`` or None; without one, the first part is the whole name without its suffix.
    """
    return _split(name, cohort.label_names, cohort.only_in is not None)


@cache
def _split(name: str, label_names: tuple[str, ...], worn: bool) -> tuple[str, str | None, str]:
    whole = _without_suffix(name)
    # Names in BraTS 2015 end with the number in the SICAS repository: VSD.Brain.XX.O.MR_T1c.54514
    stem = _TARGET.sub("", re.sub(r"\.\d+$", "", whole))
    label = _labels(label_names).fullmatch(stem)
    if label and not NOT_TUMOUR.fullmatch(label[1] or ""):
        return label[1] or "", LABEL, label[2].lower()
    plain = _WORN.sub("", stem) if worn else stem
    head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", plain, re.DOTALL).groups(default="")
    pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", plain, re.IGNORECASE | re.DOTALL)
    if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
        head, token = pair[1] or "", pair[2] + pair[3]
    role = None if MASK.fullmatch(head) else ALIASES.get(token.lower())
    agent = re.fullmatch(rf"(?:(.*)[_.-])?(?:{_AGENT})", head, re.IGNORECASE | re.DOTALL)
    if role and (bids := _BIDS.fullmatch(head)):
        head = bids[1]  # files of one subject may differ in entities such as acq-3D and run-2
        if role == "t1" and _bids_contrast(bids[2]):
            role = "t1c"
    elif role == "t1" and agent and not (agent[1] or "").lower().endswith(("no", "non", "without", "pre")):
        head, role = agent[1] or "", "t1c"  # CE_T1
    elif role and (other := by_words(head)[1]) not in (None, role) and (role, other) != ("flair", "t2"):
        role = None  # T1_FLAIR, T1c-T1
    return (head, role, "") if role else (whole, None, "")


def by_words(name: str, folder: str = "") -> tuple[str, str | None]:
    """Return the case's part of a name in words, and the modality that the words name: T1, T1c, T2, FLAIR or None.

    ``folder`` is the name of the file's folder, with which the file's name may end (``T1_P1`` in ``P1``).
    """
    whole = _without_suffix(name)
    stem = _PARALLEL.sub("", _TARGET.sub("", without_folder(whole, folder)))
    modality, start = None, len(stem)
    if _PERHAPS.search(stem) and not MASK.fullmatch(stem):
        words = list(re.finditer(r"[^_.\-+\s()]+", stem))
        for number in range(len(words) - 1, -1, -1):
            told = [word[0].lower() for word in words[number:]]
            if not (_leading if modality else _known)(told[0]):
                break
            found = _modality(told)
            if modality and not found:
                return whole, None  # contradictory, such as T1_FLAIR
            if found:
                modality, start = found, words[number].start()
    return (stem[:start].rstrip("_.-+ ("), modality) if modality else (whole, None)


def without_folder(name: str, folder: str) -> str:
    """Return a file's name without suffix and, if it ends with the name of the file's folder, without this too."""
    whole = _without_suffix(name)
    head, last = whole[: -len(folder) - 1], whole[-len(folder) - 1 :]
    return head if head and last[0] in "_.- " and last[1:].lower() == folder.lower() else whole


@cache
def _leading(word: str) -> bool:
    """Return whether a word before the sequence belongs to it, not to the case's name."""
    patterns = (_WEIGHTINGS, _AGENT, _AFTER, _BEFORE, _PLANE, "flair|fl|da|dark|fluid|darkfluid")
    return word in ALIASES or any(re.fullmatch(pattern, word) for pattern in patterns)


@cache
def _known(word: str) -> bool:
    return _leading(word) or any(re.fullmatch(pattern, word) for pattern in (_TECHNIQUE, _PROCESSING, "c"))


def _modality(words: list[str]) -> str | None:
    """Return what known words tell together; None if they name no sequence or contradict each other."""
    parts = [re.fullmatch(_WEIGHTINGS, word) for word in words]
    named = {part[1] for part in parts if part} | {ALIASES[word] for word in words if word in ALIASES}
    rest = [part[2] or "" if part else word for word, part in zip(words, parts, strict=True)]
    rest += [part[0][: part.start(1)] for part in parts if part and part.start(1)]
    if {"dark", "fluid"} <= set(words) or {"da", "fl"} <= set(words) or {"darkfluid", "flair"} & set(words):
        named = {"flair"} if "t1" not in named else set()
    elif words[0] == "fl" and all(re.fullmatch(_PROCESSING, word) for word in words[1:]):
        named = {"flair"}
    elif not named and any(re.fullmatch(r"mprage|bravo|f?spgr", word) for word in words):
        named = {"t1"}
    before, after, agent = (
        any(re.fullmatch(pattern, word) for word in rest if word) for pattern in (_BEFORE, _AFTER, f"{_AGENT}|c")
    )
    if "t1c" in named:
        named, agent = named - {"t1c"} | {"t1"}, True
    if len(named) != 1 or (before and after):
        return None
    (found,) = named
    if found == "t2" and any(map(_STAR.fullmatch, rest)):
        return None
    return "t1c" if found == "t1" and not before and (after or agent) else found


def _bids_contrast(entities: str) -> bool:
    agent = re.search(r"_ce-([a-z0-9]+)", entities, re.IGNORECASE)
    if agent:
        return not re.fullmatch(rf"{_BEFORE}|none|0", agent[1], re.IGNORECASE)
    return bool(re.search(rf"_(?:acq|desc)-(?:{_AFTER}|{_AGENT})(?:_|$)", entities, re.IGNORECASE))


def _without_suffix(name: str) -> str:
    return _SUFFIX.sub("", name)


@cache
def _labels(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern of labels' names: what comes before the ending, and the longest ending that fits."""
    return re.compile(rf"(?:(.*?)[_.\- ])?({'|'.join(map(re.escape, names))})", re.IGNORECASE | re.DOTALL)


def label_folder(folder: str, cohort: Cohort) -> bool:
    """Return whether a folder's name says that it holds labels; False for cohorts whose labels have special names."""
    return cohort.label_names is LABEL_NAMES and bool(LABEL_FOLDER.fullmatch(folder))
