"""Additions to MONAI's Ignite engines: inferers for any subset, handlers, and steps that connect stages."""

from common.engines.epoch import Rounds, SetEpoch
from common.engines.evaluate import Report
from common.engines.handlers import EpochLosses, Reseed, ResumableCheckpoint, counted_voxels, seed_all
from common.engines.inferers import ForegroundInferer, SubstituteInferer
from common.engines.multi_gpu import distributed, local_device
from common.engines.precision import (
    PrecisionInferer,
    fast_memory_format,
    fast_precision,
)
from common.engines.settings import refuse_wrong_settings
from common.engines.steps import BundleEvaluation, trained_cases, training_facts
from common.engines.substitute import SubstituteFigure
from common.engines.sweep import SubsetSweep
from common.engines.tracking import EvaluationLog, track
