"""Definition of a cohort: its name, its modalities in order, and its label values."""

from __future__ import annotations

from dataclasses import dataclass

from common.modalities import LabelSet


@dataclass(frozen=True)
class Cohort:
    """A data set as its publishers define it.

    Attributes:
        name: value of the config key ``cohort``.
        modalities: canonical names; their order is the channel order of every tensor.
        labels: the values in its label files and the regions made from them.
        skull_stripped: True if the images show only the brain; then images that show more, or too little, are warned
            about.
        brain_ml: smallest and largest plausible volume of a whole brain in ml; by default an adult's. The 39 cases of
            ``open_glioma`` measured for it have 1160 to 1825 ml.
        label_tokens: last tokens of label files' names; by default those of BraTS: 2017 and later, 2015, and
            BraTS20_Training_355 (``W39_1998.09.19_Segm``); and of BIDS.
    """

    name: str
    modalities: tuple[str, ...]
    labels: LabelSet
    skull_stripped: bool = True
    brain_ml: tuple[float, float] = (700.0, 2000.0)
    label_tokens: tuple[str, ...] = ("seg", "ot", "segm", "dseg")
