"""Metrics, tables, statistics and figures: arrays in, results out."""

from common.evaluation.metrics.store import CaseStore
