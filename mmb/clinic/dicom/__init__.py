"""DICOM input and output: the series of a study, recognition of their sequences, segmentations.

Each module is imported when one of its names is first used, since headers are read before PyTorch is loaded.
"""

from importlib import import_module
from typing import Any

from mmb.extras import required

_MODULES = {
    "candidates": ("other_series_lines", "mixed_series", "option", "series_candidates"),
    "pixels": ("load",),
    "report": ("write_report",),
    "segmentation": ("CLASSES", "read_seg", "require_referable", "write_seg"),
    "sequences": ("recognise",),
    "series": ("Series", "read_all", "read_series"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with required("clinic", "The study is DICOM"):
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
