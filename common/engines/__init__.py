"""What MONAI's Ignite engines lack: inferers for any subset, handlers, the steps that join stages."""

from common.engines.epoch import SetEpoch
from common.engines.handlers import EpochLosses, Reseed, ResumableCheckpoint, WeightAverage
from common.engines.inferers import ForegroundInferer, SubstituteInferer
from common.engines.multi_gpu import distributed, local_device, lock_output
from common.engines.precision import BFloat16Inferer
from common.engines.preference import PreferenceBalancer
from common.engines.report import check_settings, report_evaluation
from common.engines.steps import run_bundle, run_variants, train_teacher
from common.engines.substitute import SubstituteFigure
from common.engines.sweep import StoreCases, SubsetSweep
from common.engines.tracking import close_tracking, log_evaluation, log_file, track

__all__ = [
    "BFloat16Inferer",
    "EpochLosses",
    "ForegroundInferer",
    "PreferenceBalancer",
    "Reseed",
    "ResumableCheckpoint",
    "SetEpoch",
    "StoreCases",
    "SubsetSweep",
    "SubstituteFigure",
    "SubstituteInferer",
    "WeightAverage",
    "check_settings",
    "close_tracking",
    "distributed",
    "local_device",
    "lock_output",
    "log_evaluation",
    "log_file",
    "report_evaluation",
    "run_bundle",
    "run_variants",
    "track",
    "train_teacher",
]
