"""Metrics, tables, statistics and figures: arrays in, results out."""

from common.evaluation.store import CaseStore

__all__ = ["CaseStore"]
