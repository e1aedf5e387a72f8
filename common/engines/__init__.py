"""What MONAI's Ignite engines lack: inferers for any subset, handlers, the steps that join stages."""

from common.engines.handlers import Checkpoints, EpochLosses, Reseed
from common.engines.inferers import ForegroundInferer, SubstituteInferer
from common.engines.multi_gpu import distributed, local_device
from common.engines.results import SubsetResults, SubstituteFigure
from common.engines.steps import run_bundle, run_variants
from common.engines.tracking import close_tracking, log_file, log_results, track

__all__ = [
    "Checkpoints",
    "EpochLosses",
    "ForegroundInferer",
    "Reseed",
    "SubsetResults",
    "SubstituteFigure",
    "SubstituteInferer",
    "close_tracking",
    "distributed",
    "local_device",
    "log_file",
    "log_results",
    "run_bundle",
    "run_variants",
    "track",
]
