"""What a run is asked before anything is built, what it records, and the evaluation that follows a training."""

from common.run.checks import check
from common.run.evaluation import BundleEvaluation, trained_cases, training_facts
from common.run.fitting import new_sequences, require_fitting
from common.run.record import RunRecord, kept_cases, split_of_run
from common.run.workflow import bundle_root, load_weights, run_engine, start_from

__all__ = [
    "BundleEvaluation",
    "RunRecord",
    "bundle_root",
    "check",
    "kept_cases",
    "load_weights",
    "new_sequences",
    "require_fitting",
    "run_engine",
    "split_of_run",
    "start_from",
    "trained_cases",
    "training_facts",
]
