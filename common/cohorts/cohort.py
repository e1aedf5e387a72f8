"""What a cohort is: a name, its modalities in order, its label values."""

from __future__ import annotations

from dataclasses import dataclass

from common.modalities import LabelSet


@dataclass(frozen=True)
class Cohort:
    """A data set as its publishers define it.

    Attributes:
        name: as used by the config key ``cohort``.
        modalities: canonical names; their order is the channel order of every tensor.
        labels: the values in its label files and the regions made from them.
        skull_stripped: True if the images hold only brain; those of such a cohort that do not look like that are warned
            about.
        brain_ml: the least and the most ml that such a brain, if it is whole, can have; by default an adult's. Real
            ones, measured on 39 cases of ``open_glioma``, have 1160 to 1825.
        label_tokens: last tokens of label files' names; by default those of BraTS: 2017 and later, 2015, and
            BraTS20_Training_355 (``W39_1998.09.19_Segm``).
    """

    name: str
    modalities: tuple[str, ...]
    labels: LabelSet
    skull_stripped: bool = True
    brain_ml: tuple[float, float] = (700.0, 2000.0)
    label_tokens: tuple[str, ...] = ("seg", "ot", "segm", "dseg")
