"""Additions to MONAI's Ignite engines: inferers for any subset, and handlers."""

from typing import Any

from common.names import find

_MODULES = {
    "epoch": ("Rounds", "SetEpoch"),
    "evaluate": ("Report",),
    "handlers": ("DivergenceCheck", "EpochLosses", "Reseed", "ResumableCheckpoint", "counted_voxels", "seed_all"),
    "inferers": ("ForegroundInferer", "SubstituteInferer"),
    "multi_gpu": ("distributed", "local_device", "validation_sampler"),
    "precision": ("PrecisionInferer", "fast_memory_format", "fast_precision"),
    "substitute": ("SubstituteFigure",),
    "sweep": ("SubsetSweep",),
    "tracking": ("EvaluationLog", "store_uri", "track"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    return find(__name__, name, _MODULES)
