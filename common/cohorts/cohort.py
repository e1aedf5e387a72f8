"""Definition of a cohort: its name, its modalities in order, and its label values."""

import re
from dataclasses import dataclass

from common.modalities import LabelSet

LABEL_NAMES = (
    *("seg", "ot", "segm", "dseg", "segmentation", "tumor_segmentation", "tumour_segmentation"),
    *("tumormask", "tumor_mask", "tumor-mask", "tumor", "tumour", "tumour_mask"),
    *("lesion", "lesion_mask", "lesion-mask", "seg_mask", "segmentation_mask"),
    *("label-tumor", "label-lesion", "label-lesion_mask", "label-tumor_mask"),
    *("msk", "truth", "gtv", "gt", "label"),
)
"""Endings of the names of labels: those of BraTS (2017 and later; 2015; BraTS20_Training_355, ``W39_1998.09.19_Segm``),
of BIDS, and usual ones."""


@dataclass(frozen=True)
class Cohort:
    """A data set as its publishers define it.

    Attributes:
        name: value of the config key ``cohort``.
        modalities: canonical names; their order is the channel order of every tensor.
        labels: the values in its label files and the regions made from them.
        skull_stripped: True if the images show only the brain; images that show more, or too little, then cause a
            warning.
        brain_ml: smallest and largest plausible volume of a whole brain in ml; by default an adult's. The 39 cases of
            ``open_glioma`` measured for it have 1160 to 1825 ml.
        label_names: endings of label files' names, in lower case. If a case has several labels, the one whose ending
            comes first is taken; with the default, `LABEL_NAMES`, such a case is refused.
        kind_folders: names of folders that hold one kind of file, of one or many cases. Their files are treated as if
            they lay in the folder above.
        only_in: name of the one subfolder of a case that is read, if its other subfolders hold further versions of the
            same files.
        case_names: regular expression for the publishers' case names (`re.fullmatch`, ignoring case); None if they have
            no names of their own. Cohorts with another pattern refuse cases with such names.
    """

    name: str
    modalities: tuple[str, ...]
    labels: LabelSet
    skull_stripped: bool = True
    brain_ml: tuple[float, float] = (700.0, 2000.0)
    label_names: tuple[str, ...] = LABEL_NAMES
    kind_folders: tuple[str, ...] = ()
    only_in: str | None = None
    case_names: str | None = None

    def has_name(self, case: str) -> bool:
        """Return whether a case is named as the cohort's publishers name theirs."""
        return self.case_names is not None and bool(re.fullmatch(self.case_names, case, re.IGNORECASE))
