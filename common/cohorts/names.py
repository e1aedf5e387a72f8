"""What the name of an image file says: the sequence that it shows, or that it is a label.

A name ends with its sequence (``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS-GLI-00001-000-t1c.nii.gz``, or just
``T1POST.nii.gz``; in BIDS, ``sub-01_ce-GAD_T1w.nii.gz`` is T1c). Others are not read. The words are in `common.words`.
"""

import re

from common.modalities import ALIASES, GLIOMA
from common.words import LABEL, MASK, NAME_AFTER, NAME_AGENT, NAME_BEFORE, NOT_TUMOUR, REGISTERED_TO

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
_BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""


def split_name(name: str) -> tuple[str, str | None]:
    """Split the name of a file into the case's part and its role: a modality, ``label`` or None.

    Without a role, the first part is the whole name without its suffix.
    """
    whole = without_suffix(name)
    stem = REGISTERED_TO.sub("", whole)
    label = LABEL.fullmatch(stem)
    if label and not NOT_TUMOUR.fullmatch(label[1] or ""):
        bids = _BIDS.fullmatch(label[1] or "")
        return bids[1] if bids else label[1] or "", "label"
    head, token = re.fullmatch(r"(?:(.*)[_.-])?([^_.-]*)", stem, re.DOTALL).groups(default="")
    pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", stem, re.IGNORECASE | re.DOTALL)
    if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
        head, token = pair[1] or "", pair[2] + pair[3]
    role = ALIASES.get(token.lower())
    others = {ALIASES.get(word) for word in re.split(r"[_.-]", head.lower())} & {*GLIOMA} - {role}
    if role == "flair":
        others -= {"t2"}
    bids = _BIDS.fullmatch(head)
    if role is None or (others and not bids) or MASK.fullmatch(head):  # T1_map, T1_FLAIR, seg_T1
        return whole, None
    agent = re.fullmatch(rf"(?:(.*)[_.-])?(?:{NAME_AGENT})", head, re.IGNORECASE | re.DOTALL)
    if bids:
        head = bids[1]  # files of one subject may differ in entities such as acq-3D and run-2
        role = "t1c" if role == "t1" and _bids_contrast(bids[2]) else role
    elif role == "t1" and agent and not (agent[1] or "").lower().endswith(("no", "non", "without", "pre")):
        head, role = agent[1] or "", "t1c"  # CE_T1
    return head, role


def without_suffix(name: str) -> str:
    """Return the name or path of an image file without its suffix."""
    return _SUFFIX.sub("", name)


def _bids_contrast(entities: str) -> bool:
    agent = re.search(r"_ce-([a-z0-9]+)", entities, re.IGNORECASE)
    if agent:
        return not re.fullmatch(rf"{NAME_BEFORE}|none|0", agent[1], re.IGNORECASE)
    return bool(re.search(rf"_(?:acq|desc)-(?:{NAME_AFTER}|{NAME_AGENT})(?:_|$)", entities, re.IGNORECASE))
