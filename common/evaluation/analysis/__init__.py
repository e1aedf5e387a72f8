"""Analyses of results: tests, intervals, worth of each modality, reliability, comparison with published tables."""
