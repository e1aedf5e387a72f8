"""What the ending of an image file's name says: the sequence that it shows, or that it is a label.

A name ends with its sequence (``BraTS20_Training_001_t1ce.nii.gz``, ``BraTS-GLI-00001-000-t1c.nii.gz``, or just
``T1POST.nii.gz``; in BIDS, ``sub-01_ce-gd_T1w.nii.gz`` is T1c). A name in words needs a datalist.
"""

import re
from functools import cache
from typing import NamedTuple

from common.io.files import SUFFIXES
from common.modalities import ALIASES

LABEL_NAMES = (
    *("seg", "ot", "segm", "dseg", "segmentation", "tumor_segmentation", "tumour_segmentation"),
    *("tumormask", "tumor_mask", "tumor-mask", "tumor", "tumour", "tumour_mask"),
    *("lesion", "lesion_mask", "lesion-mask", "seg_mask", "segmentation_mask"),
    *("label-tumor", "label-lesion", "label-lesion_mask", "label-tumor_mask"),
    *("msk", "truth", "gtv", "gt", "label"),
)
"""Endings of the names of labels: those of BraTS, of BIDS, and usual ones."""
LABEL = re.compile(rf"(?:(.*?)[_.\- ])?(?:{'|'.join(LABEL_NAMES)})", re.IGNORECASE | re.DOTALL)
"""Names of labels: what comes before the longest ending that fits."""
NOT_TUMOUR = re.compile(
    r".*(?:brain|parenchyma|tissue|skull|head|bet|cellular|cellular_tumor)|.*prob\w*"
    r"|(?:.*[_.\- ])?(?:[wg]m|csf|fast|pve\w*|aparc\S*|pred\w*)",
    re.IGNORECASE | re.DOTALL,
)
"""What comes before ``_seg`` and the like in names of masks that are no labels of a tumour, or predicted ones."""
MASK = re.compile(r"(?:.*[_.\- ])?(?:seg|segm|segmentation|mask|dseg|roi|labels?)(?:[_.\- ].*)?", re.IGNORECASE)
"""Names with a word for a mask, such as ``seg_refT1``, which are never images."""
REGISTERED_TO = re.compile(
    r"[_.\- ](?:to|in|on)[_.\- ]?(?:t[12]|flair)[a-z]*(?:[_.\- ]space)?(?![^_.\- ])", re.IGNORECASE
)
"""Part of a name that says which image this one was registered to, e.g. ``T2_to_T1``."""
PLANE = (
    r"ax|axi|axial\w*|aks\w*|assiale|osiow\w*|dwars|tr|tra|trans|transv\w*|transax\w*|sag\w*|sajital|strzalkow\w*|"
    r"cor|coronal\w*|czolow\w*|coupes?|kor\w*|obl\w*|mpr|orth\w*|ac|acpc|pc|left|right|lt|rt"
)  # fmt: skip
TECHNIQUE = (
    r"\w{0,3}tse|\w{0,3}fse|\w{0,2}gre|se|\w?ir|tirm|\w?tfe|ffe|tfl|flash|fl|space|spc|cube|vista|view|brainview|"
    r"mp ?rage\w*|lava|quick|m?dixon|ideal|flex|propeller|blade|multivane|vane|drive|c?sense|cs|caipi\w*|grappa|"
    r"asset|arc|compressed|sensing|acs|iso|isotrop\w*|hr|hires|high|res|thin|thick|fast|turbo|e?thrive|radial|fat|sat|"
    r"fatsat|fs|fsat|spair|spir|chess|water|we|proset|clear|nd|norm|dl|air|rpt|repeat|mtc?|black|blood|bb|vasc|dark|"
    r"fluid|navi|navig\w*|stealth|brainlab|plan\w*|gk|stereo\w*|vol\w*|dyn\w*|delayed|late|whole|full|routine|std|"
    r"standard|mm|cm|sl|rek(on\w*)?|epileps\w*|s[ck]leros\w*|esclerosis|multiple|metasta\w*|intraop\w*|pat|slices?|ch|"
    r"weighted|w|wi|wip|images?|tumou?r|motion|star|breath|gated"
)
BODY = (
    r"brain|head|skull|sch(ae|a)del|schedel|hersenen|beyin|hjarn\w*|hjern\w*|glow\w*|mozg\w*|kranial\w*|craneo|"
    r"hip+ocamp\w*|irm|mri|kopf|hirn|gehirn|neuro\w*|crani\w*|crane|cabeza|cabeca|testa|hoofd|tete|cerebr\w*|encefalo|"
    r"encephal\w*|iac|iam|orbits?|orbita\w*|pituitary|sella|hypophys\w*|face|facial|temporal|cav|pons|fossa"
)
PROCESSED = (
    r"(hd)?bet|reg\w*|coreg\w*|reorient\w*|n4\w*|bias|corr|corrected|preproc|defaced|unstripped|crop(ped)?|week|gbm|"
    r"gli|ucsf|pdgm|upenn|tcga|norm\w*|resamp\w*|resliced?|rai|ras|lps|raw|sri\w*|mni\w*|atlas|strip\w*|ss|brats|"
    r"unbiased|final|patient|subject|sub|case|study|series|exam|ses|session|visit|acq|desc|run|rec|recon\w*|"
    r"reformat\w*|\w*strip|\w*morph|deep"
)
"""Words of planes, techniques, the head, and of what was done to an image: parts of regular expressions."""
_SUFFIX = re.compile(rf"(?:{'|'.join(map(re.escape, SUFFIXES))})$", re.IGNORECASE)
BIDS = re.compile(r"(sub-[a-z0-9]+(?:_ses-[a-z0-9]+)?)((?:_[a-z]+-[a-z0-9]+)*)", re.IGNORECASE)
"""Part of a BIDS (Brain Imaging Data Structure) file name before the suffix: the subject, and how it was acquired."""
_BIDS_GIVEN = re.compile(
    r"gd.*|gad.*|contrast|dotarem|magnevist|\w+hance|clariscan|vueway|elucirem|omniscan|ce|yes|true"
)
"""Values of BIDS's entity ``ce`` that name a contrast agent; of the others, those that begin with "no" mean none."""
_AGENT = re.compile(
    r"(?:^|[\W_])(?:no|non|wo|un)?(?:ce|gd|gado?\w*|[ck]ontrast\w*|enh\w*|km|mdc|inj\w*)(?:$|[\W_])", re.IGNORECASE
)
"""Words before ``T1`` that may mean that it was acquired after contrast agent, or expressly without."""
_BIDS_AGENT = re.compile(rf"-(?:post|pre)|{_AGENT.pattern}", re.IGNORECASE)


class Name(NamedTuple):
    """What a file's name says.

    Attributes:
        case: the part that tells the case; without a role, the whole name without its suffix.
        role: a modality, ``label`` or None.
    """

    case: str
    role: str | None


@cache
def split_name(name: str) -> Name:
    """Read the ending of a file's name; a T1 that may be one after contrast agent by other words has no role."""
    whole = without_suffix(name)
    stem = REGISTERED_TO.sub("", whole)
    label = LABEL.fullmatch(stem)
    if label and not NOT_TUMOUR.fullmatch(label[1] or ""):
        bids = BIDS.fullmatch(label[1] or "")
        return Name(bids[1] if bids else label[1] or "", "label")
    token = re.split("[_.-]", stem)[-1]
    head = stem[: -len(token) - 1]
    pair = re.fullmatch(r"(?:(.*)[_.-])?(t[12])[_.-]([^_.-]+)", stem, re.IGNORECASE | re.DOTALL)
    if pair and (pair[2] + pair[3]).lower() in ALIASES:  # T1_post, T2_FLAIR
        head, token = pair[1] or "", pair[2] + pair[3]
    role, bids = ALIASES.get(token.lower()), BIDS.fullmatch(head)
    entities = dict(entity.split("-") for entity in bids[2].lower().split("_")[1:]) if bids else {}
    before = "_".join(value for key, value in entities.items() if key != "space") if bids else head
    others = {ALIASES.get(word) for word in re.split(r"[\W_]", before.lower())} - {None, role}
    if role == "flair":
        others -= {"t2"}
    if role is None or others or MASK.fullmatch(head):  # T1_FLAIR, T1c-T1, seg_T1
        return Name(whole, None)
    if role == "t1" and "ce" in entities:
        given = _BIDS_GIVEN.fullmatch(entities["ce"])
        if not given and not entities["ce"].startswith("no"):
            return Name(whole, None)
        role = "t1c" if given else "t1"
    elif role == "t1" and (_BIDS_AGENT if bids else _AGENT).search(head):
        return Name(whole, None)
    return Name(bids[1] if bids else head, role)  # files of one subject may differ in entities such as run-2


def without_suffix(name: str) -> str:
    """Return the name or path of an image file without its suffix."""
    return _SUFFIX.sub("", name)
