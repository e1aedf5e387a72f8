"""The words that name sequences, and what is none, in DICOM headers and in file names.

Vendors, hospitals and preprocessing programs write them. Headers are read by `clinic.dicom.sequences`, names of files
by `common.cohorts.names`. All are parts of regular expressions for text in lower case, unless another use is stated.
"""

import re

# DICOM headers

LEFT_OUT = {
    "localizer": r"loc|locali[sz]ers?|scout|survey|topogram|3 ?pl(ane)?|calibration|cal|ref ?scan|smartbrain",
    "subtraction": r"subs?|subtr\w*|substr\w*|soustr\w*|sous(?! ?(ga?d|contr|prod|inj|ag))|difference",
    "projection": r"[a-z]?mips?|min ?ip|mnip|(max|min|minimum|maximum) ip|projection image|vrt|"
                  r"((volume|surface|3d) ?)?render(ed|ing)?",
    "diffusion": r"(iso|reg|ssh|[a-z])?dwi(?!ght)\w*|dw|[a-z]?dti\w*|dki|diff|\w*dif+us\w*|[a-z]?e?adc( ?maps?)?|"
                 r"exponential adc|(col ?)?fa|trace( ?(w|maps?|images?))?|tensor\w*|b ?[1-9]\d{2,3}|b0|resolve|ivim|"
                 r"noddi|hardi|dsi",
    "perfusion": r"perf|perfu[sz]\w*|pwi|dsc|dce|([23]d)?(p|c|pc|v|ve|q|e|g)?asl([23]d)?|"
                 r"(rel|[rnks])?cb[vf] ?(corr|leak|maps?)?|mtt|ttp|tmax|k ?trans|gbp|pbp",
    "functional image": r"bold|(rs ?)?fmri\w*|rest state|resting( state)?|mosaic|t ?test",
    "susceptibility": r"swi(p|s|3d|[23]d\w*)?|e?swan|ven ?bold|suscept\w*|ha?emo|qsm|medic|merge",
    "T2*": r"[a-z]?t2[wd]? ?(\*|star|etoile|ffe|gre|hemo|flash|fl2d)|t2s|gre t2",
    "angiography": r"([23]d)?tof([23]d|mra|angio)?|[a-z]?3di|mr[av]|(mr ?)?angio(gra(m|phy|phie|fia))?|venogra\w*|"
                   r"3d ?pc|pca|inhance|tricks|twist|trance|cow|carotids?",
    "phase or field map": r"phase|pha|phase (maps?|images?)|b[01]\w* map|field ?map\w*",
    "STIR": r"[a-z]?stir",
    "double or phase-sensitive inversion": r"dir|psir|inv1|inv2",
    "steady-state image": r"ciss|ci3d|fiesta\w*|trufi\w*|b ?(ffe|tfe)",
    "spectroscopy": r"svs|csi|mrsi?|press|s?laser|spectro\w*",
    "parameter map": r"[tr][12] ?map\w*|r2 ?\*?|relaxometry|mapit|magic|synthetic|symri|t1 images|mtr",
    "screen picture": r"screen ?\w*|summary|report|key images?",
}  # fmt: skip
"""Kind of image that is not a candidate -> words in descriptions or values of ImageType that indicate it."""
IMAGE_TYPES = {
    "phase, real or imaginary part": {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"},
    "fat or opposed-phase image": {"FAT", "F", "OUT_PHASE", "OPP_PHASE", "OPPOSED_PHASE"},
}
"""Further values of ImageType, which are not words."""

PREFIX = r"([a-z]?[23]d|wip|vw|[a-z])?"
"""Letters that vendors put before a weighting, e.g. Philips: sT1W, eT2W, WIPT1W."""
WEIGHTINGS = {
    "t1": rf"{PREFIX}t1[a-z]*(3d[a-z]*)?|mp ?rage\w*|\w*spgr\w*|bravo|vibe",
    "t2": rf"{PREFIX}t2[a-z]*(3d[a-z]*)?|frfse\w*",
    "flair": rf"{PREFIX}flair\w*|t[12]w?flair|t2f|dark ?fluid\w*|da ?fl|fluid attenuated",
    "pd": rf"{PREFIX}pdw?|proton density|rho",
}
"""Weighting -> words that indicate it."""

AGENT = (
    r"ga?d|[a-z]*\d?w?gd|gado\w*|inj(ect\w*)?|(t1)?km|[ck]ontrast\w*|contr|enhanced|dotarem|prohance|magnevist|multihance|vueway|elucirem|"
    r"clariscan"
)
"""Words for contrast agent, which also occur in negations ("pre GD")."""
TREATED = r"op|er|proc|surg|chir|cirug|resec|biops|embol|rt|rad|xrt|crt|srs|sbrt|gk|gamma|chemo|treat|ther|bestr"
"""Beginnings of words after "pre" and "post" that do not refer to contrast agent ("er" is for "posterior")."""
PLANNED = r"nav|stealth|brainlab|plan"
"""Words of surgical planning: "pre stealth" does not mean before contrast agent. They do not count after "post", since
planning images are often acquired after contrast agent ("post stealth")."""
WITHOUT = r"(without|w ?o|sans|ohne|sin)"
BEFORE = (
    rf"(pre|before|vor|avant) ?({AGENT}|c)|{WITHOUT} ((iv|i v|any) )?({AGENT}|c|ce|con|iv)|"
    r"non inj\w*|ss inj\w*|nativ\w*|plain|non? ?con\w*|no ?c|no ga?d|un ?enhanced"
)
"""Words for a T1 before or without contrast agent."""
PERHAPS_BEFORE = rf"(pre|before|vor|avant)(?! ?({TREATED}|{PLANNED}))|{WITHOUT}(?= *$)"
"""Such words without the agent ("pre", "vor", "without" at the end): weaker evidence than `BEFORE`."""
AFTER = (
    rf"post(?! ?({TREATED}))\w*|\+ ?(c|ga?d\w*|km|ce|contrast|k)|c \+|t1w?(c|ce|post)|ce|"
    rf"(after|nach|apres|avec)(?! ?({TREATED}))"
)
"""Words for a T1 after contrast agent."""
PERHAPS_AFTER = re.compile(r"(?:^|[\W_])c[^\w-]*$", re.IGNORECASE)
"""A final "c" ("T1/3D/FFE/C"), which may mean the same or anything else; "C-" means the opposite."""
BOTH = rf"w ?wo|w w ?o|(with|pre) ?(and|\+)? ?(without|post(?! ?({TREATED})))|(without|w ?o) ?(and|\+)? ?with"
"""Words for a whole examination with and without contrast agent."""
NO_AGENT = (
    r"|no|none|non|nein|n|0|nil|null|na|n ?a|not applicable|without\w*|ohne\w*|nativ\w*|no contrast|unknown|false"
)
"""Values of `AGENT_NAMED` that mean that no contrast agent was given."""

# Names of files

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
NO_IMAGE = re.compile(r"(?<![a-z])(masks?|seg|segm\w*|labels?|roi|prob\w*|warp\w*)(?![a-z])", re.IGNORECASE)
"""Words in names of a study's files that lie beside images but are not images."""
NAME_AGENT = r"gd|gad|gado\w*|contrast\w*|ce|km|kontrast\w*|enhanced|mdc|inj\w*"
NAME_AFTER = rf"post|post({NAME_AGENT})|nach|after|with|con|avec"
NAME_BEFORE = rf"pre|native?|plain|unenhanced|no|non|without|wo|ohne|sin|sans|senza|(no|non|pre)({NAME_AGENT})"
REGISTERED_TO = re.compile(r"[_.\- ](?:to|in)[_.\- ]?(?:t[12]|flair)[a-z]*(?:[_.\- ]space)?$", re.IGNORECASE)
"""Ending of a name that says which image this one was registered to, e.g. ``T2_to_T1``."""
