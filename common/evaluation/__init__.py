"""Metrics, tables, statistics and figures: arrays in, results out."""

from common.evaluation.metrics.overlap import Reference
from common.evaluation.metrics.store import CaseStore
