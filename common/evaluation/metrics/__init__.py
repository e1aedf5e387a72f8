"""Metrics of a case, their conventions, and storage of results."""
