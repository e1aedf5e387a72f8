"""Definition of a cohort: its name, modalities in order and label values, and how its publishers name the files."""

import re
from dataclasses import dataclass
from functools import cache

from common.modalities import LabelSet, spellings


@dataclass(frozen=True)
class Cohort:
    r"""A data set as its publishers define it.

    Attributes:
        name: value of the config key ``cohort``.
        modalities: canonical names; their order is the channel order of every tensor.
        labels: the values in its label files and the regions made from them.
        skull_stripped: True if the images show only the brain; images that show more, or too little, then cause a
            warning.
        brain_ml: smallest and largest plausible volume of a whole brain in ml; by default an adult's. The 39 cases of
            ``open_glioma`` measured for it have 1160 to 1825 ml.
        case_names: regular expression for the publishers' case names; None if the cohort is for data of any origin.
            Where it has ``/``, the name of the case has ``_``, and the files have a folder. Its group ``patient``, if
            there is one, names the patient: ``(?P<patient>BraTS-GLI-\d+)-\d+``.
        image_files: regular expression for the end of the images' paths, without the suffix. ``{case}`` stands for
            ``case_names``, ``{modality}`` for any spelling of a modality.
        label_files: the same for labels. If a case has several, the one whose expression comes first is taken.
        channels: modalities that the publishers stack in one file, in the order of its channels; ``image_files`` then
            has no ``{modality}``.
    """

    name: str
    modalities: tuple[str, ...]
    labels: LabelSet
    skull_stripped: bool = True
    brain_ml: tuple[float, float] = (700.0, 2000.0)
    case_names: str | None = None
    image_files: str = "{case}/{case}[_-]{modality}"
    label_files: tuple[str, ...] = ("{case}/{case}[_-]seg",)
    channels: tuple[str, ...] = ()

    @property
    def case_name(self) -> re.Pattern[str] | None:
        """Pattern of the publishers' case names."""
        return _compiled(self.case_names.replace("/", "_")) if self.case_names else None

    @property
    def file_patterns(self) -> list[re.Pattern[str]]:
        """Patterns for absolute paths without suffix: that of the images, then those of the labels by preference."""
        files = (self.image_files, *self.label_files) if self.case_names else ()
        words = "|".join(spellings(self.modalities))
        patterns = []
        for path in files:
            path = path.replace("{case}", f"(?P<case>{self.case_names})", 1).replace("{case}", "(?P=case)")
            patterns.append(_compiled(f"/{path.replace('{modality}', f'(?P<modality>{words})')}$"))
        return patterns


@cache
def _compiled(pattern: str) -> re.Pattern[str]:  # not kept in the cohort, since its attributes name entries of caches
    return re.compile(pattern, re.IGNORECASE)
