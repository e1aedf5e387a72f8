"""DICOM input and output: the series of a study, recognition of their sequences, segmentations.

Each module is imported when one of its names is first used, since headers are read before PyTorch is loaded.
"""

from importlib import import_module
from typing import Any

from mmb.extras import required

_MODULES = {
    "candidates": ("other_series", "mixed_series", "option", "series_candidates"),
    "pixels": ("load",),
    "report": ("write_report",),
    "segmentation": ("CLASSES", "read_seg", "require_referable", "write_seg"),
    "sequences": ("recognise",),
    "series": ("Series", "read_all", "read_series"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            with required("clinic", "The study is DICOM"):
                return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
