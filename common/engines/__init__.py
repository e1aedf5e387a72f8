"""Additions to MONAI's Ignite engines: inferers for any subset, handlers, and steps that connect stages."""

from typing import Any

from common.names import find

_MODULES = {
    "epoch": ("Rounds", "SetEpoch"),
    "evaluate": ("Report",),
    "fitting": ("new_sequences", "require_fitting"),
    "handlers": ("DivergenceCheck", "EpochLosses", "Reseed", "ResumableCheckpoint", "counted_voxels", "seed_all"),
    "inferers": ("ForegroundInferer", "SubstituteInferer"),
    "multi_gpu": ("distributed", "local_device", "validation_sampler"),
    "precision": ("PrecisionInferer", "fast_memory_format", "fast_precision"),
    "run": ("RunRecord", "kept_cases", "split_of_run"),
    "settings": ("refuse_wrong_settings",),
    "steps": ("BundleEvaluation", "run_engine", "trained_cases", "training_facts"),
    "substitute": ("SubstituteFigure",),
    "sweep": ("SubsetSweep",),
    "tracking": ("EvaluationLog", "store_uri", "track"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    return find(__name__, name, _MODULES)
